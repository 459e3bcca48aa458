//! Affinity and spreading on the command line.

use super::{Fake, bulkhead_on, text};

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_are_shown_as_they_were_given() {
    let fake = Fake::start().await;
    fake.put_manifest(include_str!("../../../examples/affinity.yaml"));
    fake.put_manifest(include_str!("../../../examples/topology-spread.yaml"));
    let check = async |name: &str, lines: &[&str]| {
        let output = bulkhead_on(&fake.address, &["get", "deployment", name, "-o", "yaml"]).await;
        let shown = text(&output.stdout);
        for line in lines {
            assert!(shown.contains(line), "{line} is not in\n{shown}");
        }
    };
    let shop =
        ["nodeSelectorTerms:", "podAntiAffinity:", "topologyKey: kubernetes.io/hostname", "weight: 100"];
    check("shop", &shop).await;
    let api =
        ["topologySpreadConstraints:", "minDomains: 2", "whenUnsatisfiable: DoNotSchedule", "maxSkew: 1"];
    check("api", &api).await;
}
