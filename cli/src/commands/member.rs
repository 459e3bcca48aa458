//! `member`: which servers the cluster has.

mod replace;

use std::time::Duration;

use bulkhead_proto::v1;
use clap::Subcommand;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use uuid::Uuid;

use super::Context;
use crate::client::cluster;
use crate::failure::{Class, Failure};
use crate::output::{Format, emit, emit_line, table};
use crate::progress::Progress;

/// How long one server may take to tell its own status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a learner is looked at while it catches up.
const CATCH_UP_POLL: Duration = Duration::from_millis(250);

#[derive(Debug, Subcommand)]
pub(crate) enum MemberVerb {
    /// Show all members
    List {
        /// Removed members too
        #[arg(long)]
        all: bool,
        /// How to print them
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Let a new server have the log; it does not vote yet
    Add {
        /// HOST:PORT of the new server, as the others reach it
        address: String,
        /// Its id; the next one that was never used when not given
        #[arg(long)]
        id: Option<u64>,
    },
    /// Make a learner that has caught up a voter; waits for that
    Promote {
        /// Its id
        id: u64,
        /// Fail at once when it has not caught up yet
        #[arg(long)]
        no_wait: bool,
        /// Even if it has not caught up and the quorum is lost by it; recorded in the log
        #[arg(long)]
        force_unsafe: bool,
    },
    /// Take a member out for good, dead or alive; its id is never used again
    Remove {
        /// Its id
        id: u64,
        /// Even if the quorum is lost by it; recorded in the log. Read what the refusal says first
        #[arg(long)]
        force_unsafe: bool,
    },
    /// Let a new server take the place of one that is lost, damaged or diverged: adds it, waits until it has the
    /// log, lets it vote, and removes the old one. Run it again when it was cut short
    #[command(visible_alias = "reseed")]
    Replace(replace::ReplaceArgs),
    /// Make another voter the leader
    Transfer {
        /// Its id; the voter with most of the log when not given
        id: Option<u64>,
    },
}

pub(crate) async fn run(verb: MemberVerb, context: &Context) -> Result<(), Failure> {
    let client = &context.client;
    let (request_id, actor) = (Uuid::new_v4().to_string(), client.actor().to_owned());
    match verb {
        MemberVerb::List { all, output } => list(all, output, context).await,
        MemberVerb::Add { address, id } => {
            let request =
                v1::AddLearnerRequest { address, member: id.unwrap_or_default(), request_id, actor };
            let answer = client
                .call(|channel| {
                    let request = client.request(request.clone());
                    async move { cluster(channel).add_learner(request).await }
                })
                .await?;
            context.note_change(answer.revision);
            emit_line(&format!(
                "member {} added as a learner of cluster {}",
                answer.member, answer.cluster_id
            ))
        }
        MemberVerb::Promote { id, no_wait, force_unsafe } => {
            promote(id, no_wait || force_unsafe, force_unsafe, context).await
        }
        MemberVerb::Replace(args) => replace::run(args, context).await,
        MemberVerb::Remove { id, force_unsafe } => {
            let revision = remove(id, force_unsafe, context).await?.map_err(Failure::from)?;
            context.note_change(revision);
            emit_line(&format!("member {id} removed"))
        }
        MemberVerb::Transfer { id } => transfer(id, context).await,
    }
}

/// Removes a member; a refusal is a value.
async fn remove(id: u64, force_unsafe: bool, context: &Context) -> Result<Result<u64, Status>, Failure> {
    let client = &context.client;
    let (request_id, actor) = (Uuid::new_v4().to_string(), client.actor().to_owned());
    let request = v1::RemoveRequest { member: id, request_id, actor, force_unsafe };
    let answer = client
        .call(|channel| {
            let request = client.request(request.clone());
            async move { replace::settle(cluster(channel).remove(request).await) }
        })
        .await?;
    Ok(answer.map(|answer| answer.revision))
}

async fn transfer(id: Option<u64>, context: &Context) -> Result<(), Failure> {
    let client = &context.client;
    let request = v1::TransferLeaderRequest { to: id.unwrap_or_default() };
    let answer = client
        .call(|channel| {
            let request = client.request(request);
            async move { cluster(channel).transfer_leader(request).await }
        })
        .await?;
    emit_line(&format!("member {} leads in term {}", answer.leader, answer.term))
}

/// All members as a server sees them.
async fn members(context: &Context) -> Result<v1::MembersResponse, Failure> {
    let client = &context.client;
    client
        .call(|channel| {
            let request = client.request(v1::MembersRequest::default());
            async move { cluster(channel).members(request).await }
        })
        .await
}

async fn list(all: bool, output: Format, context: &Context) -> Result<(), Failure> {
    let answer = members(context).await?;
    let shown = |m: &&v1::Member| all || m.role() != v1::MemberRole::Removed;
    match output {
        Format::Json | Format::Yaml => return emit(&structured(&answer, output, shown)?),
        Format::Name => {
            let names: Vec<String> =
                answer.members.iter().filter(shown).map(|m| format!("member/{}\n", m.id)).collect();
            return emit(&names.concat());
        }
        Format::Table | Format::Wide => {}
    }
    let unknown = || "?".to_owned();
    // Each knows its own disk; one that does not answer is shown without.
    let disks =
        futures::future::join_all(answer.members.iter().filter(shown).map(|m| disk_of(context, m))).await;
    let rows: Vec<Vec<String>> = answer
        .members
        .iter()
        .filter(shown)
        .zip(disks)
        .map(|(m, disk)| {
            let role = if m.leader { "leader" } else { role_name(m) };
            let reachable = m.reachable.map_or_else(unknown, |r| if r { "yes" } else { "no" }.to_owned());
            vec![
                m.id.to_string(),
                m.address.clone(),
                role.to_owned(),
                reachable,
                m.match_index.map_or_else(unknown, |index| index.to_string()),
                disk.map_or_else(unknown, |disk| {
                    format!("{} of {}", bytes(disk.free_bytes), bytes(disk.total_bytes))
                }),
                if m.version.is_empty() { unknown() } else { m.version.clone() },
            ]
        })
        .collect();
    emit_line(&format!("cluster {}", answer.cluster_id))?;
    emit(&table::render(&["ID", "ADDRESS", "ROLE", "REACHABLE", "LOG INDEX", "DISK FREE", "VERSION"], &rows))
}

/// What a member says of its disk.
async fn disk_of(context: &Context, member: &v1::Member) -> Option<v1::DiskUsage> {
    let channel = crate::client::channel(&member.address).ok()?;
    status_of(context, channel).await.ok()?.disk
}

/// Bytes as people read them.
pub(super) fn bytes(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes < 10 << 30 { format!("{}Mi", bytes / MIB) } else { format!("{}Gi", bytes / (MIB << 10)) }
}

fn role_name(member: &v1::Member) -> &'static str {
    match member.role() {
        v1::MemberRole::Voter => "voter",
        v1::MemberRole::Learner => "learner",
        v1::MemberRole::Removed => "removed",
        v1::MemberRole::Unspecified => "unknown",
    }
}

