//! Deliveries by steps as `get -o yaml` shows them: where they stand, and which ReplicaSet is the active one.

mod kit;

use std::sync::Arc;

use bulkhead_manifest::to_value;
use bulkhead_types::{DeliveryStatus, Object, Rare};
use expect_test::{Expect, expect};
use kit::{NAMES, check, read};

/// `status.delivery` of an example that stands at a step.
fn check_status(example: &str, step: u32, abort_reason: &str, expected: Expect) {
    let mut objects = read(example);
    let Some(Object::Deployment(deployment)) = objects.first_mut() else { panic!("a Deployment: {example}") };
    let status = DeliveryStatus {
        stable: "web-1".into(),
        update: "web-2".into(),
        step,
        step_started_ms: 60_000,
        abort_reason: abort_reason.into(),
        ..DeliveryStatus::default()
    };
    Arc::make_mut(deployment).status.delivery = Rare::some(status);
    expected.assert_eq(&to_value(&objects[0], NAMES)["status"]["delivery"].to_string());
}

#[test]
fn the_status_says_which_set_is_active() {
    let blue_green = include_str!("../../../examples/blue-green.yaml");
    check_status(
        blue_green,
        1,
        "",
        expect![[
            r#"{"activeReplicaSet":"web-1","failedPods":0,"stableReplicaSet":"web-1","step":1,"stepStartedAt":"1970-01-01T00:01:00Z","updateReplicaSet":"web-2"}"#
        ]],
    );
    check_status(
        blue_green,
        3,
        "",
        expect![[
            r#"{"activeReplicaSet":"web-2","failedPods":0,"stableReplicaSet":"web-1","step":3,"stepStartedAt":"1970-01-01T00:01:00Z","updateReplicaSet":"web-2"}"#
        ]],
    );
    check_status(
        blue_green,
        1,
        "RolloutAborted",
        expect![[
            r#"{"abortReason":"RolloutAborted","activeReplicaSet":"web-1","failedPods":0,"stableReplicaSet":"web-1","step":1,"stepStartedAt":"1970-01-01T00:01:00Z","updateReplicaSet":"web-2"}"#
        ]],
    );
    check_status(
        include_str!("../../../examples/canary.yaml"),
        2,
        "",
        expect![[
            r#"{"activeReplicaSet":"web-1","failedPods":0,"stableReplicaSet":"web-1","step":2,"stepStartedAt":"1970-01-01T00:01:00Z","updateReplicaSet":"web-2"}"#
        ]],
    );
}

#[test]
fn steps_have_a_strategy_of_their_own() {
    let canary = include_str!("../../../examples/canary.yaml");
    check(canary, expect![["accepted\n"]]);
    check(
        &canary.replace("type: Canary", "type: Recreate"),
        expect![[r#"
        a.yaml:14:7 spec.strategy.canary: must not be set when type is Recreate
    "#]],
    );
}
