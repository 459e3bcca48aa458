//! The physical truth: what guests hold fits their node, a pod has one guest at a time and only where it was
//! bound, and what the log calls gone or ended has no guest.
//!
//! No exception is needed for agents that are cut off: they hold what the log gave them, and the log gives it
//! to nobody else before they say that it is gone. (Operators who force a deletion of pods that need not be
//! unique, or delete an unreachable node, give that up; the simulated ones do neither.) What must be unique, the log
//! gives away when its node is fenced: its guest is dead by then.

use bulkhead_types::{ObjectId, Resources};

use super::{Verdict, Violation, ensure};

/// A guest that has just started, and what is around it.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Whose guest.
    pub pod: ObjectId,
    /// The node's key, as its agent knows it.
    pub node: Option<ObjectId>,
    /// The node that the log bound the pod to.
    pub bound: Option<ObjectId>,
    /// The log says that the pod has ended, or it is gone from it.
    pub over: bool,
    /// A guest of the same pod that lived there already.
    pub former: Option<u32>,
    /// What all guests of the node hold now.
    pub held: Resources,
    /// How many they are.
    pub guests: usize,
    /// What the node has.
    pub allocatable: Resources,
    /// How many guests it may have.
    pub pods_max: u32,
}

/// Checks a start.
///
/// # Errors
/// When the guest must not be there.
pub fn start(start: &Start) -> Verdict {
    let Start { pod, node, bound, .. } = start;
    let violation =
        |text: String| Err(Violation::new("physical", format!("pod {pod} at node {node:?}: {text}")));
    if let Some(instance) = start.former {
        return violation(format!("a second guest starts while instance {instance} lives"));
    }
    if bound.is_none() || bound != node {
        return violation(format!("its guest starts, but the log bound it to {bound:?}"));
    }
    if start.over {
        return violation("its guest starts, but the pod has ended or is gone".to_owned());
    }
    if !start.held.fits_in(start.allocatable) {
        return violation(format!("guests hold {:?} of {:?}", start.held, start.allocatable));
    }
    if start.guests > start.pods_max as usize {
        return violation(format!("{} guests, at most {} are allowed", start.guests, start.pods_max));
    }
    Ok(())
}

/// Checks that a pod that is said to be gone, or to have ended, has no guest.
///
/// # Errors
/// When it has.
pub fn gone(what: &str, pod: ObjectId, has_guest: bool) -> Verdict {
    ensure(!has_guest, "physical", || format!("pod {pod} is {what} while its guest lives"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_that_must_not_be_there_are_noticed() {
        let room =
            Resources { cpu_millis: 10, memory_bytes: 10, ephemeral_storage_bytes: 0, ..Resources::ZERO };
        let good = Start {
            pod: ObjectId(1),
            node: Some(ObjectId(2)),
            bound: Some(ObjectId(2)),
            over: false,
            former: None,
            held: room,
            guests: 3,
            allocatable: room,
            pods_max: 3,
        };
        assert!(start(&good).is_ok());
        assert!(start(&Start { former: Some(1), ..good }).is_err());
        assert!(start(&Start { over: true, ..good }).is_err());
        assert!(start(&Start { bound: None, node: None, ..good }).is_err());
        assert!(start(&Start { bound: Some(ObjectId(3)), ..good }).is_err());
        assert!(start(&Start { held: Resources { cpu_millis: 11, ..room }, ..good }).is_err());
        assert!(start(&Start { guests: 4, ..good }).is_err());
    }

    #[test]
    fn a_guest_of_a_gone_pod_is_noticed() {
        assert!(gone("deleted", ObjectId(1), false).is_ok());
        assert!(gone("deleted", ObjectId(1), true).is_err());
    }
}
