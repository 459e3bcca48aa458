//! `debug`: what the servers find when they look at themselves.

use bulkhead_proto::v1;
use clap::Subcommand;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::Context;
use super::member::status_of;
use crate::client::cluster;
use crate::failure::Failure;
use crate::output::{emit, emit_line, table};

#[derive(Debug, Subcommand)]
pub(crate) enum DebugVerb {
    /// Check all invariants of the state on every server given, and that their states are equal
    Check,
    /// Write a snapshot now, on every server given
    Snapshot,
}

pub(crate) async fn run(verb: DebugVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        DebugVerb::Check => check(context).await,
        DebugVerb::Snapshot => snapshot(context).await,
    }
}

async fn check(context: &Context) -> Result<(), Failure> {
    let mut problems = Vec::new();
    let mut rows = Vec::new();
    let mut digests: Vec<(u64, u32, String, String)> = Vec::new();
    for (address, channel) in context.client.endpoints() {
        match look(context, channel.clone()).await {
            Err(status) => problems.push(format!("{address} does not answer: {}", status.message())),
            Ok((status, found)) => {
                problems.extend(
                    found.violations.iter().map(|v| format!("{address}: {}: {}", v.invariant, v.message)),
                );
                if !status.alarm.is_empty() {
                    problems.push(format!("{address}: alarm: {}", status.alarm));
                }
                rows.push(vec![
                    address.clone(),
                    status.member.to_string(),
                    format!("{:?}", status.role()).to_lowercase(),
                    status.term.to_string(),
                    status.applied_index.to_string(),
                    status.revision.to_string(),
                    found.objects_checked.to_string(),
                    found.violations.len().to_string(),
                    status.disk.map_or_else(|| "?".to_owned(), |disk| super::member::bytes(disk.free_bytes)),
                ]);
                digests.push((status.applied_index, status.digest_version, status.digest, address.clone()));
            }
        }
    }
    let header =
        ["SERVER", "MEMBER", "ROLE", "TERM", "APPLIED", "REVISION", "OBJECTS", "VIOLATIONS", "DISK FREE"];
    emit(&table::render(&header, &rows))?;
    problems.extend(different(&digests));
    if problems.is_empty() { Ok(()) } else { Err(Failure::failed(problems.join("\n"))) }
}

async fn look(
    context: &Context,
    channel: Channel,
) -> Result<(v1::StatusResponse, v1::CheckResponse), Status> {
    let status = status_of(context, channel.clone()).await?;
    let found = cluster(channel).check(context.client.request(v1::CheckRequest {})).await?;
    Ok((status, found.into_inner()))
}

/// Servers that applied the same log must have the same state.
fn different(digests: &[(u64, u32, String, String)]) -> Vec<String> {
    let mut problems = Vec::new();
    for (at, first) in digests.iter().enumerate() {
        for second in &digests[at + 1..] {
            let is_comparable = (first.0, first.1) == (second.0, second.1);
            if is_comparable && first.2 != second.2 {
                problems.push(format!(
                    "{} and {} differ at log index {}: digests {} and {}; stop one and re-sync it as a fresh learner",
                    first.3, second.3, first.0, first.2, second.2
                ));
            }
        }
    }
    problems
}

async fn snapshot(context: &Context) -> Result<(), Failure> {
    for (address, channel) in context.client.endpoints() {
        let request = context.client.request(v1::TakeSnapshotRequest {});
        let taken = cluster(channel.clone()).take_snapshot(request).await.map(Response::into_inner)?;
        emit_line(&format!(
            "{address}: index {}, revision {}, {} bytes",
            taken.index, taken.revision, taken.size_bytes
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digests_of_the_same_place_are_compared() {
        let of = |index, digest: &str| (index, 1, digest.to_owned(), format!("s{index}{digest}"));
        assert!(different(&[of(5, "a"), of(6, "b"), of(5, "a")]).is_empty());
        assert_eq!(different(&[of(5, "a"), of(6, "b"), of(5, "c")]).len(), 1);
    }
}
