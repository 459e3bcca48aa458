//! A guest VM in QEMU and the host's end of its channel, for tests.

#![allow(unreachable_pub)]

pub mod layout;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bulkhead_guest_protocol::guest::{ContainerState, GuestMessage, PodPhase, PodState};
use bulkhead_guest_protocol::host::{self, HostMessage};
use bulkhead_guest_protocol::{FrameReader, PORT_NAME, PROTOCOL_VERSION, decode, encode};
use bulkhead_nodeagent::boot::{BootAssets, KERNEL_ARGS};

/// Far above what any step takes under emulation on a busy machine; only reached when something hangs.
const STEP_LIMIT: Duration = Duration::from_secs(120);

/// What the second NIC of a guest is connected to.
pub const SECOND_NETDEV: &str = "n1";

/// A disk of a guest, in qcow2.
pub struct Disk {
    pub path: PathBuf,
    pub serial: String,
}

/// A running guest.
pub struct Guest {
    qemu: Child,
    listener: UnixListener,
    stream: UnixStream,
    reader: FrameReader,
    started: Instant,
    console: PathBuf,
    /// Everything that arrived, in order.
    pub messages: Vec<GuestMessage>,
    taken: usize,
}

impl Guest {
    /// Starts QEMU and waits until it has opened its end of the channel.
    pub fn start(dir: &Path, assets: &BootAssets, disks: &[Disk], memory_mib: u32) -> Self {
        // A second NIC, where an agent puts the first device of the host.
        let port = "pcie-root-port,id=port0,chassis=1,slot=0,addr=10.0,multifunction=on";
        let nic = format!("virtio-net-pci,netdev={SECOND_NETDEV},romfile=,mac=52:54:00:12:34:57,bus=port0");
        let memory = memory_mib.to_string();
        Self::start_on(dir, assets, disks, &["-smp", "1", "-m", &memory, "-device", port, "-device", &nic])
    }

    /// The same with these processors, this memory and these further devices, of which one is a card of [`SECOND_NETDEV`].
    pub fn start_on(dir: &Path, assets: &BootAssets, disks: &[Disk], board: &[&str]) -> Self {
        let socket = dir.join("agent.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).expect("a socket");
        let console = dir.join("console.log");
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-M", "q35,accel=tcg", "-cpu", "max"]);
        command.arg("-kernel").arg(&assets.kernel).arg("-initrd").arg(&assets.initramfs);
        command.args([
            "-append",
            KERNEL_ARGS,
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ]);
        command.arg("-serial").arg(format!("file:{}", console.display()));
        command.arg("-chardev").arg(format!("socket,id=c0,path={},reconnect=1", socket.display()));
        command.args(["-device", "virtio-serial-pci", "-device"]);
        command.arg(format!("virtserialport,chardev=c0,name={PORT_NAME}"));
        for (number, disk) in disks.iter().enumerate() {
            let path = disk.path.display();
            command.arg("-drive").arg(format!("id=d{number},file={path},format=qcow2,if=none"));
            command.arg("-device").arg(format!("virtio-blk-pci,drive=d{number},serial={}", disk.serial));
        }
        command.args(["-netdev", "user,id=n0,restrict=on"]);
        command.args(["-device", "virtio-net-pci,netdev=n0,romfile=,mac=52:54:00:12:34:56"]);
        command.arg("-netdev").arg(format!("user,id={SECOND_NETDEV},restrict=on")).args(board);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let started = Instant::now();
        let qemu = command.spawn().expect("QEMU starts");
        let stream = listener.accept().expect("QEMU connects").0;
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("settable");
        let reader = FrameReader::new();
        let (messages, taken) = (Vec::new(), 0);
        Self { qemu, listener, stream, reader, started, console, messages, taken }
    }

    /// Milliseconds since QEMU was executed.
    pub fn elapsed_ms(&self) -> u128 {
        self.started.elapsed().as_millis()
    }

    pub fn send(&mut self, message: HostMessage) {
        let mut bytes = Vec::new();
        encode(&message, &mut bytes).expect("fits");
        self.stream.write_all(&bytes).expect("QEMU reads");
    }

    /// Bytes as they are, to play a broken host.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("QEMU reads");
    }

    /// Says Hello and waits for the answer.
    pub fn hello(&mut self) -> bulkhead_guest_protocol::guest::Hello {
        self.send(HostMessage::Hello(host::Hello {
            protocol_version: PROTOCOL_VERSION,
            asks_by_https: true,
        }));
        self.wait("Hello", |message| match message {
            GuestMessage::Hello(hello) => Some(hello.clone()),
            _ => None,
        })
    }