/// The members for programs.
fn structured(
    answer: &v1::MembersResponse,
    output: Format,
    shown: impl Fn(&&v1::Member) -> bool,
) -> Result<String, Failure> {
    let member = |m: &v1::Member| {
        serde_json::json!({
            "id": m.id,
            "address": m.address,
            "role": role_name(m),
            "leader": m.leader,
            "reachable": m.reachable,
            "matchIndex": m.match_index,
            "version": m.version,
            "storageUid": m.storage_uid,
        })
    };
    let members: Vec<_> = answer.members.iter().filter(shown).map(member).collect();
    let value = serde_json::json!({ "clusterId": answer.cluster_id, "members": members });
    if output == Format::Yaml {
        return Ok(bulkhead_manifest::value_to_yaml(&value));
    }
    let text = serde_json::to_string_pretty(&value).map_err(|e| Failure::failed(e.to_string()))?;
    Ok(format!("{text}\n"))
}

async fn promote(id: u64, no_wait: bool, force_unsafe: bool, context: &Context) -> Result<(), Failure> {
    let client = &context.client;
    let progress = Progress::start(format!("waiting until member {id} has caught up"));
    let started = std::time::Instant::now();
    loop {
        // A refusal is remembered with its request id: every attempt is a request of its own.
        let request = v1::PromoteRequest {
            member: id,
            request_id: Uuid::new_v4().to_string(),
            actor: client.actor().to_owned(),
            force_unsafe,
        };
        let attempt = client
            .call(|channel| {
                let request = client.request(request.clone());
                async move { replace::settle(cluster(channel).promote(request).await) }
            })
            .await?;
        match attempt {
            Ok(answer) => {
                context.note_change(answer.revision);
                return emit_line(&format!("member {id} votes"));
            }
            Err(status) if no_wait || status.code() == Code::NotFound => return Err(status.into()),
            // An attempt whose answer was lost may have done it; and a voter need not wait for anything.
            Err(_) if votes(id, context).await? => return emit_line(&format!("member {id} votes")),
            Err(status) => {
                if context.timeout.is_some_and(|limit| started.elapsed() >= limit) {
                    return Err(Failure::new(Class::Unavailable, crate::failure::describe(&status)));
                }
                progress.set(status.message().to_owned());
                tokio::time::sleep(CATCH_UP_POLL).await;
            }
        }
    }
}

/// Whether a member is a voter.
async fn votes(id: u64, context: &Context) -> Result<bool, Failure> {
    let answer = members(context).await?;
    Ok(answer.members.iter().any(|m| m.id == id && m.role() == v1::MemberRole::Voter))
}

/// One server's own view of itself.
pub(crate) async fn status_of(context: &Context, channel: Channel) -> Result<v1::StatusResponse, Status> {
    let request = context.client.request(v1::StatusRequest {});
    let answer = tokio::time::timeout(STATUS_TIMEOUT, cluster(channel).status(request)).await;
    answer.unwrap_or_else(|_| Err(Status::unavailable("no answer in time"))).map(Response::into_inner)
}
