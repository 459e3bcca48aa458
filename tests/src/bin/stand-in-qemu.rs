//! Stands for QEMU where a test wants many guests and no machine: a process with QEMU's switches, pid file and sockets,
//! whose guest runs every container until it is told to stop. It ends by itself once its folder is gone, so that a run
//! that was cut short leaves none behind.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulkhead_guest_protocol::guest::{
    ContainerState, ContainerStateKind, Hello, PodPhase, PodState, Pong, Stopping,
};
use bulkhead_guest_protocol::host::{HostMessage, PodConfig};
use bulkhead_guest_protocol::{FrameReader, GuestMessage, PROTOCOL_VERSION, decode, encode};
use serde_json::{Value, json};

/// How often it looks whether its folder is still there.
const LOOK: Duration = Duration::from_secs(1);

#[allow(clippy::print_stdout)]
fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "-version") {
        println!("QEMU emulator version 0.0.0 (stand-in)");
        return Ok(());
    }
    let after = |switch: &str| args.iter().skip_while(move |arg| *arg != switch).nth(1);
    // The trial of the system call filter has no pid file: it asks for the end.
    let Some(pid_file) = after("-pidfile").map(PathBuf::from) else {
        return io::copy(&mut io::stdin(), &mut io::sink()).map(drop);
    };
    let mut listeners = sockets(&args)?;
    let mut take =
        |id: &str| listeners.remove(id).ok_or_else(|| io::Error::other(format!("no chardev {id}")));
    let (qmp, console, guest) = (take("qmp")?, take("console")?, take("guest")?);
    std::fs::write(&pid_file, std::process::id().to_string())?;
    thread::spawn(move || qmp.incoming().flatten().for_each(|stream| drop(control(stream))));
    thread::spawn(move || console.incoming().flatten().for_each(|mut stream| drain(&mut stream)));
    thread::spawn(move || {
        while pid_file.exists() {
            thread::sleep(LOOK);
        }
        std::process::exit(0);
    });
    let mut pod = None;
    for stream in guest.incoming().flatten() {
        // A connection that breaks is made again by the agent, or by the next one.
        let _ = converse(stream, &mut pod);
    }
    Ok(())
}

/// The listening sockets of all `-chardev socket,id=…,path=…`, in the working directory.
fn sockets(args: &[String]) -> io::Result<BTreeMap<String, UnixListener>> {
    let specs = args.windows(2).filter(|two| two[0] == "-chardev").map(|two| &two[1]);
    specs
        .filter_map(|spec| {
            let value =
                |key: &str| spec.split(',').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
            Some((value("id")?.to_owned(), value("path")?.to_owned()))
        })
        .map(|(id, path)| Ok((id, UnixListener::bind(path)?)))
        .collect()
}

fn drain(stream: &mut UnixStream) {
    // Whoever is at the other end says nothing that matters.
    let _ = io::copy(stream, &mut io::sink());
}

/// QMP: every command succeeds.
fn control(mut stream: UnixStream) -> io::Result<()> {
    writeln!(stream, "{}", json!({"QMP": {"version": {}, "capabilities": []}}))?;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let answer = match request["execute"].as_str() {
            Some("query-status") => json!({"status": "running", "running": true}),
            Some("quit") => std::process::exit(0),
            _ => json!({}),
        };
        writeln!(stream, "{}", json!({"return": answer, "id": request["id"]}))?;
    }
    Ok(())
}

/// The guest's end of its channel.
fn converse(mut stream: UnixStream, pod: &mut Option<PodConfig>) -> io::Result<()> {
    let (mut reader, mut buffer) = (FrameReader::new(), vec![0; 64 << 10]);
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        reader.push(&buffer[..length]);
        while let Some(frame) = reader.next_frame() {
            let message =
                decode::<HostMessage>(&frame.map_err(io::Error::other)?).map_err(io::Error::other)?;
            let (answers, ends) = answer(message, pod);
            let mut bytes = Vec::new();
            for answer in answers {
                encode(&answer, &mut bytes).map_err(io::Error::other)?;
            }
            stream.write_all(&bytes)?;
            if ends {
                std::process::exit(0);
            }
        }
    }
}

/// What the guest says to a message, and whether it ends then.
fn answer(message: HostMessage, pod: &mut Option<PodConfig>) -> (Vec<GuestMessage>, bool) {
    match message {
        HostMessage::Hello(_) => {
            let hello = Hello {
                protocol_version: PROTOCOL_VERSION,
                boot_ms: 1,
                kernel_release: "stand-in".to_owned(),
                configured: pod.is_some(),
                sandbox_id: pod.as_ref().map(|pod| pod.sandbox_id.clone()).unwrap_or_default(),
                trace_context: pod.as_ref().map(|pod| pod.trace_context.clone()).unwrap_or_default(),
                container_count: pod.as_ref().map_or(0, |pod| states(pod, false).len() as u32),
                streams: false,
                grows_volumes: false,
            };
            let mut answers = vec![GuestMessage::Hello(hello)];
            answers.extend(pod.as_ref().map(running).unwrap_or_default());
            (answers, false)
        }
        HostMessage::Configure(configure) => {
            *pod = configure.pod;
            (pod.as_ref().map(running).unwrap_or_default(), false)
        }
        // Nobody here reads them.
        HostMessage::VolumeFiles(_) => (Vec::new(), false),
        HostMessage::Stop(_) => {
            let mut answers = pod.as_ref().map(|pod| states(pod, true)).unwrap_or_default();
            let (reason, message) = ("Stopped".to_owned(), String::new());
            answers.push(GuestMessage::Stopping(Stopping { reason, message }));
            (answers, true)
        }
        HostMessage::Ping(ping) => (vec![GuestMessage::Pong(Pong { number: ping.number })], false),
        HostMessage::ResumeLogs(_)
        | HostMessage::AckLogs(_)
        | HostMessage::StreamOpen(_)
        | HostMessage::StreamData(_)
        | HostMessage::StreamCredit(_)
        | HostMessage::StreamResize(_)
        | HostMessage::StreamClose(_) => (Vec::new(), false),
    }
}

/// The states of a pod that runs, with that of the pod at the end.
fn running(pod: &PodConfig) -> Vec<GuestMessage> {
    let mut messages = states(pod, false);
    messages
        .push(GuestMessage::PodState(PodState { phase: PodPhase::Running.into(), ..PodState::default() }));
    messages
}

/// The states of all containers: those that come first have ended.
fn states(pod: &PodConfig, all_ended: bool) -> Vec<GuestMessage> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(since.as_millis()).unwrap_or_default();
    let first = pod.init_containers.iter().map(|container| (container, true));
    let then = pod.containers.iter().map(|container| (container, all_ended));
    let state = |(container, ended): (&bulkhead_guest_protocol::host::ContainerConfig, bool)| {
        let kind = if ended { ContainerStateKind::Terminated } else { ContainerStateKind::Running };
        GuestMessage::ContainerState(ContainerState {
            container: container.name.clone(),
            kind: kind.into(),
            exit_code: ended.then_some(0),
            reason: if ended { "Completed".to_owned() } else { String::new() },
            started_at_ms: now_ms,
            finished_at_ms: if ended { now_ms } else { 0 },
            ..ContainerState::default()
        })
    };
    first.chain(then).map(state).collect()
}
