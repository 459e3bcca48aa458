//! Stands for QEMU where a test wants many guests and no machine: a process with QEMU's switches, pid file and sockets,
//! whose guest runs every container until it is told to stop. It ends by itself once its folder is gone, so that a run
//! that was cut short leaves none behind.
//!
//! A pod whose name begins with one of [`FAULTS`] has a guest that misbehaves like that.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulkhead_guest_protocol::guest::{
    ContainerState, ContainerStateKind, Hello, PodPhase, PodState, Pong, Reseeded, Stopping,
};
use bulkhead_guest_protocol::host::{HostMessage, PodConfig};
use bulkhead_guest_protocol::{FrameReader, GuestMessage, PROTOCOL_VERSION, decode, encode};
use serde_json::{Value, json};

/// Ways to misbehave.
const FAULTS: [&str; 6] = ["mute", "slow", "panics", "turns-silent", "qemu-hangs", "ignores-stop"];
/// What a slow guest writes to its console before its first word, one line after the other.
const SLOW_LINES: u32 = 30;
/// Between two of them.
const SLOW_PAUSE: Duration = Duration::from_millis(100);
/// What the kernel says when it can do no more.
const PANIC: &str = "[    1.5] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\n";

/// A larger machine that begins in the state of another one ends at once.
const COPY_MIB_MAX: u64 = 1024;

/// How often it looks whether its folder is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Runs it.
#[allow(clippy::print_stdout)]
pub fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "-version") {
        println!("QEMU emulator version 0.0.0 (stand-in)");
        return Ok(());
    }
    let after = |switch: &str| args.iter().skip_while(move |arg| *arg != switch).nth(1);
    // The trial of the system call filter has no pid file: it asks for the end.
    let Some(pid_file) = after("-pidfile").map(PathBuf::from) else {
        let asks = |line: io::Result<String>| line.is_ok_and(|line| line.contains("\"quit\""));
        let _ = io::stdin().lines().any(asks);
        return Ok(());
    };
    let memory_mib =
        after("-m").and_then(|text| text.strip_prefix("size=")?.strip_suffix('M')?.parse::<u64>().ok());
    if after("-incoming").is_some() && memory_mib.is_some_and(|mib| mib > COPY_MIB_MAX) {
        return Err(io::Error::other("this state is of another machine"));
    }
    let mut listeners = sockets(&args)?;
    let mut take =
        |id: &str| listeners.remove(id).ok_or_else(|| io::Error::other(format!("no chardev {id}")));
    let (qmp, console, guest) = (take("qmp")?, take("console")?, take("guest")?);
    std::fs::write(&pid_file, std::process::id().to_string())?;
    let fault = after("-name").and_then(|name| {
        let pod = name.split(',').find_map(|part| part.strip_prefix("guest="))?.rsplit('/').next()?;
        FAULTS.into_iter().find(|fault| pod.starts_with(fault))
    });
    let hangs = fault == Some("qemu-hangs");
    thread::spawn(move || qmp.incoming().flatten().for_each(|stream| drop(control(stream, hangs))));
    let mut screen = None;
    if matches!(fault, Some("slow" | "panics")) {
        // The agent reads the console from the beginning.
        screen = console.incoming().flatten().next();
    } else {
        thread::spawn(move || console.incoming().flatten().for_each(|mut stream| drain(&mut stream)));
    }
    thread::spawn(move || {
        while pid_file.exists() {
            thread::sleep(LOOK);
        }
        std::process::exit(0);
    });
    for line in 0..SLOW_LINES * u32::from(fault == Some("slow")) {
        screen.iter_mut().try_for_each(|screen| writeln!(screen, "[ {line}] still here"))?;
        thread::sleep(SLOW_PAUSE);
    }
    let mut talk = Talk { pod: None, fault, screen };
    for stream in guest.incoming().flatten() {
        // A connection that breaks is made again by the agent, or by the next one.
        let _ = talk.converse(stream);
    }
    Ok(())
}

