//! Deployments, from their creation to the end of a rollout.

use bulkhead_types::Command;

use crate::kit::{Cluster, deployment, rolling};

#[test]
fn a_deployment_becomes_ready_pods_on_nodes() {
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    cluster.ok(Command::Apply(deployment("web", 3, |_| ())));
    cluster.converge();
    assert_eq!(cluster.sets("web"), "1:3/3/3");
    assert_eq!(
        cluster.conditions("web"),
        "Available=True(MinimumReplicasAvailable) Progressing=True(NewReplicaSetAvailable)"
    );
    let status = cluster.get_deployment("web").status.clone();
    assert_eq!((status.observed_generation, status.rollout_revision), (1, 1));
    assert_eq!((status.replicas, status.updated_replicas, status.available_replicas), (3, 3, 3));
    let nodes: std::collections::BTreeSet<_> = cluster.state().pods().iter().map(|pod| pod.node).collect();
    assert_eq!(nodes.len(), 3, "one pod on each node");
}

#[test]
fn a_new_template_rolls_without_losing_a_pod() {
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    cluster.ok(Command::Apply(deployment("web", 4, |spec| spec.strategy = rolling(1, 0))));
    cluster.converge();
    cluster.watch = |state, _| {
        let (mut available, mut active) = (0, 0);
        for pod in state.pods().iter().filter(|pod| !pod.meta.is_deleting()) {
            active += 1;
            available += usize::from(pod.status.ready);
        }
        assert!(available >= 4, "only {available} available");
        assert!(active <= 5, "{active} active pods");
    };
    cluster.set_image("web", "web:2");
    cluster.converge();
    assert_eq!(cluster.sets("web"), "2:4/4/4");
    assert_eq!(cluster.get_deployment("web").status.rollout_revision, 2);
}
