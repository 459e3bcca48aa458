//! Looks at the store again and again, and tells the core which images there are.

use std::time::Duration;

use bulkhead_nodeagent_core::Input;
use bulkhead_types::{NodeImage, NodeImages};
use smol_str::SmolStr;
use tokio::sync::mpsc;

use super::store::{ImageStore, ImageSummary};

/// How often the store is looked at. Who is placed by what images nodes have can wait so long.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Runs until nobody takes what it tells. The first look is told whatever it finds; later ones when something differs.
pub(crate) async fn watch(store: ImageStore, inputs: mpsc::Sender<Input>) {
    let mut known: Option<NodeImages> = None;
    let mut timer = tokio::time::interval(LOOK_EVERY);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let looking = store.clone();
        let Ok(listed) = tokio::task::spawn_blocking(move || looking.list()).await else { return };
        let found = NodeImages::largest(listed.into_iter().map(told));
        if known.as_ref() == Some(&found) {
            continue;
        }
        if inputs.send(Input::Images(found.clone())).await.is_err() {
            return;
        }
        known = Some(found);
    }
}

fn told(summary: ImageSummary) -> NodeImage {
    NodeImage {
        digest: SmolStr::new(summary.digest.as_str()),
        names: summary.names.iter().map(SmolStr::new).collect(),
        size_bytes: summary.disk_bytes,
    }
}
