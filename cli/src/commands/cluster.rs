//! `cluster`: what is true of the cluster as a whole.

use bulkhead_proto::v1;
use clap::Subcommand;
use uuid::Uuid;

use super::Context;
use super::member::status_of;
use crate::client::cluster;
use crate::failure::Failure;
use crate::output::{emit, emit_line, table};
use crate::time::rfc3339;

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterVerb {
    /// Show what every server given says of itself
    Status,
    /// Show or raise the feature level: which rules and records the cluster uses
    #[command(subcommand)]
    FeatureLevel(FeatureLevelVerb),
}

#[derive(Debug, Subcommand)]
pub(crate) enum FeatureLevelVerb {
    /// Show the level that holds, and what each member supports
    Get,
    /// Raise it, once every member supports it; there is no way back
    Set {
        /// The level
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        level: u32,
    },
}

pub(crate) async fn run(verb: ClusterVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        ClusterVerb::Status => status(context).await,
        ClusterVerb::FeatureLevel(FeatureLevelVerb::Get) => get_level(context).await,
        ClusterVerb::FeatureLevel(FeatureLevelVerb::Set { level }) => set_level(level, context).await,
    }
}

async fn status(context: &Context) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    for (address, channel) in context.client.endpoints() {
        match status_of(context, channel.clone()).await {
            Err(status) => notes.push(format!("{address} does not answer: {}", status.message())),
            Ok(status) => {
                notes.extend(notes_of(address, &status));
                rows.push(vec![
                    address.clone(),
                    status.member.to_string(),
                    format!("{:?}", status.role()).to_lowercase(),
                    status.version.clone(),
                    format!("{} of {}", status.feature_level, status.feature_level_max),
                    status.applied_index.to_string(),
                    status.revision.to_string(),
                    status.oldest_revision.to_string(),
                ]);
            }
        }
    }
    let header =
        ["SERVER", "MEMBER", "ROLE", "VERSION", "FEATURE LEVEL", "APPLIED", "REVISION", "WATCHABLE FROM"];
    emit(&table::render(&header, &rows))?;
    for note in notes {
        emit_line(&note)?;
    }
    if rows.is_empty() { Err(Failure::failed("no server answers")) } else { Ok(()) }
}

fn notes_of(address: &str, status: &v1::StatusResponse) -> Vec<String> {
    let mut notes = Vec::new();
    if !status.alarm.is_empty() {
        notes.push(format!("{address}: alarm: {}", status.alarm));
    }
    if let Some(backup) = &status.backup {
        let newest = match backup.newest_at_ms {
            0 => "none yet".to_owned(),
            at_ms => format!("newest {} of {}", backup.newest, rfc3339(at_ms)),
        };
        notes.push(format!(
            "{address}: backups to {}: {newest}; {} written, {} failed",
            backup.dir, backup.written, backup.failed
        ));
        if !backup.last_error.is_empty() {
            notes.push(format!("{address}: the last backup failed: {}", backup.last_error));
        }
    }
    notes
}

/// The cluster's feature level, and what its members support.
pub(super) async fn members(context: &Context) -> Result<v1::MembersResponse, Failure> {
    let client = &context.client;
    client
        .call(|channel| {
            let request = client.request(v1::MembersRequest::default());
            async move { cluster(channel).members(request).await }
        })
        .await
}

async fn get_level(context: &Context) -> Result<(), Failure> {
    let answer = members(context).await?;
    emit_line(&format!("feature level {}", answer.feature_level))?;
    let rows: Vec<Vec<String>> = answer
        .members
        .iter()
        .map(|m| {
            vec![m.id.to_string(), m.address.clone(), m.version.clone(), m.feature_level_max.to_string()]
        })
        .collect();
    emit(&table::render(&["ID", "ADDRESS", "VERSION", "SUPPORTS UP TO"], &rows))
}

async fn set_level(level: u32, context: &Context) -> Result<(), Failure> {
    let client = &context.client;
    let request = v1::SetFeatureLevelRequest {
        level,
        request_id: Uuid::new_v4().to_string(),
        actor: client.actor().to_owned(),
    };
    let answer = client
        .call(|channel| {
            let request = client.request(request.clone());
            async move { cluster(channel).set_feature_level(request).await }
        })
        .await?;
    context.note_change(answer.revision);
    emit_line(&format!("feature level {}", answer.level))
}
