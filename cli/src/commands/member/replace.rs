//! `member replace`: a new server takes the place of one that is lost. Every step looks at the cluster first, so a
//! replacement that was cut short goes on when the command is run again.

use std::time::Instant;

use bulkhead_proto::v1;
use clap::Args;
use tonic::{Code, Response, Status};
use uuid::Uuid;

use super::{CATCH_UP_POLL, members, promote, remove, transfer};
use crate::client::cluster;
use crate::commands::Context;
use crate::failure::{Class, Failure};
use crate::output::emit_line;
use crate::progress::Progress;

#[derive(Debug, Args)]
pub(crate) struct ReplaceArgs {
    /// The id of the member that is lost
    id: u64,
    /// HOST:PORT of the new server, as the others reach it [default: the lost one's]
    address: Option<String>,
    /// The new server's id [default: the next one that was never used]
    #[arg(long)]
    new_id: Option<u64>,
}

/// The member that takes the place: one that was added already, by an earlier run, or none yet.
fn successor<'m>(
    members: &'m [v1::Member],
    old: u64,
    address: &str,
    new_id: Option<u64>,
) -> Option<&'m v1::Member> {
    let present = members.iter().filter(|m| m.id != old && m.role() != v1::MemberRole::Removed);
    let fits = |m: &&v1::Member| match new_id {
        Some(id) => m.id == id,
        // A founder that is reached at the same address is no successor: it must have come later.
        None => m.id > old && m.address == address,
    };
    present.into_iter().find(fits)
}

pub(crate) async fn run(args: ReplaceArgs, context: &Context) -> Result<(), Failure> {
    let before = members(context).await?;
    let old = before.members.iter().find(|m| m.id == args.id);
    let address = match (args.address, old) {
        (Some(address), _) => address,
        (None, Some(old)) => old.address.clone(),
        (None, None) => {
            return Err(Failure::new(
                Class::NotFound,
                format!(
                    "the cluster has no member {}: nothing to replace. If an earlier replacement removed it already \
                     but its successor does not vote yet, finish with: bulkhead member promote NEW-ID",
                    args.id
                ),
            ));
        }
    };
    let found = successor(&before.members, args.id, &address, args.new_id);
    if old.is_none() && found.is_none() {
        return Err(Failure::new(Class::NotFound, format!("the cluster has no member {}", args.id)));
    }
    let new = match found {
        Some(member) => {
            emit_line(&format!(
                "member {} takes the place of member {}, as begun before",
                member.id, args.id
            ))?;
            member.id
        }
        None => add(&address, args.new_id, context).await?,
    };
    let voting = found.is_some_and(|m| m.role() == v1::MemberRole::Voter);
    if !voting {
        let servers: Vec<&str> = before
            .members
            .iter()
            .filter(|m| m.id != args.id && m.id != new && m.reachable != Some(false))
            .map(|m| m.address.as_str())
            .collect();
        emit_line(&format!(
            "start it now, with an empty data directory, if it does not run yet:\n  \
             bulkhead server --id {new} --data-dir DIR --listen {address} --join {}",
            servers.join(",")
        ))?;
        promote(new, false, false, context).await?;
    }
    if old.is_some() {
        remove_old(args.id, context).await?;
    }
    emit_line(&format!("member {new} has taken the place of member {}", args.id))
}

/// Adds the learner. Each attempt is a request of its own: a refusal is remembered with its id.
async fn add(address: &str, new_id: Option<u64>, context: &Context) -> Result<u64, Failure> {
    let client = &context.client;
    let request = v1::AddLearnerRequest {
        address: address.to_owned(),
        member: new_id.unwrap_or_default(),
        request_id: Uuid::new_v4().to_string(),
        actor: client.actor().to_owned(),
    };
    let answer = client
        .call(|channel| {
            let request = client.request(request.clone());
            async move { cluster(channel).add_learner(request).await }
        })
        .await?;
    context.note_change(answer.revision);
    emit_line(&format!("member {} added as a learner at {address}", answer.member))?;
    Ok(answer.member)
}

/// Removes the lost one. Just after a promotion the cluster may still be in the middle of it, and the one to be
/// removed may lead if it is not lost at all: both pass, the second with some help.
async fn remove_old(id: u64, context: &Context) -> Result<(), Failure> {
    /// Refusals of this kind are no matter of time.
    const QUORUM: &str = "quorum would be lost";
    let started = Instant::now();
    let progress = Progress::start(format!("removing member {id}"));
    loop {
        let status = match remove(id, false, context).await? {
            Ok(revision) => {
                context.note_change(revision);
                return emit_line(&format!("member {id} removed"));
            }
            Err(status) if status.code() == Code::NotFound => return Ok(()),
            Err(status) => status,
        };
        let limit = context.timeout.unwrap_or(crate::client::TIMEOUT_DEFAULT);
        if status.message().contains(QUORUM) || started.elapsed() >= limit {
            return Err(Failure::from(status));
        }
        progress.set(status.message().to_owned());
        if status.message().contains("leads the cluster") {
            transfer(None, context).await?;
        }
        tokio::time::sleep(CATCH_UP_POLL).await;
    }
}

/// Keeps a refusal as a value; other failures stay errors, to be tried elsewhere or reported.
pub(super) fn settle<T>(answer: Result<Response<T>, Status>) -> Result<Response<Result<T, Status>>, Status> {
    match answer {
        Err(status) if matches!(status.code(), Code::FailedPrecondition | Code::NotFound) => {
            Ok(Response::new(Err(status)))
        }
        answer => answer.map(|response| response.map(Ok)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_that_was_begun_is_found_again() {
        let member = |id, address: &str, role: v1::MemberRole| v1::Member {
            id,
            address: address.to_owned(),
            role: role.into(),
            ..v1::Member::default()
        };
        let (voter, learner, removed) =
            (v1::MemberRole::Voter, v1::MemberRole::Learner, v1::MemberRole::Removed);
        let members = [
            member(1, "a:1", voter),
            member(2, "b:1", voter),
            member(3, "c:1", voter),
            member(4, "c:1", removed),
            member(5, "c:1", learner),
        ];
        let found = |old, address, new_id| successor(&members, old, address, new_id).map(|m| m.id);
        assert_eq!(found(3, "c:1", None), Some(5));
        assert_eq!(found(3, "d:1", None), None, "another place: a new one");
        assert_eq!(found(2, "a:1", None), None, "a founder is no successor");
        assert_eq!(found(3, "c:1", Some(5)), Some(5));
        assert_eq!(found(3, "c:1", Some(6)), None);
        assert_eq!(found(5, "c:1", None), None);
    }
}
