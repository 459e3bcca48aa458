//! The network on a host in memory, and on this machine's kernel in a network namespace of its own.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use bulkhead_nodeagent_core::network::Ipv4Network;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use super::fake::FakeNetwork;
use super::*;
use crate::vm::session::open_tap;

const POD: ObjectId = ObjectId(7);
const OTHER: ObjectId = ObjectId(8);

fn names() -> LinkNames {
    LinkNames::new(0x0123_4567)
}

fn options(pod_cidr: Option<&str>) -> NetworkOptions {
    let pod_cidr = pod_cidr.map(|text| text.parse().expect("a range"));
    NetworkOptions { choice: NetworkChoice::Bridge, pod_cidr, ..NetworkOptions::default() }
}

fn open(host: Arc<dyn HostNetwork>, pod_cidr: Option<&str>) -> Result<Network, StepError> {
    let resolver = Resolver { nameservers: vec![Ipv4Addr::new(192, 0, 2, 53)], ..Resolver::default() };
    Network::open(host, names(), &options(pod_cidr), resolver)
}

fn address(network: &Network, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(network.range().gateway()) + n)
}

/// Everything of this agent that a host has.
fn own(host: &dyn HostNetwork) -> Vec<(String, bool)> {
    let bridge = names().bridge();
    let is_own = |link: &Link| link.name == bridge || link.name.starts_with(&names().tap_prefix());
    let links = host.links().expect("links").into_iter().filter(is_own);
    links.map(|link| (link.name, link.is_up && link.bridge.is_none_or(|one| one == bridge))).collect()
}

/// What every host does: the fake and the kernel pass the same.
fn check_conformance(host: &Arc<dyn HostNetwork>) {
    let network = open(Arc::clone(host), None).expect("opened");
    let bridge = names().bridge();
    let first = network.attach(POD, 1, address(&network, 1)).expect("attached");
    let second = network.attach(OTHER, 1, address(&network, 2)).expect("attached");
    assert_eq!(first.cidr, format!("{}/24", address(&network, 1)));
    assert_eq!(
        (first.mac.as_str(), first.gateway),
        (mac_of(address(&network, 1)).as_str(), network.range().gateway())
    );
    let mut expected = [bridge.clone(), first.tap.clone(), second.tap.clone()].map(|name| (name, true));
    expected.sort();
    let mut found = own(&**host);
    found.sort();
    assert_eq!(found, expected, "on the bridge and up");
    let taken = network.attach(ObjectId(9), 1, address(&network, 1)).expect_err("the address is another's");
    assert!(taken.to_string().contains("the guest of pod #7 has"), "{taken}");
    // Another guest of the same pod has another tap, and the same address.
    let again = network.attach(POD, 2, address(&network, 1)).expect("attached");
    assert_ne!(again.tap, first.tap);
    assert_eq!(own(&**host).len(), 3);

    // The next life of the agent: one guest died meanwhile, the other lives and was torn from the bridge.
    let range = network.range();
    let next = open(Arc::clone(host), None).expect("found again");
    assert_eq!(next.range(), range, "it is the bridge's");
    let refused = open(Arc::clone(host), Some("10.201.0.0/24")).expect_err("guests have the other one");
    assert!(refused.to_string().contains("guests have addresses of"), "{refused}");
    host.remove(&bridge).expect("removed");
    let next = open(Arc::clone(host), Some(&range.to_string())).expect("made again");
    let live = [(POD, 2, address(&network, 1)), (ObjectId(11), 4, address(&network, 5))];
    let lost = next.recover(&live).expect("recovered");
    assert_eq!(lost, [names().tap(ObjectId(11), 4)]);
    let mut expected = [bridge, again.tap].map(|name| (name, true));
    expected.sort();
    let mut found = own(&**host);
    found.sort();
    assert_eq!(found, expected, "the tap of the dead is gone, that of the living is back");
    next.close().expect("guests live");
    assert_eq!(own(&**host).len(), 2);
    for pod in [POD, POD, ObjectId(11), OTHER] {
        next.release(pod).expect("released, also when there is nothing");
    }
    next.close().expect("closed");
    assert_eq!(own(&**host), []);
}

#[test]
fn the_fake_does_what_every_host_does() {
    let host: Arc<dyn HostNetwork> = Arc::new(FakeNetwork::default());
    check_conformance(&host);
}

