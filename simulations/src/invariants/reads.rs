//! Reads are linearizable: a confirmed read sees every write that was acknowledged, and everything that another
//! read returned, before it was asked for; and what it sees is what the log says at that revision.

use bulkhead_types::{Object, Revision};

use super::{Verdict, ensure};

/// Checks what a read saw against the highest revision that any client knew of when it was asked for.
///
/// # Errors
/// When the read is older.
pub fn check(floor: Revision, seen: Revision) -> Verdict {
    ensure(seen >= floor, "reads", || {
        format!(
            "a read returned revision {seen}, although revision {floor} was known before it was asked for"
        )
    })
}

/// Checks what a read that asked for a least revision saw: it is no older, and shows the object as it was then.
///
/// # Errors
/// When it is older, or shows another object.
pub fn check_at_least(
    asked: Revision,
    seen: Revision,
    shown: Option<&Object>,
    then: Option<&Object>,
) -> Verdict {
    ensure(seen >= asked, "reads", || format!("revision {asked} was asked for, {seen} was read"))?;
    ensure(shown == then, "reads", || {
        format!("at revision {seen} a read shows {shown:?}, the log has {then:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_types::{Name, Namespace, ObjectMeta};
    use std::sync::Arc;

    #[test]
    fn a_read_of_ones_own_past_is_noticed() {
        let object = |revision| {
            let meta = ObjectMeta { revision, ..ObjectMeta::new(None, Name::new("a").expect("a name")) };
            Object::Namespace(Arc::new(Namespace { meta }))
        };
        let (old, new) = (object(3), object(5));
        assert!(check_at_least(5, 5, Some(&new), Some(&new)).is_ok());
        assert!(check_at_least(5, 6, None, None).is_ok());
        assert!(check_at_least(5, 4, Some(&old), Some(&old)).is_err());
        assert!(check_at_least(5, 5, Some(&old), Some(&new)).is_err());
        assert!(check_at_least(5, 5, None, Some(&new)).is_err());
    }

    #[test]
    fn a_stale_read_is_noticed() {
        assert!(check(5, 5).is_ok());
        assert!(check(5, 9).is_ok());
        assert!(check(5, 4).is_err());
    }
}
