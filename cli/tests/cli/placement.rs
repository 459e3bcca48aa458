//! Affinity and spreading on the command line.

use expect_test::expect;

use super::{Fake, bulkhead_on, text};

/// What is shown of a Deployment's template from one field up to another.
async fn shown(fake: &Fake, name: &str, from: &str, to: &str) -> String {
    let output = bulkhead_on(&fake.address, &["get", "deployment", name, "-o", "yaml"]).await;
    let all = text(&output.stdout);
    let lines = all.lines().skip_while(|line| line.trim() != from).take_while(|line| line.trim() != to);
    lines.map(|line| format!("{line}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_are_shown_as_they_were_given() {
    let fake = Fake::start().await;
    fake.put_manifest(include_str!("../../../examples/affinity.yaml"));
    fake.put_manifest(include_str!("../../../examples/topology-spread.yaml"));
    expect![[r#""#]].assert_eq(&shown(&fake, "shop", "affinity:", "containers:").await);
    let spread = shown(&fake, "api", "topologySpreadConstraints:", "status:").await;
    expect![[r#""#]].assert_eq(&spread);
}
