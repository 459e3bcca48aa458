//! From a data directory to a server that can start: its identity, its first snapshot, what it holds.

use bulkhead_controlplane_core::server::TooOld;
use bulkhead_controlplane_disk::{Loaded, bootstrap, load};
use bulkhead_proto::{ProtoCodec, v1};
use bulkhead_storage::{Identity, StorageError, Stores, open};
use bulkhead_types::MemberId;
use smol_str::SmolStr;
use tokio::time::{Duration, Instant, timeout};
use uuid::Uuid;
use v1::cluster_client::ClusterClient;

use crate::config::ServerOptions;
use crate::offline::{Origin, read_marker};
use crate::run::RunError;
use crate::transport::connect;

/// How long another server may take to say what cluster it is of.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a server of the cluster to join may take over one answer.
const JOIN_ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long all of them are asked: an election may be under way.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Before they are asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What a server starts from.
pub(crate) struct Booted {
    pub(crate) stores: Stores,
    pub(crate) loaded: Loaded,
    pub(crate) cluster_id: Uuid,
    pub(crate) storage_uid: Uuid,
}

/// The identity of a cluster that is made of these first voters: each of them derives the same.
pub(crate) fn cluster_id_of(initial: &[(MemberId, SmolStr)]) -> Uuid {
    let mut members: Vec<String> =
        initial.iter().map(|(member, address)| format!("{member}={address}")).collect();
    members.sort();
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("bulkhead:{}", members.join(",")).as_bytes())
}

/// Opens the data directory, making it when it is new.
pub(crate) async fn boot(options: &ServerOptions) -> Result<Booted, RunError> {
    if let Some(text) = read_marker(&options.data_dir).map_err(unreadable(options))? {
        return Err(RunError::Unfinished { path: options.data_dir.clone(), text });
    }
    let known = existing(options)?;
    let mut stores = match known {
        Some(stores) => stores,
        None => create(options).await?,
    };
    let cluster_id = Uuid::from_bytes(stores.identity.cluster_id);
    let storage_uid = Uuid::from_bytes(stores.identity.storage_uid);
    let founders: Vec<MemberId> = options.initial_cluster.iter().map(|(member, _)| *member).collect();
    if options.join.is_empty() && founders.contains(&options.member) {
        bootstrap(&stores, &ProtoCodec, &founders)?;
    }
    let loaded = load(&mut stores, &ProtoCodec)?;
    if let Some(cut) = &loaded.cut {
        tracing::warn!(?cut, "a torn tail of the log was cut off; it was never acknowledged");
    }
    Ok(Booted { stores, loaded, cluster_id, storage_uid })
}

fn unreadable(options: &ServerOptions) -> impl FnOnce(std::io::Error) -> RunError + '_ {
    |source| RunError::Directory { path: options.data_dir.clone(), source }
}

