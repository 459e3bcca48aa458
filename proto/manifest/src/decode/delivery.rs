//! How a Deployment goes from one template to the next.

use bulkhead_types::{
    BatchPause, CanaryStep, Delivery, DeploymentStrategy, IntOrPercent, REPLICAS_MAX, Rare,
    SCALE_DOWN_DELAY_MS_DEFAULT,
};

use super::decoder::{Decoder, Fields, Schema};
use super::workload::{count, int_or_percent};
use crate::tree::Node;

const STRATEGY: Schema = Schema { known: &["type", "rollingUpdate", "canary", "blueGreen"], ..Schema::EMPTY };
const ROLLING_UPDATE: Schema =
    Schema { known: &["maxSurge", "maxUnavailable", "partition", "batch"], ..Schema::EMPTY };
const BATCH: Schema = Schema { known: &["size", "pause"], ..Schema::EMPTY };
const CANARY: Schema =
    Schema { known: &["steps", "maxSurge", "maxUnavailable", "failureLimit"], ..Schema::EMPTY };
const STEP: Schema = Schema { known: &["setReplicas", "pause"], ..Schema::EMPTY };
const PAUSE: Schema = Schema { known: &["durationSeconds"], ..Schema::EMPTY };
const BLUE_GREEN: Schema =
    Schema { known: &["autoPromotionSeconds", "scaleDownDelaySeconds", "previewReplicas"], ..Schema::EMPTY };

/// The types, and the field that belongs to each.
const TYPES: [(&str, &str); 4] =
    [("RollingUpdate", "rollingUpdate"), ("Recreate", ""), ("Canary", "canary"), ("BlueGreen", "blueGreen")];

type Found = (DeploymentStrategy, Rare<Delivery>);

/// The bounds, and the steps if there are any.
pub(super) fn strategy(d: &mut Decoder<'_>, spec: &Fields<'_>) -> Found {
    let path = spec.path("strategy");
    let Some(fields) = spec.get("strategy").and_then(|node| d.fields(node, &path, &STRATEGY)) else {
        return Found::default();
    };
    let choices = TYPES.map(|(name, field)| (name, (name, field)));
    let (name, own) = d.choice(&fields, "type", &choices).unwrap_or(TYPES[0]);
    for (_, field) in TYPES.iter().filter(|(_, field)| !field.is_empty() && *field != own) {
        if let Some(node) = fields.get(field) {
            d.fail(node.place, &fields.path(field), format!("must not be set when type is {name}"));
        }
    }
    match own {
        "" => (DeploymentStrategy::Recreate, Rare::NONE),
        "canary" => canary(d, &fields),
        "blueGreen" => blue_green(d, &fields),
        _ => rolling_update(d, &fields),
    }
}

fn bounds(d: &mut Decoder<'_>, fields: &Fields<'_>) -> DeploymentStrategy {
    let share = IntOrPercent::Percent(25);
    DeploymentStrategy::RollingUpdate {
        max_surge: int_or_percent(d, fields, "maxSurge").unwrap_or(share),
        max_unavailable: int_or_percent(d, fields, "maxUnavailable").unwrap_or(share),
    }
}

fn rolling_update(d: &mut Decoder<'_>, strategy: &Fields<'_>) -> Found {
    let node = strategy.get("rollingUpdate");
    let path = strategy.path("rollingUpdate");
    let Some(fields) = node.and_then(|node| d.fields(node, &path, &ROLLING_UPDATE)) else {
        return Found::default();
    };
    let bounds = bounds(d, &fields);
    let partition = int_or_percent(d, &fields, "partition").unwrap_or(IntOrPercent::Int(0));
    let batch = fields.get("batch").and_then(|node| d.fields(node, &fields.path("batch"), &BATCH));
    let size = batch.as_ref().and_then(|batch| int_or_percent(d, batch, "size"));
    let pause = batch.as_ref().and_then(|batch| {
        let pause = d.fields(batch.get("pause")?, &batch.path("pause"), &PAUSE)?;
        Some(BatchPause { duration_ms: d.seconds(&pause, "durationSeconds") })
    });
    let is_plain = partition == IntOrPercent::Int(0) && size.is_none() && pause.is_none();
    (bounds, if is_plain { Rare::NONE } else { Rare::some(Delivery::Batches { partition, size, pause }) })
}

fn canary(d: &mut Decoder<'_>, strategy: &Fields<'_>) -> Found {
    let Some(node) = strategy.get("canary") else {
        d.missing(strategy, "canary");
        return Found::default();
    };
    let Some(fields) = d.fields(node, &strategy.path("canary"), &CANARY) else { return Found::default() };
    let bounds = bounds(d, &fields);
    let steps = d.each(&fields, "steps", step);
    let failure_limit = count(d, &fields, "failureLimit").unwrap_or(0);
    (bounds, Rare::some(Delivery::Canary { steps, failure_limit }))
}

fn step(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<CanaryStep> {
    let fields = d.fields(node, path, &STEP)?;
    match (fields.get("setReplicas"), fields.get("pause")) {
        (Some(_), None) => {
            let replicas = int_or_percent(d, &fields, "setReplicas")?;
            Some(CanaryStep::SetReplicas { replicas })
        }
        (None, Some(pause)) => {
            let pause = d.fields(pause, &fields.path("pause"), &PAUSE)?;
            Some(CanaryStep::Pause { duration_ms: d.seconds(&pause, "durationSeconds") })
        }
        _ => {
            d.fail(node.place, path, "a step is either setReplicas or pause");
            None
        }
    }
}

fn blue_green(d: &mut Decoder<'_>, strategy: &Fields<'_>) -> Found {
    let Some(node) = strategy.get("blueGreen") else {
        d.missing(strategy, "blueGreen");
        return Found::default();
    };
    let path = strategy.path("blueGreen");
    let Some(fields) = d.fields(node, &path, &BLUE_GREEN) else { return Found::default() };
    let preview = d.number(&fields, "previewReplicas", u64::from(REPLICAS_MAX));
    let delivery = Delivery::BlueGreen {
        auto_promotion_ms: d.seconds(&fields, "autoPromotionSeconds"),
        scale_down_delay_ms: d
            .seconds(&fields, "scaleDownDelaySeconds")
            .unwrap_or(SCALE_DOWN_DELAY_MS_DEFAULT),
        preview_replicas: preview.and_then(|n| u32::try_from(n).ok()),
    };
    // Both sets run whole side by side, and no pod that serves may go before the switch.
    let bounds = DeploymentStrategy::RollingUpdate {
        max_surge: IntOrPercent::Percent(100),
        max_unavailable: IntOrPercent::Int(0),
    };
    (bounds, Rare::some(delivery))
}