    pub fn configure(&mut self, pod: host::PodConfig) {
        self.send(HostMessage::Configure(host::Configure { pod: Some(pod) }));
    }

    /// Waits for the next message that `pick` takes; the others are skipped but kept in `messages`.
    pub fn wait<T>(&mut self, what: &str, pick: impl Fn(&GuestMessage) -> Option<T>) -> T {
        let limit = Instant::now() + STEP_LIMIT;
        loop {
            while self.taken < self.messages.len() {
                self.taken += 1;
                if let Some(found) = pick(&self.messages[self.taken - 1]) {
                    return found;
                }
            }
            if Instant::now() > limit || !self.receive() {
                panic!("no {what}; messages: {:#?}\nconsole:\n{}", self.messages, self.console());
            }
        }
    }

    /// Waits for a state of a container.
    pub fn wait_state(&mut self, what: &str, pick: impl Fn(&ContainerState) -> bool) -> ContainerState {
        self.wait(what, |message| match message {
            GuestMessage::ContainerState(state) if pick(state) => Some(state.clone()),
            _ => None,
        })
    }

    /// Waits for the pod to reach a phase.
    pub fn wait_phase(&mut self, phase: PodPhase) -> PodState {
        self.wait(&format!("pod {phase:?}"), |message| match message {
            GuestMessage::PodState(state) if state.phase() == phase => Some(state.clone()),
            _ => None,
        })
    }

    /// Waits until the container's output, over all that arrived, contains `text`.
    pub fn wait_output(&mut self, container: &str, text: &str) {
        let limit = Instant::now() + STEP_LIMIT;
        while !self.output(container).contains(text) {
            if Instant::now() > limit || !self.receive() {
                panic!("no output {text:?}; {:#?}\nconsole:\n{}", self.messages, self.console());
            }
        }
    }

    /// The container's output by offset, each byte once.
    pub fn output(&self, container: &str) -> String {
        let mut chunks = BTreeMap::new();
        for message in &self.messages {
            if let GuestMessage::LogChunk(chunk) = message
                && chunk.container == container
            {
                for (number, byte) in chunk.data.iter().enumerate() {
                    let earlier = chunks.insert(chunk.offset + number as u64, *byte);
                    assert!(earlier.is_none_or(|earlier| earlier == *byte), "an offset has two contents");
                }
            }
        }
        String::from_utf8_lossy(&chunks.into_values().collect::<Vec<_>>()).into_owned()
    }

    /// First offset after everything that arrived of a container's output.
    pub fn log_end(&self, container: &str) -> u64 {
        let ends = self.messages.iter().filter_map(|message| match message {
            GuestMessage::LogChunk(c) if c.container == container => Some(c.offset + c.data.len() as u64),
            _ => None,
        });
        ends.max().unwrap_or(0)
    }

    /// Acknowledges everything that arrived of a container's output.
    pub fn ack(&mut self, container: &str) {
        let up_to_offset = self.log_end(container);
        self.send(HostMessage::AckLogs(host::AckLogs { container: container.into(), up_to_offset }));
    }

    /// Plays an agent that died and came back: closes the connection and accepts QEMU's next one.
    pub fn reconnect(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Both).expect("open");
        self.stream = self.listener.accept().expect("QEMU connects again").0;
        self.stream.set_read_timeout(Some(Duration::from_millis(200))).expect("settable");
        self.reader = FrameReader::new();
        self.messages.clear();
        self.taken = 0;
    }

    /// Waits until QEMU ends by itself.
    pub fn wait_exit(&mut self) {
        while self.receive() {}
        let status = self.qemu.wait().expect("our child");
        assert!(status.success(), "QEMU: {status}\nconsole:\n{}", self.console());
    }

    pub fn console(&self) -> String {
        std::fs::read_to_string(&self.console).unwrap_or_default()
    }

    /// Reads once; false at the end of the stream.
    fn receive(&mut self) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(length) => self.reader.push(&buffer[..length]),
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return false,
            Err(e) => panic!("the channel: {e}"),
        }
        while let Some(frame) = self.reader.next_frame() {
            match frame {
                Ok(payload) => self.messages.push(decode(&payload).expect("the guest keeps to the protocol")),
                Err(error) => eprintln!("frame: {error}"),
            }
        }
        true
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