/// Lets every step of some work fail in turn, until none is left to fail.
fn check_failures(work: impl Fn(&FakeNetwork) -> Result<(), String>, before: impl Fn(&FakeNetwork) -> usize) {
    let mut steps = std::collections::BTreeSet::new();
    for step in 0.. {
        let host = FakeNetwork::default();
        let links = before(&host);
        host.fail_after(step);
        match work(&host) {
            Ok(()) => {
                assert!(!host.has_failed() && step > 0, "a failure was passed over");
                break;
            }
            Err(message) => {
                assert!(message.starts_with("cannot ") && message.contains("injected"), "{message}");
                assert!(steps.insert(message.clone()), "{message}: said of two steps");
                assert_eq!(own(&host).len(), links, "{message}: something is left behind");
            }
        }
    }
}

#[test]
fn a_bridge_is_made_whole_or_not_at_all() {
    check_failures(
        |host| open(Arc::new(host.clone()), None).map(drop).map_err(|error| error.to_string()),
        |_| 0,
    );
}

#[test]
fn a_guest_is_connected_wholly_or_not_at_all() {
    let network = |host: &FakeNetwork| open(Arc::new(host.clone()), Some("10.200.1.0/24")).expect("opened");
    check_failures(
        |host| {
            // Opening makes no bridge any more, so what fails is in attaching only.
            let resolver = Resolver::default();
            let network = Network {
                host: Arc::new(host.clone()),
                names: names(),
                range: "10.200.1.0/24".parse().expect("a range"),
                mtu: 1500,
                egress: true,
                resolver,
                guests: Mutex::default(),
            };
            let attached = network.attach(POD, 1, address(&network, 1));
            let tap = names().tap(POD, 1);
            match attached {
                Ok(_) => Ok(()),
                Err(error) => {
                    assert!(!host.rules().contains(&tap), "{error}: a rule is left");
                    assert!(network.guests().is_empty());
                    Err(error.to_string())
                }
            }
        },
        |host| {
            drop(network(host));
            1
        },
    );
}

#[test]
fn ranges_of_others_are_refused_or_passed_by() {
    let host = FakeNetwork::default();
    let block = |text: &str| {
        let range: PodRange = text.parse().expect("a range");
        range.network()
    };
    host.route(Ipv4Network::around(Ipv4Addr::UNSPECIFIED, 0).expect("everything"), "eth0");
    host.route(block("10.200.0.0/16"), "docker0");
    let refused = open(Arc::new(host.clone()), Some("10.200.3.0/24")).expect_err("taken");
    let message = refused.to_string();
    assert!(
        message.contains("10.200.0.0/16 of docker0 overlaps it") && message.contains("--pod-cidr"),
        "{message}"
    );
    let own_choice = PodRange::choose(names().key(), &[]).expect("one is free");
    host.route(own_choice.network(), "vpn0");
    let network = open(Arc::new(host.clone()), None).expect("another one");
    assert_ne!(network.range(), own_choice);
    assert!(host.forwards() && host.rules().contains("masquerade"));
    // Another agent of the machine, whose first choice is the same.
    let key = names().key() ^ (1 << 27);
    let other = Network::open(Arc::new(host), LinkNames::new(key), &options(None), Resolver::default());
    let other = other.expect("opened");
    assert!(!other.range().network().overlaps(network.range().network()));
}

/// Runs a test in a network namespace of its own; says why it does not where it may not.
fn in_a_namespace(test: impl FnOnce() + Send + 'static) {
    let missing = if !rustix::process::geteuid().is_root() {
        Some("it needs root")
    } else if std::process::Command::new("nft").arg("--version").output().is_err() {
        Some("it needs nft; remedy: make deps")
    } else {
        None
    };
    if let Some(missing) = missing {
        return eprintln!("skipped: {missing}");
    }
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a namespace of its own");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn the_kernel_does_what_every_host_does() {
    in_a_namespace(|| {
        let host: Arc<dyn HostNetwork> = Arc::new(KernelNetwork);
        check_conformance(&host);
    });
}

/// What a guest's card sends, with a mark and a number, from an address.
struct Frame {
    number: u8,
    mac: [u8; 6],
    kind: u16,
    payload: Vec<u8>,
}

const MARK: &[u8] = b"bulkhead";
/// Of virtio's header, which comes before every frame on a tap (linux/virtio_net.h).
const HEADER: usize = 10;

