//! The cluster itself: identity, members, feature level.

use std::sync::Arc;

use bulkhead_types::{
    Command, EventKind, MemberId, MemberRecord, MemberRole, MembershipAction, MembershipChange, Name,
    Namespace, Object, ObjectMeta, Rejection, RejectionCode, Transaction,
};
use smol_str::SmolStr;
use uuid::Uuid;

use super::objects::NAMESPACE_DEFAULT;
use super::{Emit, check_level, not_allowed, not_found};
use crate::State;

/// Clusters of this level and above know that raising is explicit, counts learners, and has no way back. Below it,
/// older servers decide as they always did, and all replicas must decide alike.
const EXPLICIT_LEVELS: u32 = 2;

pub(super) fn init(
    state: &State,
    cluster_id: Uuid,
    members: &[(MemberId, SmolStr)],
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    if let Some(present) = state.cluster_id() {
        if present == cluster_id {
            return Ok(());
        }
        return Err(not_allowed("cluster", format!("is {present} already and cannot become {cluster_id}")));
    }
    emit.push(EventKind::ClusterInitialized { cluster_id, members: members.to_vec() });
    let name = Name::new(NAMESPACE_DEFAULT).expect("the default namespace has a valid name");
    emit.create(Object::Namespace(Arc::new(Namespace { meta: ObjectMeta::new(None, name) })));
    Ok(())
}

pub(super) fn raise_feature_level(state: &State, level: u32, emit: &mut Emit<'_>) -> Result<(), Rejection> {
    let present = state.feature_level();
    if level < present && present >= EXPLICIT_LEVELS {
        let reason = format!("the cluster runs at level {present}; going back to {level} is not possible");
        return Err(not_allowed("featureLevel", reason)
            .with_remedy("the log may hold records that older servers cannot read: keep the newer ones"));
    }
    if level <= present {
        return Ok(());
    }
    let everybody = level >= EXPLICIT_LEVELS;
    let counts =
        |m: &&Arc<MemberRecord>| m.role == MemberRole::Voter || (everybody && m.role == MemberRole::Learner);
    if let Some(member) = state.members().filter(counts).find(|m| m.feature_level_max < level) {
        let reason = match member.feature_level_max {
            0 => format!("member {} has not said yet which levels it supports", member.member),
            supported => format!("member {} supports up to level {supported}", member.member),
        };
        return Err(not_allowed("featureLevel", reason)
            .with_remedy("upgrade or remove that member first: it could not read the log any more"));
    }
    emit.push(EventKind::FeatureLevelRaised { level });
    Ok(())
}

pub(super) fn register_member(
    state: &State,
    command: &Command,
    emit: &mut Emit<'_>,
) -> Result<(), Rejection> {
    let Command::RegisterMember { member, storage_uid, address, version, feature_level_max } = command else {
        unreachable!("dispatched by variant")
    };
    let record = state.member(*member).ok_or_else(|| not_found(format!("member {member}")))?;
    if record.role == MemberRole::Removed {
        return Err(not_allowed(format!("member {member}"), "was removed: its id is never used again")
            .with_remedy("add it under a new id, with an empty data directory"));
    }
    if !record.storage_uid.is_nil() && record.storage_uid != *storage_uid {
        let reason =
            "comes with another data directory than it had: what it voted for and acknowledged is lost";
        return Err(not_allowed(format!("member {member}"), reason)
            .with_remedy("remove the member and add it under a new id"));
    }
    if state.feature_level() >= EXPLICIT_LEVELS && *feature_level_max < state.feature_level() {
        let reason = format!(
            "supports up to feature level {feature_level_max}, the cluster runs at level {}",
            state.feature_level()
        );
        return Err(
            not_allowed(format!("member {member}"), reason).with_remedy("install a newer version on it")
        );
    }
    let unchanged = record.storage_uid == *storage_uid
        && record.address == *address
        && record.version == *version
        && record.feature_level_max == *feature_level_max;
    if !unchanged {
        emit.push(EventKind::MemberRegistered {
            member: *member,
            storage_uid: *storage_uid,
            address: address.clone(),
            version: version.clone(),
            feature_level_max: *feature_level_max,
        });
    }
    Ok(())
}

/// Decides a change of the membership. Raft applies it only when the outcome is not a refusal.
#[must_use]
pub fn decide_membership(state: &State, change: &MembershipChange) -> Transaction {
    let mut emit = Emit::new(state, None);
    let decided =
        check_level(state, change.feature_level()).and_then(|()| membership_event(state, &change.action));
    let outcome = decided.map(|event| {
        emit.push(event);
        state.revision() + 1
    });
    Transaction {
        request_id: change.request_id,
        actor: change.actor.clone(),
        at_ms: state.now_ms().max(change.proposed_at_ms),
        trace_context: None,
        outcome,
        events: emit.finish(),
    }
}

fn membership_event(state: &State, action: &MembershipAction) -> Result<EventKind, Rejection> {
    let role = |member: MemberId| state.member(member).map(|m| m.role);
    match action {
        MembershipAction::AddLearner { member, address } => match role(*member) {
            None if member.0 == 0 => {
                Err(Rejection::new(RejectionCode::Invalid, "member", "an id is at least 1"))
            }
            None => Ok(EventKind::LearnerAdded { member: *member, address: address.clone() }),
            Some(MemberRole::Removed) => {
                Err(not_allowed(format!("member {member}"), "was removed: its id is never used again")
                    .with_remedy("choose an id that was never used"))
            }
            Some(_) => Err(Rejection::new(
                RejectionCode::AlreadyExists,
                format!("member {member}"),
                "is a member already",
            )),
        },
        MembershipAction::Promote { member } => match role(*member) {
            Some(MemberRole::Learner) => Ok(EventKind::MemberPromoted { member: *member }),
            Some(MemberRole::Voter) => Err(not_allowed(format!("member {member}"), "is a voter already")),
            Some(MemberRole::Removed) | None => Err(not_found(format!("member {member}"))),
        },
        MembershipAction::Remove { member } => match role(*member) {
            Some(MemberRole::Voter) if state.voters().count() == 1 => Err(not_allowed(
                format!("member {member}"),
                "is the last voter: without it the cluster is gone",
            )),
            Some(MemberRole::Voter | MemberRole::Learner) => Ok(EventKind::MemberRemoved { member: *member }),
            Some(MemberRole::Removed) | None => Err(not_found(format!("member {member}"))),
        },
    }
}