/// The stores of a directory that was used before. Founders say which cluster they mean on every start, so a
/// directory of another cluster is noticed.
fn existing(options: &ServerOptions) -> Result<Option<Stores>, RunError> {
    let path = options.data_dir.display().to_string();
    let stores = match open(&options.data_dir, None) {
        Ok(stores) => stores,
        Err(StorageError::NotInitialised { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let (found, expected) = (stores.identity.member_id, options.member.0);
    if found != expected {
        return Err(StorageError::ForeignMember { path, found, expected }.into());
    }
    let founds = options.join.is_empty()
        && options.initial_cluster.iter().any(|(member, _)| *member == options.member);
    let (found, expected) =
        (Uuid::from_bytes(stores.identity.cluster_id), cluster_id_of(&options.initial_cluster));
    let origin = Origin::read(&options.data_dir, found).map_err(unreadable(options))?;
    let began_so = origin.is_some_and(|origin| origin.is_of(&options.initial_cluster));
    if founds && found != expected && !began_so {
        let (found, expected) = (found.to_string(), expected.to_string());
        return Err(StorageError::ForeignCluster { path, found, expected }.into());
    }
    Ok(Some(stores))
}

/// A new directory: of a new cluster's first voter, or of a member that joins.
async fn create(options: &ServerOptions) -> Result<Stores, RunError> {
    let cluster_id = if options.join.is_empty() {
        if !options.initial_cluster.iter().any(|(member, _)| *member == options.member) {
            return Err(RunError::NoCluster { member: options.member });
        }
        refuse_second_life(options).await?;
        cluster_id_of(&options.initial_cluster)
    } else {
        joined_cluster(options).await?
    };
    let identity = Identity {
        cluster_id: cluster_id.into_bytes(),
        member_id: options.member.0,
        storage_uid: Uuid::new_v4().into_bytes(),
    };
    Ok(open(&options.data_dir, Some(identity))?)
}

/// A member whose disk is empty although the others know its old one has forgotten its votes: it must not come
/// back under the same id.
async fn refuse_second_life(options: &ServerOptions) -> Result<(), RunError> {
    for (member, address) in options.initial_cluster.iter().filter(|(member, _)| *member != options.member) {
        // Founders may start together: there need not be a leader yet.
        let Ok(response) = members(address, v1::Consistency::Stale, ASK_TIMEOUT).await else { continue };
        let expected = cluster_id_of(&options.initial_cluster).to_string();
        if !response.cluster_id.is_empty() && response.cluster_id != expected {
            let (address, found) = (address.clone(), response.cluster_id);
            return Err(RunError::Founded { peer: *member, address, found });
        }
        let own = response.members.iter().find(|m| m.id == options.member.0);
        if own.is_some_and(|m| !m.storage_uid.is_empty()) {
            return Err(RunError::SecondLife { member: options.member, peer: *member });
        }
    }
    Ok(())
}

/// Asks the cluster that this member joins for its identity, and whether it expects this member.
async fn joined_cluster(options: &ServerOptions) -> Result<Uuid, RunError> {
    let deadline = Instant::now() + JOIN_TIMEOUT;
    loop {
        match ask_to_join(options, deadline).await {
            // An election may be under way, or the servers are just being started.
            Err(RunError::Join(reason)) if Instant::now() < deadline => {
                tracing::warn!(reason, "no server of the cluster to join answers yet; asking again");
                tokio::time::sleep(ASK_AGAIN).await;
            }
            answer => return answer,
        }
    }
}

/// Asks each server once.
async fn ask_to_join(options: &ServerOptions, deadline: Instant) -> Result<Uuid, RunError> {
    let mut reasons = Vec::new();
    for address in &options.join {
        let limit = JOIN_ASK_TIMEOUT.min(deadline.saturating_duration_since(Instant::now()));
        // The server asked may not have the entry yet that adds this member: what counts is what is true now.
        match members(address, v1::Consistency::Linearizable, limit).await {
            Ok(response) => {
                let cluster_id = Uuid::parse_str(&response.cluster_id)
                    .map_err(|_| RunError::Join(format!("{address} belongs to no cluster yet")))?;
                let (level, supported) = (response.feature_level, options.feature_level_max);
                if level > supported {
                    return Err(TooOld { level, supported }.into());
                }
                let own = response.members.iter().find(|m| m.id == options.member.0);
                let member = options.member;
                return match own {
                    // It was there before, with a disk that is gone: it must not vote again under this id.
                    Some(own) if !own.storage_uid.is_empty() => Err(RunError::RejoinWithoutData { member }),
                    Some(_) => Ok(cluster_id),
                    None => Err(RunError::NotExpected { member, address: options.advertise.clone() }),
                };
            }
            Err(error) => reasons.push(format!("{address}: {}", error.message())),
        }
    }
    Err(RunError::Join(reasons.join("; ")))
}

async fn members(
    address: &str,
    consistency: v1::Consistency,
    limit: Duration,
) -> Result<v1::MembersResponse, tonic::Status> {
    let channel = connect(address).map_err(|e| tonic::Status::unavailable(e.to_string()))?;
    let mut request = tonic::Request::new(v1::MembersRequest { consistency: consistency.into() });
    request.set_timeout(limit);
    let mut client = ClusterClient::new(channel);
    let answer = timeout(limit, client.members(request)).await;
    Ok(answer.map_err(|_| tonic::Status::deadline_exceeded("no answer in time"))??.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn founders_agree_on_the_cluster_whatever_the_order() {
        let a = (MemberId(1), SmolStr::new("a:1"));
        let b = (MemberId(2), SmolStr::new("b:2"));
        assert_eq!(cluster_id_of(&[a.clone(), b.clone()]), cluster_id_of(&[b.clone(), a.clone()]));
        assert_ne!(cluster_id_of(std::slice::from_ref(&a)), cluster_id_of(&[a, b]));
    }
}