/// A guest, as the agent hears it.
struct Talk {
    pod: Option<PodConfig>,
    fault: Option<&'static str>,
    screen: Option<UnixStream>,
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

/// QMP: every command succeeds. One that hangs accepts and is silent.
fn control(mut stream: UnixStream, hangs: bool) -> io::Result<()> {
    if hangs {
        drain(&mut stream);
        return Ok(());
    }
    writeln!(stream, "{}", json!({"QMP": {"version": {}, "capabilities": []}}))?;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let answer = match request["execute"].as_str() {
            Some("query-status") => json!({"status": "running", "running": true}),
            Some("quit") => std::process::exit(0),
            // Files that come with it are closed.
            Some("add-fd") => json!({"fdset-id": 1, "fd": 9}),
            _ => json!({}),
        };
        writeln!(stream, "{}", json!({"return": answer, "id": request["id"]}))?;
        if matches!(request["execute"].as_str(), Some("migrate" | "migrate-incoming")) {
            writeln!(stream, "{}", json!({"event": "MIGRATION", "data": {"status": "completed"}}))?;
        }
    }
    Ok(())
}

impl Talk {
    /// The guest's end of its channel.
    fn converse(&mut self, mut stream: UnixStream) -> io::Result<()> {
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
                if self.fault.is_some_and(|fault| self.ignores(fault, &message)) {
                    continue;
                }
                let (answers, ends) = answer(message, &mut self.pod);
                let mut bytes = Vec::new();
                for answer in answers {
                    encode(&answer, &mut bytes).map_err(io::Error::other)?;
                }
                stream.write_all(&bytes)?;
                if self.fault == Some("panics") && self.pod.is_some() {
                    self.screen.iter_mut().try_for_each(|screen| screen.write_all(PANIC.as_bytes()))?;
                    std::process::exit(0);
                }
                if ends {
                    std::process::exit(0);
                }
            }
        }
    }

    /// Whether a guest with this fault does nothing about a message.
    fn ignores(&self, fault: &str, message: &HostMessage) -> bool {
        match fault {
            "mute" => true,
            "turns-silent" => self.pod.is_some(),
            "ignores-stop" => matches!(message, HostMessage::Stop(_)),
            _ => false,
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
                uptime_ms: 2,
                kernel_release: "stand-in".to_owned(),
                configured: pod.is_some(),
                sandbox_id: pod.as_ref().map(|pod| pod.sandbox_id.clone()).unwrap_or_default(),
                trace_context: pod.as_ref().map(|pod| pod.trace_context.clone()).unwrap_or_default(),
                container_count: pod.as_ref().map_or(0, |pod| states(pod, false).len() as u32),
                streams: false,
                grows_volumes: false,
                huge_pages: false,
                resizes: false,
                freezes_volumes: false,
                hands_over_https: false,
                attach: false,
                reseeds: true,
            };
            let mut answers = vec![GuestMessage::Hello(hello)];
            answers.extend(pod.as_ref().map(running).unwrap_or_default());
            (answers, false)
        }
        HostMessage::Configure(configure) => {
            *pod = configure.pod;
            (pod.as_ref().map(running).unwrap_or_default(), false)
        }
        // It has no randomness.
        HostMessage::Reseed(_) => (vec![GuestMessage::Reseeded(Reseeded::default())], false),
        // Nobody here reads them.
        HostMessage::VolumeFiles(_) => (Vec::new(), false),
        HostMessage::Stop(_) => {
            let mut answers = pod.as_ref().map(|pod| states(pod, true)).unwrap_or_default();
            let (reason, message) = ("Stopped".to_owned(), String::new());
            answers.push(GuestMessage::Stopping(Stopping { reason, message }));
            (answers, true)
        }
        HostMessage::Ping(ping) => (vec![GuestMessage::Pong(Pong { number: ping.number })], false),
        // It says in its Hello that it cannot.
        HostMessage::GrowVolume(_)
        | HostMessage::Resize(_)
        | HostMessage::HostAnswer(_)
        | HostMessage::FreezeVolume(_)
        | HostMessage::ResumeLogs(_)
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
