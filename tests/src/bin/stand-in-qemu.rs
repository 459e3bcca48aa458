//! Stands for QEMU where a test wants many guests and no machine: a process with QEMU's switches, pid file and sockets,
//! whose guest runs every container until it is told to stop. It ends by itself once its folder is gone, so that a run
//! that was cut short leaves none behind.
//!
//! A pod whose name begins with one of [`FAULTS`] has a guest that misbehaves like that.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulkhead_guest_protocol::guest::{
    ContainerState, ContainerStateKind, Hello, PodPhase, PodState, Pong, Reseeded, Resized, Stopping,
    VolumeFrozen, VolumeGrown,
};
use bulkhead_guest_protocol::host::{FreezeVolume, HostMessage, PodConfig, Resize};
use bulkhead_guest_protocol::{FrameReader, GuestMessage, PROTOCOL_VERSION, decode, encode};
use serde_json::{Value, json};

/// Ways to misbehave.
const FAULTS: [&str; 7] = ["mute", "slow", "panics", "turns-silent", "qemu-hangs", "ignores-stop", "no-room"];
/// QEMU's word for a guest that it stopped because there was no room for what it wrote.
const NO_ROOM: &str = "io-error";
/// How often a guest without room is let go on in vain: longer than any test lets a guest be silent.
const NO_ROOM_CONTS: u32 = 10;
/// What a slow guest writes to its console before its first word, one line after the other.
const SLOW_LINES: u32 = 30;
/// Between two of them.
const SLOW_PAUSE: Duration = Duration::from_millis(100);
/// What the kernel says when it can do no more.
const PANIC: &str = "[    1.5] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\n";

/// A larger machine that begins in the state of another one ends at once.
const COPY_MIB_MAX: u64 = 1024;

/// What a machine that got other sizes has, in its folder, as JSON: tests look.
const MACHINE: &str = "machine.json";
/// Most memory that can be added to a machine that grows, in bytes.
const GROWTH_BYTES: u64 = 4 << 30;

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
    let hardware = Arc::new(Shared::new(Hardware::of(&args)));
    let controlled = Arc::clone(&hardware);
    thread::spawn(move || {
        qmp.incoming().flatten().for_each(|stream| drop(control(stream, hangs, &controlled)))
    });
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
    let mut talk = Talk { pod: None, fault, screen, hardware };
    for stream in guest.incoming().flatten() {
        // A connection that breaks is made again by the agent, or by the next one.
        let _ = talk.converse(stream);
    }
    Ok(())
}

/// A machine, for who controls it and for its guest.
struct Shared {
    hardware: Mutex<Hardware>,
    /// It was told to go on.
    resumed: Condvar,
}

