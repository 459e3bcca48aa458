//! How a Deployment goes from one template to the next, as a value.

use bulkhead_types::{
    CanaryStep, Delivery, DeliveryStatus, DeploymentSpec, DeploymentStrategy, IntOrPercent,
};
use serde_json::{Map, Value, json};

use super::Fields;
use super::workload::share;

/// The bounds, and the steps if there are any.
pub(super) fn strategy(spec: &DeploymentSpec) -> Value {
    let DeploymentStrategy::RollingUpdate { max_surge, max_unavailable } = spec.strategy else {
        return json!({"type": "Recreate"});
    };
    let bounds =
        Fields::new().set("maxSurge", share(max_surge)).set("maxUnavailable", share(max_unavailable));
    match spec.delivery.get() {
        None => json!({"type": "RollingUpdate", "rollingUpdate": bounds.finish()}),
        Some(Delivery::Batches { partition, size, pause }) => {
            let mut batch = Map::new();
            if let Some(size) = size {
                batch.insert("size".to_owned(), share(*size));
            }
            if let Some(found) = pause {
                batch.insert("pause".to_owned(), self::pause(found.duration_ms));
            }
            let bounds = match partition {
                IntOrPercent::Int(0) => bounds,
                partition => bounds.set("partition", share(*partition)),
            };
            let bounds = if batch.is_empty() { bounds } else { bounds.set("batch", batch.into()) };
            json!({"type": "RollingUpdate", "rollingUpdate": bounds.finish()})
        }
        Some(Delivery::Canary { steps, failure_limit }) => {
            let steps = steps.iter().map(|step| match step {
                CanaryStep::SetReplicas { replicas } => json!({"setReplicas": share(*replicas)}),
                CanaryStep::Pause { duration_ms } => json!({"pause": pause(*duration_ms)}),
            });
            let fields = bounds.list("steps", steps).set("failureLimit", (*failure_limit).into());
            json!({"type": "Canary", "canary": fields.finish()})
        }
        Some(Delivery::BlueGreen { auto_promotion_ms, scale_down_delay_ms, preview_replicas }) => {
            let mut fields = Map::new();
            if let Some(ms) = auto_promotion_ms {
                fields.insert("autoPromotionSeconds".to_owned(), (ms / 1000).into());
            }
            fields.insert("scaleDownDelaySeconds".to_owned(), (scale_down_delay_ms / 1000).into());
            if let Some(replicas) = preview_replicas {
                fields.insert("previewReplicas".to_owned(), (*replicas).into());
            }
            json!({"type": "BlueGreen", "blueGreen": fields})
        }
    }
}

fn pause(duration_ms: Option<u64>) -> Value {
    duration_ms.map_or_else(|| json!({}), |ms| json!({"durationSeconds": ms / 1000}))
}

/// Where a delivery stands.
pub(super) fn status(status: &DeliveryStatus, delivery: &Delivery, desired: u32) -> Value {
    Fields::new()
        .nonempty("stableReplicaSet", &status.stable)
        .nonempty("updateReplicaSet", &status.update)
        .nonempty("activeReplicaSet", status.active(delivery, desired))
        .set("step", status.step.into())
        .time("stepStartedAt", status.step_started_ms)
        .nonempty("abortReason", &status.abort_reason)
        .set("failedPods", status.failed_pods.len().into())
        .finish()
}
