//! A pod whose container has a terminal, a privileged process and a volume: what clients see of it, and what is kept of it.

use super::*;

/// Reads log files that a pod's container writes itself, or what its guest said on its console.
async fn logs_of(address: &str, pod: u64, file: &str) -> Result<String, tonic::Status> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let mut client = PodIoClient::new(endpoint.connect().await.expect("connected"));
    let request = v1::LogsRequest {
        namespace: "default".to_owned(),
        pod: format!("pod-{pod}"),
        file: if file == "console" { String::new() } else { file.to_owned() },
        console: file == "console",
        ..v1::LogsRequest::default()
    };
    let mut stream = client.logs(request).await?.into_inner();
    let mut text = String::new();
    while let Some(chunk) = stream.message().await? {
        text.push_str(&String::from_utf8_lossy(&chunk.data));
    }
    Ok(text)
}

/// What a privileged process at a terminal sees of its guest's kernel, once it has heard a word.
const TALK: &str = "\
echo written > /logs/app.log
echo working
read word
echo heard $word in $(/bin/busybox stty size) at $(/bin/busybox tty) as $TERM
echo somaxconn $(cat /proc/sys/net/core/somaxconn) msgmax $(cat /proc/sys/kernel/msgmax)
/bin/busybox grep CapEff /proc/self/status
test -b /dev/vda && echo sees the disk
/bin/busybox sysctl -w fs.inotify.max_user_watches=4321
/bin/busybox mount -t tmpfs none /proc/fs && echo mounts
read word || echo no more input
exit 3";

/// The pod's container has input, once, and a terminal, and is privileged; its kernel has settings.
fn with_a_terminal(mut pod: PodIntent) -> PodIntent {
    let sysctl = |name: &str, value: &str| Sysctl { name: name.into(), value: value.to_owned() };
    let security = PodSecurityContext {
        sysctls: vec![sysctl("net.core.somaxconn", "1234"), sysctl("kernel/msgmax", "16384")],
        ..PodSecurityContext::default()
    };
    let privileged = SecurityContext { privileged: true, ..SecurityContext::default() };
    let mut spec = PodSpec::clone(&pod.spec);
    let source =
        VolumeSource::EmptyDir { memory: true, size_limit_bytes: Some(1 << 20), huge_pages: Rare::NONE };
    let volumes = vec![Volume { name: "logs".into(), source }];
    spec.options =
        Rare::some(PodOptions { security: Rare::some(security), volumes, ..PodOptions::default() });
    let mount =
        VolumeMount { name: "logs".into(), mount_path: "/logs".into(), sub_path: None, read_only: false };
    spec.containers[0].options = Rare::some(ContainerOptions {
        volume_mounts: vec![mount],
        security: Rare::some(privileged),
        stdin: true,
        stdin_once: true,
        tty: true,
        ..ContainerOptions::default()
    });
    pod.spec = Shared::new(spec);
    pod
}

