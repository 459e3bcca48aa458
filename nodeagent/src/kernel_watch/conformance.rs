//! What every kernel does that is listened to: the running one and the one in memory are held to the same.

use std::fs;
use std::future::poll_fn;
use std::io::Write as _;
use std::task::Poll;
use std::time::Duration;

use bulkhead_nodeagent_core::hardware::{
    KernelMessage, KernelMessages, KernelWatch, RECORD_BYTES_MAX, UEVENT_BYTES_MAX, devices_changed,
    next_record,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket,
};

use super::fake::Channel;
use super::*;

/// How long something may take that was said already: on a machine with much to do a log is written behind.
const WITHIN: Duration = Duration::from_secs(20);

/// Has a kernel say something with this word in it; why that cannot be had here.
trait Provoke {
    /// The kernel says it. `None`: this kernel says nothing on demand.
    fn kernel_says(&mut self, word: &str) -> Option<Result<(), String>>;

    /// Somebody else says what would mean something if the kernel said it.
    fn stranger_says(&mut self, word: &str) -> Result<(), String>;
}

fn holds(message: &KernelMessage, word: &str) -> bool {
    let KernelMessage::Said { bytes, .. } = message else { return false };
    String::from_utf8_lossy(bytes).contains(word)
}

/// The next message with one of these words: a running kernel says other things meanwhile.
async fn next_of(source: &mut dyn KernelMessages, bytes_max: usize, words: &[String]) -> KernelMessage {
    let next = async {
        loop {
            let message = poll_fn(|context| source.poll_next(context)).await.expect("more come");
            if let KernelMessage::Said { bytes, .. } = &message {
                assert!(bytes.len() <= bytes_max, "bounded: {}", bytes.len());
            }
            if words.iter().any(|word| holds(&message, word)) {
                return message;
            }
        }
    };
    tokio::time::timeout(WITHIN, next).await.unwrap_or_else(|_| panic!("nobody said {words:?}"))
}

/// What is checked of each kind of messages.
struct Kind {
    bytes_max: usize,
    /// Who comes later hears what was said before.
    keeps: bool,
    /// Whether a message means something.
    is_believed: fn(&KernelMessage) -> bool,
}

type Opened = Result<Box<dyn KernelMessages>, TreeError>;

/// Checks one kind: who waits is woken, messages come whole, in order and once, to everybody who listens, and a stranger is not believed.
/// Why it could not be checked.
async fn check_kind(kind: &Kind, open: &dyn Fn() -> Opened, provoke: &mut dyn Provoke) -> Result<(), String> {
    let mut source = open().map_err(|error| error.to_string())?;
    // Those of an earlier run may still be in a log. Letters and digits only: more the kernel takes into no uevent.
    let run = format!("bulkhead{}at{}", std::process::id(), crate::clock::unix_ms());
    let words = ["a", "b", "c", "d", "e"].map(|end| format!("{run}{end}"));
    let says = |provoke: &mut dyn Provoke, word: &str| match provoke.kernel_says(word) {
        Some(said) => said,
        None => provoke.stranger_says(word),
    };
    {
        let waiting = next_of(source.as_mut(), kind.bytes_max, &words);
        tokio::pin!(waiting);
        // It waits already when the first word is said.
        let begun = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context))).await;
        assert!(begun.is_pending(), "nobody said it yet: {begun:?}");
        says(provoke, &words[0])?;
        assert!(holds(&waiting.await, &words[0]));
    }
    says(provoke, &words[1])?;
    says(provoke, &words[2])?;
    for word in &words[1..3] {
        assert!(
            holds(&next_of(source.as_mut(), kind.bytes_max, &words).await, word),
            "in order, and once: {word}"
        );
    }
    provoke.stranger_says(&words[3])?;
    let message = next_of(source.as_mut(), kind.bytes_max, &words).await;
    assert!(holds(&message, &words[3]) && !(kind.is_believed)(&message), "{message:?}");
    let mut later = open().map_err(|error| error.to_string())?;
    says(provoke, &words[4])?;
    let first = if kind.keeps { &words[0] } else { &words[4] };
    assert!(holds(&next_of(later.as_mut(), kind.bytes_max, &words).await, first), "who comes later");
    assert!(holds(&next_of(source.as_mut(), kind.bytes_max, &words).await, &words[4]), "and who was there");
    Ok(())
}

/// Checks a kernel. What could not be checked here, and why.
async fn check_kernel(
    kernel: &dyn KernelWatch,
    uevents: &mut dyn Provoke,
    log: &mut dyn Provoke,
) -> Vec<String> {
    let is_event = |message: &KernelMessage| message.record().is_some_and(|record| record.event.is_some());
    let of_uevents =
        Kind { bytes_max: UEVENT_BYTES_MAX, keeps: false, is_believed: KernelMessage::may_be_of_devices };
    let of_log = Kind { bytes_max: RECORD_BYTES_MAX, keeps: true, is_believed: is_event };
    let uevents = check_kind(&of_uevents, &|| kernel.uevents(), uevents).await;
    let log = check_kind(&of_log, &|| kernel.log(), log).await;
    let said = |name: &str, done: Result<(), String>| done.err().map(|why| format!("{name}: {why}"));
    said("uevents", uevents).into_iter().chain(said("log", log)).collect()
}

