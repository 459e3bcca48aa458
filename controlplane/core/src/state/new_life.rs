//! A State that goes on as another cluster: after a restore, or after the quorum was lost for good.

use std::sync::Arc;

use bulkhead_types::{MemberId, MemberRecord, MemberRole, Object, Revision};
use smol_str::SmolStr;
use uuid::Uuid;

use super::State;

/// How far revisions jump. The old cluster may have gone on beyond what is kept of it: no revision that it gave
/// out may mean something else in the new one. 10^12 are a year and a half of 20,000 events per second, and
/// 9,000 such jumps stay below 2^53, where JSON numbers end.
pub const REVISION_JUMP: Revision = 1_000_000_000_000;
/// How far the nodes' incarnations jump, for the same reason: no session of the old cluster goes on in the new
/// one. 4,000 such jumps stay below 2^32, where report sequences end.
const INCARNATION_JUMP: u64 = 1_000_000;

impl State {
    /// The same objects in another cluster: new identity, new members (all voters, none known by its data
    /// directory yet), revisions and incarnations beyond any that the old cluster can have given out.
    ///
    /// Answers to requests are kept: a client that repeats one against the new cluster gets the first answer.
    ///
    /// # Panics
    /// When `founders` names a member twice.
    #[must_use]
    pub fn begin_again(&self, cluster_id: Uuid, founders: &[(MemberId, SmolStr)]) -> Self {
        let mut state = self.clone();
        state.clear_members();
        state.cluster_id = Some(cluster_id);
        state.revision = self.revision + REVISION_JUMP;
        for (member, address) in founders {
            assert!(state.member(*member).is_none(), "member {member} is named twice");
            state.put_member(MemberRecord {
                member: *member,
                address: address.clone(),
                role: MemberRole::Voter,
                storage_uid: Uuid::nil(),
                version: SmolStr::default(),
                feature_level_max: 0,
            });
        }
        let nodes: Vec<_> = state.nodes.iter().cloned().collect();
        for mut node in nodes {
            Arc::make_mut(&mut node).status.incarnation += INCARNATION_JUMP;
            state.put(Object::Node(node));
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_types::{Name, Namespace, ObjectMeta};

    use super::*;

    #[test]
    fn a_new_life_keeps_the_objects_and_nothing_that_names_the_old_cluster() {
        let mut old = State { cluster_id: Some(Uuid::from_u128(1)), revision: 7, ..State::default() };
        let meta = ObjectMeta::new(None, Name::new("kept").expect("a name"));
        old.put(Object::Namespace(Arc::new(Namespace { meta })));
        old =
            old.begin_again(Uuid::from_u128(1), &[(MemberId(1), "a:1".into()), (MemberId(2), "b:1".into())]);
        let new = old.begin_again(Uuid::from_u128(2), &[(MemberId(9), "c:1".into())]);
        assert_eq!(new.cluster_id(), Some(Uuid::from_u128(2)));
        assert_eq!(new.revision(), 7 + 2 * REVISION_JUMP);
        assert_eq!(new.members().map(|m| m.member).collect::<Vec<_>>(), [MemberId(9)]);
        assert_eq!(new.namespaces().len(), 1);
        assert_eq!(new.digest(), new.digest_from_scratch());
        assert_eq!(crate::invariant::check(&new), Vec::new());
    }
}