/// Attaches to the process, gives its terminal two sizes, says one word, and leaves its input for good; what it printed.
async fn talk(address: &str) -> Result<String, tonic::Status> {
    use v1::exec_request::Message as Said;
    use v1::exec_response::Message as Heard;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let mut client = PodIoClient::new(endpoint.connect().await.expect("connected"));
    let size = |rows, columns| v1::TerminalSize { rows, columns };
    let attach = v1::AttachStart { stdin: true, size: Some(size(10, 20)) };
    let start = v1::ExecStart {
        namespace: "default".to_owned(),
        pod: "pod-9".to_owned(),
        container: "main".to_owned(),
        what: Some(v1::exec_start::What::Attach(attach)),
    };
    let said = [Said::Start(start), Said::Resize(size(33, 101)), Said::Stdin("hello\n".into())];
    let said = said.map(|message| v1::ExecRequest { message: Some(message) });
    // The end of what is said is the end of the process's input: stdinOnce.
    let mut answers = client.exec(tokio_stream::iter(said)).await?.into_inner();
    let (mut text, mut code) = (String::new(), None);
    let hear = async {
        while let Some(answer) = answers.message().await? {
            match answer.message.expect("something") {
                Heard::Stdout(data) | Heard::Stderr(data) => text.push_str(&String::from_utf8_lossy(&data)),
                Heard::Exit(exit) => code = Some(exit.code),
            }
        }
        Ok::<_, tonic::Status>(())
    };
    tokio::time::timeout(DEADLINE, hear).await.expect("the end in time")?;
    assert_eq!(code, Some(3), "the exit code comes last: {text}");
    for words in [
        "heard hello in 33 101 at /dev/pts/0 as xterm\r\n",
        "somaxconn 1234 msgmax 16384\r\n",
        "CapEff:\t000001ffffffffff\r\n",
        "sees the disk\r\n",
        "fs.inotify.max_user_watches = 4321\r\n",
        "mounts\r\n",
        "no more input\r\n",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text:?}");
    }
    Ok(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_must_not_restart_ends_with_its_exit_code_and_keeps_its_output() {
    let Some((kernel_dir, guest)) = guest_parts() else { return };
    let server = FakeServer::start().await;
    let mut node = TestNode::new(&server, &kernel_dir, &guest).await;
    let (job, orders) = with_volume(with_a_terminal(placed::with_cpus(pod(9, TALK, RestartPolicy::Never))));
    server.intend(vec![job.clone()]);
    node.start();
    server.report(9, "a process that listens", |report| report.status.ready).await;
    // Only then does it surely print to whoever is there.
    logs(&server.facts().address, 9, Some("working")).await.expect("logs");
    placed::check(node.guests()[0], &job, &server.facts()).await;
    let written = logs_of(&server.facts().address, 9, "/logs/*.log").await;
    assert_eq!(written.expect("a log file"), "==> /logs/app.log <==\nwritten\n");
    let refused = logs_of(&server.facts().address, 9, "/etc/hosts").await.expect_err("no volume").to_string();
    assert!(refused.contains("below the paths of its volumes only: /logs"), "{refused}");
    let console = logs_of(&server.facts().address, 9, "console").await.expect("the guest's console");
    assert!(console.contains("bulkhead-guest: pod pod-9 with 1 containers"), "{console}");
    // Its volume grows and is copied under it.
    server.intend_with(vec![job.clone()], orders);
    server.done(VolumeTask::Expand).await;
    server.done(VolumeTask::Snapshot).await;
    let volumes = std::fs::read_dir(node.config.data_dir.join("volumes")).expect("listed").flatten();
    assert_eq!(volumes.filter(|file| file.path().extension().is_some_and(|kind| kind == "snap")).count(), 1);
    let talk = talk(&server.facts().address).await.expect("attached");
    let output = logs(&server.facts().address, 9, None).await.expect("logs");
    assert!(output.ends_with(&talk), "who is attached sees what is logged: {talk:?} of {output:?}");
    let failed = server.report(9, "the job's end", |report| report.gone).await;
    assert_eq!(failed.status.phase, PodPhase::Failed);
    let ContainerState::Terminated(end) = &failed.status.containers[0].state else { panic!("{failed:?}") };
    assert_eq!((end.exit_code, end.reason.as_str()), (3, "Error"));
    assert_eq!(node.guests(), [0; 0]);

    // Its output stays as long as it is intended, also over a restart of the agent; and it does not run again.
    node.stop().await;
    server.intend(vec![PodIntent { ended: true, ..job }]);
    node.start();
    server.report(9, "the same end", |report| report.gone && report.sequence >> 32 == 2).await;
    assert_eq!(logs(&server.facts().address, 9, None).await.expect("logs"), output);
    assert_eq!(logs(&server.facts().address, 9, Some("never said")).await.expect("logs"), output);
    assert_eq!(node.guests(), [0; 0]);
    node.stop().await;
}