/// A uevent of a device that nobody waits for, with a word in it.
struct RealUevents;

impl Provoke for RealUevents {
    fn kernel_says(&mut self, word: &str) -> Option<Result<(), String>> {
        const NULL: &str = "/sys/class/mem/null/uevent";
        // `ACTION UUID KEY=value`; the kernel puts what it is told into the event (`kobject_synth_uevent`).
        let text = format!("change 4f3b2a10-0000-4000-8000-000000000000 WORD={word}");
        Some(fs::write(NULL, text).map_err(|error| format!("{NULL}: {error}")))
    }

    fn stranger_says(&mut self, word: &str) -> Result<(), String> {
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let sent = socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)
            .and_then(|socket| {
                let message = format!("add@/devices/pci0000:3a/{word}\0SUBSYSTEM=pci\0");
                let everybody = NetlinkAddr::new(0, GROUP_KERNEL);
                sendto(socket.as_raw_fd(), message.as_bytes(), &everybody, MsgFlags::empty())
            });
        sent.map(drop).map_err(|errno| format!("a message of another process: {errno}"))
    }
}

/// Lines of a program: they have its facility.
struct RealLog;

impl Provoke for RealLog {
    fn kernel_says(&mut self, _: &str) -> Option<Result<(), String>> {
        None
    }

    fn stranger_says(&mut self, word: &str) -> Result<(), String> {
        const POLICY: &str = "/proc/sys/kernel/printk_devkmsg";
        if fs::read_to_string(POLICY).is_ok_and(|policy| policy.trim() == "off") {
            return Err(format!("{POLICY} is off: what programs write is dropped"));
        }
        // One descriptor for each line: they are limited by that. What does not end a line is shown to nobody before the next one begins.
        let line = format!("<4>vfio-pci 0000:ff:1f.7: PCIe Bus Error: severity=Corrected, {word}\n");
        let written =
            File::options().write(true).open(KMSG).and_then(|mut file| file.write_all(line.as_bytes()));
        written.map_err(|error| format!("{KMSG}: {error}"))
    }
}

struct FakeUevents(Channel);

impl Provoke for FakeUevents {
    fn kernel_says(&mut self, word: &str) -> Option<Result<(), String>> {
        self.0.say(0, format!("change@/devices/virtual/mem/null\0SUBSYSTEM=mem\0WORD={word}\0").as_bytes());
        Some(Ok(()))
    }

    fn stranger_says(&mut self, word: &str) -> Result<(), String> {
        self.0.say(4711, format!("add@/devices/pci0000:3a/{word}\0SUBSYSTEM=pci\0").as_bytes());
        Ok(())
    }
}

struct FakeLog(Channel, u64);

impl FakeLog {
    fn line(&mut self, priority: u32, text: &str) {
        self.1 += 1;
        self.0.say(0, format!("{priority},{},0,-;{text}", self.1).as_bytes());
    }
}

impl Provoke for FakeLog {
    fn kernel_says(&mut self, word: &str) -> Option<Result<(), String>> {
        self.line(6, word);
        Some(Ok(()))
    }

    fn stranger_says(&mut self, word: &str) -> Result<(), String> {
        self.line(12, &format!("NVRM: Xid (PCI:0000:3b:00): 79, {word}"));
        Ok(())
    }
}

#[tokio::test]
async fn the_kernel_in_memory_conforms() {
    let kernel = FakeKernel::default();
    let (mut uevents, mut log) = (FakeUevents(kernel.uevents.clone()), FakeLog(kernel.log.clone(), 0));
    assert_eq!(check_kernel(&kernel, &mut uevents, &mut log).await, Vec::<String>::new());
    let silent = FakeKernel { is_silent: true, ..kernel };
    assert_eq!(check_kernel(&silent, &mut uevents, &mut log).await.len(), 2);
}

#[tokio::test]
async fn the_running_kernel_conforms() {
    for skipped in check_kernel(&RunningKernel, &mut RealUevents, &mut RealLog).await {
        eprintln!("skipped: {skipped}");
    }
}

#[tokio::test]
async fn what_is_too_long_or_too_much_is_lost_and_an_end_is_told() {
    let kernel = FakeKernel::default();
    let mut uevents = kernel.uevents().expect("it may");
    kernel.uevents.say(0, &[b'x'; UEVENT_BYTES_MAX + 1]);
    devices_changed(uevents.as_mut()).await.expect("nobody knows what was lost");
    for _ in 0..1000 {
        kernel.uevents.say(0, b"change@/devices/virtual/mem/null\0SUBSYSTEM=mem\0");
    }
    devices_changed(uevents.as_mut()).await.expect("nobody knows what was lost");
    kernel.uevents.end();
    assert!(devices_changed(uevents.as_mut()).await.is_err());
    let mut log = kernel.log().expect("it may");
    kernel.log.say(0, &[b'x'; RECORD_BYTES_MAX + 1]);
    kernel.log.say(0, b"4,7,0,-;NVRM: Xid (PCI:0000:3b:00): 79, pid=1");
    assert_eq!(next_record(log.as_mut()).await.expect("one more").sequence, 7);
}