impl Shared {
    fn new(hardware: Hardware) -> Self {
        Self { hardware: Mutex::new(hardware), resumed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Hardware> {
        self.hardware.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn control(&self, command: &str, arguments: &Value) -> Option<Result<Value, String>> {
        let answer = self.lock().control(command, arguments);
        self.resumed.notify_all();
        answer
    }

    /// A guest does nothing while its machine stands still.
    fn lock_running(&self) -> MutexGuard<'_, Hardware> {
        let is_still = |hardware: &mut Hardware| hardware.stands_still.is_some();
        self.resumed.wait_while(self.lock(), is_still).unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a machine has that can change while it runs.
#[derive(Default)]
struct Hardware {
    /// QEMU's word for why it stands still, if it does.
    stands_still: Option<&'static str>,
    /// The file of each block node.
    nodes: BTreeMap<String, String>,
    /// What was said of each file that it was given, from 1.
    given: Vec<String>,
    /// The processors that it begins with, and most.
    cpus: (u64, u64),
    /// Those that were added, by the place of each.
    added_cpus: BTreeMap<u64, String>,
    /// Memory that it begins with, in bytes.
    first_bytes: u64,
    /// Memory that was added, in bytes; `None`: none can be.
    added_bytes: Option<u64>,
    /// What the balloon leaves of the first, in bytes.
    balloon_bytes: u64,
    /// The guest stands still, because there is no room for what it writes, until it was let go on so often.
    without_room: u32,
    /// Containers' limits of cpu, in thousandths, and memory, in bytes.
    limits: BTreeMap<String, (u64, u64)>,
}

impl Hardware {
    /// As the switches say.
    fn of(args: &[String]) -> Self {
        let value = |switch: &str, key: &str| {
            let value = args.iter().skip_while(|arg| *arg != switch).nth(1)?;
            let part = value.split(',').find_map(|part| part.strip_prefix(key)?.strip_prefix('='))?;
            part.trim_end_matches('M').parse::<u64>().ok()
        };
        let cpus = value("-smp", "cpus").unwrap_or(1);
        let first_bytes = value("-m", "size").unwrap_or(0) << 20;
        let grows = args.iter().any(|arg| arg.starts_with("virtio-mem-pci"));
        let node = |spec: &String| {
            let value =
                |key: &str| spec.split(',').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
            Some((value("node-name")?.to_owned(), value("file.filename")?.to_owned()))
        };
        let specs = args.windows(2).filter(|two| two[0] == "-blockdev");
        Self {
            cpus: (cpus, value("-smp", "maxcpus").unwrap_or(cpus)),
            first_bytes,
            stands_still: args.iter().any(|arg| arg == "-incoming").then_some("inmigrate"),
            nodes: specs.filter_map(|two| node(&two[1])).collect(),
            added_bytes: grows.then_some(0),
            balloon_bytes: first_bytes,
            ..Self::default()
        }
    }

    fn present_cpus(&self) -> u64 {
        self.cpus.0 + self.added_cpus.len() as u64
    }

    /// What a command returns, or why it fails, if it is about any of this.
    fn control(&mut self, command: &str, arguments: &Value) -> Option<Result<Value, String>> {
        if command == "block_resize" {
            return Some(self.lengthen(arguments));
        }
        self.change(command, arguments).map(Ok)
    }

    /// Makes the file of a disk longer.
    fn lengthen(&self, arguments: &Value) -> Result<Value, String> {
        let file = arguments["node-name"].as_str().and_then(|node| self.nodes.get(node));
        let (file, bytes) = file.zip(arguments["size"].as_u64()).ok_or("no such node")?;
        let file = std::fs::OpenOptions::new().write(true).open(file);
        file.and_then(|file| file.set_len(bytes)).map_err(|error| error.to_string())?;
        Ok(json!({}))
    }

    fn change(&mut self, command: &str, arguments: &Value) -> Option<Value> {
        let number = |name: &str| arguments[name].as_u64();
        Some(match command {
            "query-status" => {
                json!({"status": self.stands_still.unwrap_or("running"), "running": self.stands_still.is_none()})
            }
            "stop" => {
                self.stands_still = Some("paused");
                json!({})
            }
            "cont" => {
                self.without_room = self.without_room.saturating_sub(1);
                self.stands_still = (self.without_room > 0).then_some(NO_ROOM);
                json!({})
            }
            // Files that come with it are closed.
            "add-fd" => {
                self.given.push(arguments["opaque"].as_str().unwrap_or_default().to_owned());
                json!({"fdset-id": self.given.len(), "fd": 9})
            }
            "query-fdsets" => {
                let set = |(number, opaque): (usize, &String)| json!({"fdset-id": number, "fds": [{"fd": 9, "opaque": opaque}]});
                (1..).zip(&self.given).map(set).collect()
            }
            "blockdev-add" => {
                let file = arguments["file"]["filename"].as_str()?.to_owned();
                self.nodes.insert(arguments["node-name"].as_str()?.to_owned(), file);
                json!({})
            }
            "query-named-block-nodes" => {
                let node = |(name, file): (&String, &String)| json!({"node-name": name, "file": file});
                self.nodes.iter().map(node).collect()
            }
            "query-hotpluggable-cpus" => (0..self.cpus.1).map(|core| self.slot(core)).collect(),
            "query-memory-size-summary" => json!({"base-memory": self.first_bytes}),
            "query-memory-devices" => self
                .added_bytes
                .map(|bytes| {
                    let (id, most) = ("vmem0", GROWTH_BYTES);
                    let data = json!({"id": id, "size": bytes, "requested-size": bytes, "max-size": most});
                    json!({"type": "virtio-mem", "data": data})
                })
                .into_iter()
                .collect(),
            "query-balloon" => json!({"actual": self.balloon_bytes}),
            "balloon" => {
                self.balloon_bytes = number("value")?;
                self.tell()
            }
            "qom-set" if arguments["property"] == "requested-size" => {
                self.added_bytes = Some(number("value")?);
                self.tell()
            }
            "device_add" => {
                self.added_cpus.insert(number("core-id")?, arguments["id"].as_str()?.to_owned());
                self.tell()
            }
            "device_del" => {
                self.added_cpus.retain(|_, id| *id != arguments["id"]);
                self.tell()
            }
            _ => return None,
        })
    }

    fn slot(&self, core: u64) -> Value {
        let mut slot = json!({"props": {"socket-id": 0, "core-id": core, "thread-id": 0}, "type": "cpu"});
        if core < self.cpus.0 {
            slot["qom-path"] = json!(format!("/machine/unattached/device[{core}]"));
        } else if let Some(id) = self.added_cpus.get(&core) {
            slot["qom-path"] = json!(format!("/machine/peripheral/{id}"));
        }
        slot
    }

    /// The guest does what it is told, at once.
    fn resize(&mut self, resize: &Resize) -> Resized {
        for one in &resize.containers {
            self.limits.insert(one.name.clone(), (one.cpu_millis, one.memory_bytes));
        }
        if !resize.containers.is_empty() {
            self.tell();
        }
        let cpus = self.present_cpus().min(if resize.cpus == 0 { u64::MAX } else { resize.cpus.into() });
        Resized { number: resize.number, cpus: cpus as u32, ..Resized::default() }
    }

    /// Tells tests; what QEMU answers to what it did.
    fn tell(&self) -> Value {
        let bytes = self.balloon_bytes + self.added_bytes.unwrap_or(0);
        let machine = json!({"cpus": self.present_cpus(), "mib": bytes >> 20, "limits": self.limits});
        // Whoever looks sees all of it or what was before.
        let told = std::fs::write(format!("{MACHINE}.new"), machine.to_string())
            .and_then(|()| std::fs::rename(format!("{MACHINE}.new"), MACHINE));
        told.map_or_else(|error| json!({"failed": error.to_string()}), |()| json!({}))
    }
}

/// A guest, as the agent hears it.
struct Talk {
    hardware: Arc<Shared>,
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
fn control(mut stream: UnixStream, hangs: bool, hardware: &Shared) -> io::Result<()> {
    if hangs {
        drain(&mut stream);
        return Ok(());
    }
    writeln!(stream, "{}", json!({"QMP": {"version": {}, "capabilities": []}}))?;
    let no_room = json!({"node-name": "file0", "nospace": true, "action": "stop", "operation": "write"});
    for line in BufReader::new(stream.try_clone()?).lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let command = request["execute"].as_str().unwrap_or_default();
        if command == "quit" {
            std::process::exit(0);
        }
        let answer = match hardware.control(command, &request["arguments"]) {
            Some(Err(reason)) => {
                json!({"error": {"class": "GenericError", "desc": reason}, "id": request["id"]})
            }
            Some(Ok(answer)) => json!({"return": answer, "id": request["id"]}),
            None => json!({"return": {}, "id": request["id"]}),
        };
        if answer["return"]["status"] == NO_ROOM {
            writeln!(stream, "{}", json!({"event": "BLOCK_IO_ERROR", "data": no_room}))?;
        }
        writeln!(stream, "{answer}")?;
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
                let begins = matches!(message, HostMessage::Configure(_));
                let (answers, ends) = answer(message, &mut self.pod, &mut self.hardware.lock_running());
                if begins && self.fault == Some("no-room") {
                    let mut hardware = self.hardware.lock();
                    (hardware.stands_still, hardware.without_room) = (Some(NO_ROOM), NO_ROOM_CONTS);
                }
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
fn answer(
    message: HostMessage,
    pod: &mut Option<PodConfig>,
    hardware: &mut Hardware,
) -> (Vec<GuestMessage>, bool) {
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
                grows_volumes: true,
                huge_pages: false,
                resizes: true,
                freezes_volumes: true,
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
        HostMessage::Resize(resize) => {
            let resized = hardware.resize(&resize);
            (vec![GuestMessage::Resized(resized)], false)
        }
        HostMessage::GrowVolume(grow) => {
            let grown = VolumeGrown { volume: grow.volume, error: String::new() };
            (vec![GuestMessage::VolumeGrown(grown)], false)
        }
        HostMessage::FreezeVolume(freeze) => {
            let FreezeVolume { volume, frozen, .. } = freeze;
            (vec![GuestMessage::VolumeFrozen(VolumeFrozen { volume, frozen, error: String::new() })], false)
        }
        // It says in its Hello that it cannot.
        HostMessage::HostAnswer(_)
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
