//! Guests that were booted before their pods: of the pool, and copies of templates.

use bulkhead_types::{HttpGet, PortRef, Probe, ProbeHandler};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_a_guest_that_was_booted_before_it() {
    let Some((kernel_dir, guest)) = guest_parts() else { return };
    let server = FakeServer::start().await;
    let mut node = TestNode::new(&server, &kernel_dir, &guest).await;
    // It serves at the address of its card only, and is ready when it is asked there.
    let script = "trap 'exit 0' TERM; card=$(/bin/busybox ip -4 -o addr show eth0 | /bin/busybox awk '{print $4}'); \
                  own=${card%/*}; /bin/busybox mkdir /www; echo fine > /www/index.html; \
                  /bin/busybox httpd -p ${own:-127.0.0.1}:8080 -h /www; echo card $card; \
                  echo pids $(cat /sys/fs/cgroup/pids.max); echo hello from $HOSTNAME; echo kept > /kept; cat /kept; while true; do sleep 1; done";
    let web = asked_by_http(pod(7, script, RestartPolicy::Always));
    node.config.vm_pool = Some(VmPoolConfig { guests: 1, size: GuestSize::new(&web.spec) });
    node.config.network.choice = NetworkChoice::Auto;
    node.config.pod_pids_limit = 321;
    server.intend(vec![]);
    node.start();
    node.pooled(0).await;
    let waiting = node.guests();
    assert_eq!(waiting.len(), 1);

    server.intend(vec![web.clone()]);
    let ready = server.report(7, "a ready pod", |report| report.status.ready).await;
    let text = logs(&server.facts().address, 7, Some("kept")).await.expect("logs");
    let (card, text) = text.split_once('\n').expect("lines");
    assert_eq!(text, "pids 321\nhello from pod-7\nkept\n", "its disk was added while it ran");
    // Where this host lets the agent make a network, the guest's card was, too.
    let told = ready.status.addresses.get().map(|told| format!("card {}/24", told.pod_ips[0]));
    assert_eq!(card, told.as_deref().unwrap_or("card"));
    let has_network = server.facts().labels.contains_key(bulkhead_types::LABEL_POD_NETWORK);
    assert_eq!(told.is_some(), has_network);
    let steps = start_phases(&server.facts().address, 7).await;
    assert!(steps.from_pool, "{steps:?}");
    let kernel = steps.phases.iter().find(|step| step.name == "kernel").expect("a step");
    assert_eq!(kernel.end_ms, Some(kernel.begin_ms), "the kernel ran already: {steps:?}");
    eprintln!("from the pool: {steps:?}");

    // Another is booted in its place, which ends with the agent; the pod's goes on, and is adopted.
    node.pooled(1).await;
    assert_eq!(node.guests().len(), 2);
    node.stop().await;
    assert_eq!(node.guests(), waiting, "the pod's guest outlives the agent, and no other does");
    node.start();
    let adopted = server.report(7, "an adopted pod", |report| report.sequence >> 32 == 2).await;
    assert!(adopted.status.ready && adopted.status.sandbox_restarts == 0, "{adopted:?}");
    assert_eq!(adopted.status.addresses, ready.status.addresses, "it keeps its address");
    assert!(node.guests().contains(&waiting[0]));

    server.intend(vec![deleting(web, 5_000)]);
    server.report(7, "a pod that is gone", |report| report.gone).await;
    assert!(!node.guests().contains(&waiting[0]));
    node.stop().await;
    assert_eq!(node.guests(), Vec::<i32>::new(), "nothing is left");
}

/// The pod is ready when a server on its port 8080 says so.
fn asked_by_http(mut pod: PodIntent) -> PodIntent {
    let port = PortRef::Number(8080);
    let get = HttpGet { path: "/".to_owned(), port, headers: Vec::new(), https: false, host: Rare::NONE };
    let probe = Probe {
        handler: ProbeHandler::HttpGet(get),
        initial_delay_ms: 0,
        period_ms: 1000,
        timeout_ms: 30_000,
        success_threshold: 1,
        failure_threshold: 1000,
        termination_grace_ms: None,
    };
    let mut spec = PodSpec::clone(&pod.spec);
    spec.containers[0].options =
        Rare::some(ContainerOptions { readiness_probe: Rare::some(probe), ..ContainerOptions::default() });
    pod.spec = Shared::new(spec);
    pod
}

