//! Waiting until objects are gone.

use std::collections::BTreeSet;
use std::time::Duration;

use bulkhead_types::{Kind, Name, ObjectId, ObjectRef};

use crate::client::{Change, Client, Filter};
use crate::failure::{Class, Failure};
use crate::progress::Progress;

/// Waits until none of these objects is there any more; one of the same name made later does not count.
pub(crate) async fn gone(
    client: &Client,
    objects: &[(ObjectRef, ObjectId)],
    timeout: Option<Duration>,
    mut report: impl FnMut(&ObjectRef) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let groups: BTreeSet<(Kind, Option<Name>)> =
        objects.iter().map(|(object, _)| (object.kind, object.namespace.clone())).collect();
    let progress = Progress::start("waiting for deletion");
    let all = async {
        for (kind, namespace) in groups {
            let of_group: Vec<&(ObjectRef, ObjectId)> =
                objects.iter().filter(|(o, _)| o.kind == kind && o.namespace == namespace).collect();
            group_gone(client, kind, namespace, &of_group, &progress, &mut report).await?;
        }
        Ok(())
    };
    match timeout {
        None => all.await,
        Some(limit) => tokio::time::timeout(limit, all).await.unwrap_or_else(|_| {
            Err(Failure::new(Class::Unavailable, format!("not all are gone after {limit:?}")))
        }),
    }
}

async fn group_gone(
    client: &Client,
    kind: Kind,
    namespace: Option<Name>,
    objects: &[&(ObjectRef, ObjectId)],
    progress: &Progress,
    report: &mut impl FnMut(&ObjectRef) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let filter = Filter { namespace, ..Filter::default() };
    let (listed, revision) = client.list(kind, &filter).await?;
    let present: BTreeSet<ObjectId> = listed.iter().map(|o| o.meta().id).collect();
    let (mut left, gone): (Vec<_>, Vec<_>) =
        objects.iter().copied().partition(|(_, id)| present.contains(id));
    for (object, _) in gone {
        progress.suspend(|| report(object))?;
    }
    let mut watcher = client.watch(kind, &filter, &listed, revision);
    while !left.is_empty() {
        progress.set(format!("waiting until {} of {} are gone", left.len(), objects.len()));
        let (change, object, _) = watcher.next().await?;
        if change == Change::Gone
            && let Some(at) = left.iter().position(|(_, id)| *id == object.meta().id)
        {
            let (object, _) = left.remove(at);
            progress.suspend(|| report(object))?;
        }
    }
    Ok(())
}
