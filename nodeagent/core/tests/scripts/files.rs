//! What pods refer to: missing, changed, and never on disk.

use super::*;

/// Pod 7 with a volume that holds these files; with `missing` it cannot start.
fn configured(missing: &str, files: &[&str]) -> bulkhead_types::PodIntent {
    let file = |path: &&str| bulkhead_types::VolumeFile {
        path: (*path).to_owned(),
        mode: 0o644,
        data: b"hunter2".to_vec().into(),
    };
    let files = bulkhead_types::VolumeFiles { volume: "v".into(), files: files.iter().map(file).collect() };
    let resolved = bulkhead_types::ResolvedPod {
        missing: missing.to_owned(),
        containers: vec![],
        volumes: if missing.is_empty() { vec![files] } else { vec![] },
    };
    bulkhead_types::PodIntent { resolved: bulkhead_types::Rare::some(resolved), ..pod(7) }
}

#[test]
fn a_pod_waits_for_what_it_refers_to() {
    check(
        then(
            begin(vec![configured("Secret \"keys\" is not there", &[])]),
            vec![
                (20, In(image(7))),
                (1000, Tick),
                (1100, In(intent(1, 101, vec![configured("Secret \"keys\" has no key \"k\"", &[])]))),
                (1500, Tick),
                (2000, In(intent(1, 102, vec![configured("", &["k"])]))),
                (2010, In(started(7, 1))),
                (2020, In(hello(7, 1))),
                (2030, In(runs(7, 1))),
                (2500, Tick),
            ],
        ),
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            210 report [#7 100000002 Pending CreateContainerConfigError waiting:CreateContainerConfigError x0]
            1100 report [#7 100000003 Pending CreateContainerConfigError waiting:CreateContainerConfigError x0]
            2000 persist #7 instance 1
            2000 start #7 instance 1
            2000 report [#7 100000004 Pending waiting:ContainerCreating x0]
            2200 report [#7 100000005 Running ready running x0]
        "#]],
    );
}

#[test]
fn changed_files_reach_the_guest_and_missing_ones_leave_it_alone() {
    check(
        then(
            running(configured("", &["k"])),
            vec![
                (1000, In(intent(1, 101, vec![configured("", &["k"])]))),
                (1100, In(intent(1, 102, vec![configured("", &["k", "l"])]))),
                (1200, In(intent(1, 103, vec![configured("Secret \"keys\" is not there", &[])]))),
                (1300, In(intent(1, 104, vec![configured("", &["k", "l"])]))),
                (1400, In(intent(1, 105, vec![configured("", &[])]))),
            ],
        ),
        expect![[r#"
            0 join
            10 prepare #7
            10 report [#7 100000001 Pending waiting:ContainerCreating x0]
            20 persist #7 instance 1
            20 start #7 instance 1
            210 report [#7 100000002 Running ready running x0]
            1100 files #7/1 k l
            1400 files #7/1
        "#]],
    );
}

#[test]
fn what_is_kept_on_disk_holds_no_secret() {
    let mut agent = Agent::new(config());
    for (now_ms, step) in running(configured("", &["k"])) {
        if let In(input) = step {
            agent.handle(now_ms, input);
        }
    }
    let mut records = 0;
    while let Some(action) = agent.poll_action() {
        assert!(!format!("{action:?}").contains("hunter2"), "{action:?}");
        if let Action::PersistRecord(record) = action {
            records += 1;
            assert!(!serde_json::to_string(&record).unwrap().contains("hunter2"));
        }
    }
    assert!(records > 0);
}