impl Frame {
    fn arp(number: u8, mac: [u8; 6], says_mac: [u8; 6], says: Ipv4Addr) -> Self {
        let mut payload = vec![0, 1, 8, 0, 6, 4, 0, 1];
        payload.extend(says_mac);
        payload.extend(says.octets());
        payload.extend([0; 10]);
        Self { number, mac, kind: 0x0806, payload }
    }

    fn ip(number: u8, mac: [u8; 6], from: Ipv4Addr) -> Self {
        let mut header = vec![0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0];
        header.extend(from.octets());
        header.extend([255; 4]);
        let words = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let sum: u32 = words.sum();
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("few words");
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        Self { number, mac, kind: 0x0800, payload: header }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes.extend([0xff; 6]);
        bytes.extend(self.mac);
        bytes.extend(self.kind.to_be_bytes());
        bytes.extend(&self.payload);
        bytes.resize(HEADER + 60 - MARK.len() - 1, 0);
        bytes.extend(MARK);
        bytes.push(self.number);
        bytes
    }
}

/// The number of the next of these frames that arrives at a tap; `None` when none does in that time.
fn next_frame(tap: &OwnedFd, patience_ms: i64) -> Option<u8> {
    let mut buffer = [0; 2048];
    loop {
        let mut fds = [PollFd::new(tap, PollFlags::IN)];
        let patience = Timespec { tv_sec: patience_ms / 1000, tv_nsec: patience_ms % 1000 * 1_000_000 };
        if poll(&mut fds, Some(&patience)).expect("polled") == 0 {
            return None;
        }
        let length = rustix::io::read(tap, &mut buffer).expect("read");
        if let Some((number, rest)) = buffer[..length].split_last()
            && rest.ends_with(MARK)
        {
            return Some(*number);
        }
    }
}

/// Whether frames get from one tap to another: a port of a bridge forwards only some time after somebody opened its tap.
fn await_connected(from: &OwnedFd, to: &OwnedFd, hello: &Frame) {
    let arrives = |_| {
        rustix::io::write(from, &hello.bytes()).expect("written");
        next_frame(to, 100) == Some(hello.number)
    };
    assert!((0..200).any(arrives), "no frame arrives");
}

/// The taps of this test are guests' cards: what is written to one comes from a guest.
#[test]
fn nothing_leaves_a_tap_in_anothers_name() {
    in_a_namespace(|| {
        let network = open(Arc::new(KernelNetwork), None).expect("opened");
        let (own, its) = (address(&network, 1), address(&network, 2));
        let open_tap = |connection: &Connection| {
            let name = CString::new(connection.tap.as_str()).expect("no NUL");
            open_tap(&name).expect("opened")
        };
        let first = open_tap(&network.attach(POD, 1, own).expect("attached"));
        let second = open_tap(&network.attach(OTHER, 1, its).expect("attached"));
        let mac = |address: Ipv4Addr| {
            let [a, b, c, d] = address.octets();
            [0x0a, 0x58, a, b, c, d]
        };
        let foreign = [0x0a, 0x58, 1, 2, 3, 4];
        let frames = [
            Frame::arp(1, mac(own), mac(own), own),
            Frame::arp(2, foreign, mac(own), own),
            Frame::arp(3, mac(own), foreign, own),
            Frame::arp(4, mac(own), mac(own), its),
            Frame::arp(5, mac(its), mac(its), its),
            Frame::ip(6, mac(own), own),
            Frame::ip(7, mac(own), its),
            Frame::ip(8, mac(own), network.range().gateway()),
            Frame::ip(9, foreign, own),
            Frame { kind: 0x86dd, ..Frame::ip(10, mac(own), own) },
            Frame { kind: 0x8100, ..Frame::ip(11, mac(own), own) },
            Frame::arp(12, mac(own), mac(own), own),
        ];
        await_connected(&first, &second, &Frame::arp(0, mac(own), mac(own), own));
        for frame in &frames {
            rustix::io::write(&first, &frame.bytes()).expect("written");
        }
        let arrived = std::iter::from_fn(|| next_frame(&second, 10_000)).filter(|number| *number > 0);
        assert_eq!(arrived.take(3).collect::<Vec<_>>(), [1, 6, 12]);
        network.release(POD).expect("released");
        network.release(OTHER).expect("released");
    });
}
