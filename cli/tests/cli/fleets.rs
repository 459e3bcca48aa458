//! Pools, modes and operations of many nodes on the command line.

use bulkhead_proto::v1;
use expect_test::expect;

use super::{Fake, check};

async fn with_node() -> Fake {
    let fake = Fake::start().await;
    fake.put_manifest("apiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n");
    fake
}

fn node(fake: &Fake) -> v1::Node {
    let state = fake.state();
    let Some(v1::object::Object::Node(node)) = state.object_of(v1::Kind::Node, "node-1") else {
        panic!("no node")
    };
    node.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_into_a_pool_that_is_there() {
    let fake = with_node().await;
    check(
        &fake,
        &["node", "set-pool", "gpu", "node-1"],
        expect![[r#"
            exit 3
            error: there is no NodePool gpu: create it first, so that the node gets what it gives
        "#]],
    )
    .await;
    fake.put_manifest("apiVersion: bulkhead.io/v1\nkind: NodePool\nmetadata: {name: gpu}\nspec: {}\n");
    check(
        &fake,
        &["node", "set-pool", "gpu", "node/node-1"],
        expect![[r#"
        exit 0
        node/node-1 is of pool gpu
    "#]],
    )
    .await;
    let labels = node(&fake).meta.expect("it has").labels;
    assert_eq!(labels.get(bulkhead_types::LABEL_NODE_POOL).map(String::as_str), Some("gpu"));
    check(
        &fake,
        &["node", "set-pool", "gpu", "node-1"],
        expect![[r#"
        exit 0
        node/node-1 is already of pool gpu
    "#]],
    )
    .await;
    check(
        &fake,
        &["node", "set-pool", "gpu", "node-9"],
        expect![[r#"
        exit 3
        error: node-9 not found
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mode_of_cards_is_set_and_taken_back() {
    let fake = with_node().await;
    check(
        &fake,
        &["node", "gpu-mode", "node-1", "all-1g.10gb", "--strategy", "single"],
        expect![[r#"
        exit 0
        GPU mode of node/node-1 is to be all-1g.10gb
    "#]],
    )
    .await;
    let gpu = node(&fake).spec.expect("it has").gpu.expect("a mode");
    assert_eq!((gpu.mode.as_str(), gpu.strategy()), ("all-1g.10gb", v1::PartitionStrategy::Single));
    check(
        &fake,
        &["node", "gpu-mode", "node-1", "none"],
        expect![[r#"
        exit 0
        GPU mode of node/node-1 is to be none
    "#]],
    )
    .await;
    assert_eq!(node(&fake).spec.expect("it has").gpu, None);
    check(
        &fake,
        &["node", "gpu-mode", "node-9", "whole"],
        expect![[r#"
        exit 3
        error: no such node
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_is_paused_resumed_and_cancelled() {
    let fake = Fake::start().await;
    check(
        &fake,
        &["node-operation", "pause", "upgrade"],
        expect![[r#"
        exit 0
        nodeoperation/upgrade paused
    "#]],
    )
    .await;
    check(
        &fake,
        &["node-operation", "resume", "nodeoperation/upgrade"],
        expect![[r#"
        exit 0
        nodeoperation/upgrade resumed
    "#]],
    )
    .await;
    check(
        &fake,
        &["node-operation", "cancel", "upgrade"],
        expect![[r#"
        exit 0
        nodeoperation/upgrade cancelled
    "#]],
    )
    .await;
    let controls = fake.state().controls.clone();
    let said: Vec<_> =
        controls.iter().map(|control| (control.operation.as_str(), control.control())).collect();
    use v1::NodeOperationControl::{Cancel, Pause, Resume};
    assert_eq!(said, [("upgrade", Pause), ("upgrade", Resume), ("upgrade", Cancel)]);
}