/// What a process has of memory, in KiB, by the names of `smaps_rollup` (proc(5)).
fn memory_kib(pid: i32) -> std::collections::BTreeMap<String, u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it lives");
    let line = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().strip_suffix(" kB")?.trim().parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_that_are_copies_of_one_are_guests_of_their_own() {
    let Some((kernel_dir, guest)) = guest_parts() else { return };
    let server = FakeServer::start().await;
    let mut node = TestNode::new(&server, &kernel_dir, &guest).await;
    // What one tells of itself that must be nobody else's, and what it has.
    let script = "trap 'exit 0' TERM; echo random $(cat /proc/sys/kernel/random/uuid); echo time $(date +%s); \
                  echo host $HOSTNAME; echo kept > /data/kept; cat /data/kept; while true; do sleep 1; done";
    let (one, other) = (pod(7, script, RestartPolicy::Always), pod(8, script, RestartPolicy::Always));
    let ((mut one, orders), (mut other, _)) = (with_volume(one), with_volume(other));
    (one.unique, other.unique) = (true, true);
    other.claims[0].uid = uuid::Uuid::from_u128(80);
    mount(&mut one);
    mount(&mut other);
    node.config.memory_sharing = MemorySharing::Template;
    // The pool's is a copy, too, and the first one: no other guest is booted in this test.
    node.config.vm_pool = Some(VmPoolConfig { guests: 1, size: GuestSize::new(&one.spec) });
    server.intend(vec![]);
    node.start();
    node.pooled(1).await;
    let pods = vec![one, other];
    server.intend(pods.clone());
    let (mut told, mut began) = (Vec::new(), Vec::new());
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("later").as_secs();
    for id in [7, 8] {
        server.report(id, "a ready pod", |report| report.status.ready).await;
        let text = logs(&server.facts().address, id, Some("kept")).await.expect("logs");
        let word = |name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_else(|| panic!("{name}: {text}"));
            line.trim().to_owned()
        };
        assert_eq!((word("host"), word("kept")), (format!("pod-{id}"), String::new()));
        let time: u64 = word("time").parse().expect("seconds");
        assert!(time.abs_diff(now()) < 120, "its clock is the host's: {time}");
        let steps = start_phases(&server.facts().address, id).await;
        began.push((steps.from_pool, steps.from_template));
        eprintln!("a copy: {steps:?}");
        told.push(word("random"));
    }
    assert_ne!(told[0], told[1], "no two draw the same randomness");
    began.sort_unstable();
    assert_eq!(began, [(false, true), (true, false)], "one was the pool's, the other a copy for its pod");
    for pid in node.guests() {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("it lives");
        let memory = maps.lines().find(|line| line.contains("bulkhead-memory")).expect("mapped");
        assert!(memory.contains(" rw-p "), "what it writes is its own: {memory}");
        eprintln!("guest {pid}: {:?}", memory_kib(pid));
    }
    // Its volume is a descriptor to QEMU, and grows nevertheless.
    server.intend_with(pods.clone(), orders[..1].to_vec());
    server.done(VolumeTask::Expand).await;
    server.intend(pods.into_iter().map(|pod| deleting(pod, 0)).collect());
    for id in [7, 8] {
        server.report(id, "a pod that is gone", |report| report.gone).await;
    }
    node.stop().await;
}

pub(super) fn mount(pod: &mut PodIntent) {
    let mut spec = PodSpec::clone(&pod.spec);
    let mut options = spec.containers[0].options.get().cloned().unwrap_or_default();
    let (name, mount_path) = ("data".into(), "/data".into());
    options.volume_mounts = vec![VolumeMount { name, mount_path, sub_path: None, read_only: false }];
    spec.containers[0].options = Rare::some(options);
    pod.spec = Shared::new(spec);
}
