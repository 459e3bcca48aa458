//! The network on a host in memory, and on this machine's kernel in a network namespace of its own.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use bulkhead_nodeagent_core::network::{BATCH_MAX, Ipv4Network};
use futures::FutureExt as _;
use futures::future::join_all;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use super::fake::FakeNetwork;
use super::*;
use crate::vm::session::open_tap;

const POD: ObjectId = ObjectId(7);
const OTHER: ObjectId = ObjectId(8);

/// One change at a time.
impl Network {
    fn attach(&self, pod: ObjectId, instance: u32, card: GuestCard) -> Result<Connection, StepError> {
        let attached = self.make(&[Change::Attach { pod, instance, card }]).remove(0);
        attached.map(|()| self.connection(pod, instance, card.address))
    }

    fn release(&self, pod: ObjectId) -> Result<(), StepError> {
        self.make(&[Change::Release { pod }]).remove(0)
    }
}

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

fn card(address: Ipv4Addr) -> GuestCard {
    GuestCard { address, bandwidth: PodBandwidth::default() }
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
    let first = network.attach(POD, 1, card(address(&network, 1))).expect("attached");
    let second = network.attach(OTHER, 1, card(address(&network, 2))).expect("attached");
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
    let taken =
        network.attach(ObjectId(9), 1, card(address(&network, 1))).expect_err("the address is another's");
    assert!(taken.to_string().contains("the guest of pod #7 has"), "{taken}");
    // Another guest of the same pod has another tap, and the same address.
    let again = network.attach(POD, 2, card(address(&network, 1))).expect("attached");
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
    let live = [(POD, 2, card(address(&network, 1))), (ObjectId(11), 4, card(address(&network, 5)))];
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
                queue: batch::Queue::default(),
                rates: Mutex::default(),
            };
            let attached = network.attach(POD, 1, card(address(&network, 1)));
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

/// Several changes at once, where the guest of pod 4 is there: guests of three pods come, the first with a limit, and that of pod 4
/// goes. All that is there afterwards fits what came of each.
fn make_four(network: &Network, host: &FakeNetwork) -> Vec<Result<(), String>> {
    let attach = |pod: u32, card| Change::Attach { pod: ObjectId(pod.into()), instance: 1, card };
    let changes = [
        attach(1, limited(address(network, 1), None, Some(8_000))),
        attach(2, card(address(network, 2))),
        Change::Release { pod: ObjectId(4) },
        attach(3, card(address(network, 3))),
    ];
    host.rules_set();
    let outcomes = network.make(&changes);
    for (pod, outcome) in [1, 2, 4, 3].into_iter().zip(&outcomes) {
        let tap = names().tap(ObjectId(pod), 1);
        let expected = outcome.is_ok() == (pod != 4);
        let taps: Vec<_> = own(host).into_iter().filter(|(name, _)| *name == tap).collect();
        let whole = if expected { vec![(tap.clone(), true)] } else { vec![] };
        assert_eq!(taps, whole, "{pod}: {outcome:?}");
        let is_known = network.guests().contains_key(&(ObjectId(pod), 1));
        assert_eq!((is_known, host.rules().contains(&tap)), (expected, expected), "{pod}: {outcome:?}");
    }
    outcomes.into_iter().map(|outcome| outcome.map_err(|error| error.to_string())).collect()
}

fn with_guest_4(host: &FakeNetwork) -> Network {
    let network = open(Arc::new(host.clone()), Some("10.200.1.0/24")).expect("opened");
    network.attach(ObjectId(4), 1, card(address(&network, 4))).expect("attached");
    network
}

#[test]
fn changes_that_are_made_together_set_the_rules_once() {
    let host = FakeNetwork::default();
    let network = with_guest_4(&host);
    assert_eq!(make_four(&network, &host), [Ok(()), Ok(()), Ok(()), Ok(())]);
    assert_eq!(host.rules_set(), 1);
}

#[test]
fn a_rule_that_the_kernel_does_not_take_fails_its_own_pod() {
    let host = FakeNetwork::default();
    let network = with_guest_4(&host);
    host.refuse("limit rate");
    let tap = names().tap(ObjectId(1), 1);
    let why = format!(
        "cannot set the rules of the packet filter with the tap {tap}: the kernel knows no such rule"
    );
    assert_eq!(make_four(&network, &host), [Err(why.clone()), Ok(()), Ok(()), Ok(())]);
    assert_eq!(host.rules_set(), 1 + 4 + 1, "all, each, and again without the one");
    // By itself it fails at once.
    let card = limited(address(&network, 1), None, Some(8_000));
    assert_eq!(network.attach(ObjectId(1), 2, card).expect_err("refused").to_string(), {
        why.replace(&tap, &names().tap(ObjectId(1), 2))
    });
    assert_eq!(host.rules_set(), 2);
}

#[test]
fn whatever_fails_of_changes_that_are_made_together_fails_one_of_them() {
    let mut failed = [0; 4];
    for step in 0.. {
        let host = FakeNetwork::default();
        let network = with_guest_4(&host);
        host.fail_after(step);
        let outcomes = make_four(&network, &host);
        if !host.has_failed() {
            break;
        }
        assert!(
            outcomes.iter().flat_map(|outcome| outcome.as_ref().err()).all(|why| why.contains("injected"))
        );
        outcomes
            .iter()
            .zip(&mut failed)
            .for_each(|(outcome, failed)| *failed += usize::from(outcome.is_err()));
        // What failed can be done again.
        make_four(&network, &host).into_iter().for_each(|outcome| outcome.expect("nothing fails"));
    }
    // Removing what was left, adding the tap, and attaching it; rules of all that fail once are told one after the other.
    assert_eq!(failed, [3, 3, 1, 3]);
}

#[test]
fn an_agent_may_die_at_every_step_of_changes_that_are_made_together() {
    let mut has_lived = false;
    for step in 0..100 {
        if has_lived {
            break;
        }
        let host = FakeNetwork::default();
        let network = with_guest_4(&host);
        host.die_after(step);
        let attach = |pod: u32| {
            let card = card(address(&network, pod));
            Change::Attach { pod: ObjectId(pod.into()), instance: 1, card }
        };
        let outcomes = network.make(&[attach(1), Change::Release { pod: ObjectId(4) }, attach(2)]);
        host.live();
        // QEMU of the guests that come has its tap open once it is attached; that of the one that goes is gone.
        let is_whole = |pod: u32| own(&host).contains(&(names().tap(ObjectId(pod.into()), 1), true));
        let live: Vec<_> = [1, 2].into_iter().filter(|pod| is_whole(*pod)).collect();
        let cards = live.iter().map(|pod| (ObjectId((*pod).into()), 1, card(address(&network, *pod))));
        let next = open(Arc::new(host.clone()), Some("10.200.1.0/24")).expect("opened");
        assert_eq!(next.recover(&cards.collect::<Vec<_>>()).expect("recovered"), [""; 0]);
        for pod in [1, 2, 4] {
            let (tap, lives) = (names().tap(ObjectId(pod.into()), 1), live.contains(&pod));
            assert_eq!(own(&host).iter().any(|(name, _)| *name == tap), lives, "died after {step}: {pod}");
            assert_eq!(host.rules().contains(&tap), lives, "died after {step}: {pod}");
        }
        has_lived = outcomes.iter().all(Result::is_ok);
        assert!(!has_lived || step > 6 && live == [1, 2], "{step}");
    }
    assert!(has_lived);
}

#[tokio::test]
async fn what_waits_is_made_together_but_for_who_waits_no_more() {
    let host = FakeNetwork::default();
    let network = Arc::new(open(Arc::new(host.clone()), Some("10.200.1.0/24")).expect("opened"));
    let attach = |pod: u32| {
        let card = card(address(&network, pod));
        network.change(Change::Attach { pod: ObjectId(pod.into()), instance: 1, card }).boxed()
    };
    host.rules_set();
    // Nothing is begun as long as somebody else changes something.
    let held = network.guests();
    let pods = u32::try_from(BATCH_MAX).expect("few") + 8;
    let mut all = join_all((1..=pods).map(attach));
    let mut abandoned = attach(pods + 1);
    assert!((&mut all).now_or_never().is_none() && (&mut abandoned).now_or_never().is_none());
    drop(abandoned);
    drop(held);
    all.await.into_iter().for_each(|outcome| outcome.expect("made").expect("attached"));
    let tap = |pod: u32| names().tap(ObjectId(pod.into()), 1);
    assert!((1..=pods).all(|pod| own(&host).contains(&(tap(pod), true)) && host.rules().contains(&tap(pod))));
    let times = host.rules_set();
    assert!((2..=3).contains(&times), "{times} times for {pods} guests");
    // Behind it in the queue, so that it was passed over.
    network.change(Change::Release { pod: ObjectId(1) }).await.expect("made").expect("released");
    assert!(!own(&host).contains(&(tap(pods + 1), false)) && !host.rules().contains(&tap(pods + 1)));
}

#[tokio::test]
async fn a_change_that_panics_is_the_last_of_no_other() {
    let host = FakeNetwork::default();
    let network = Arc::new(open(Arc::new(host.clone()), Some("10.200.1.0/24")).expect("opened"));
    let change = Change::Attach { pod: POD, instance: 1, card: card(address(&network, 1)) };
    host.be_deadly();
    let died = network.change(change).await.expect_err("nobody answers");
    assert!(died.to_string().contains("ended in a panic"), "{died}");
    network.change(change).await.expect("made").expect("attached");
    assert!(own(&host).contains(&(names().tap(POD, 1), true)));
    network.change(Change::Release { pod: POD }).await.expect("made").expect("released");
    assert_eq!(own(&host), [(names().bridge(), true)]);
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
        let host: Arc<dyn HostNetwork> = Arc::new(KernelNetwork::default());
        check_conformance(&host);
    });
}

/// What a guest's card sends, with a mark and a number, from an address.
struct Frame {
    number: u8,
    mac: [u8; 6],
    kind: u16,
    payload: Vec<u8>,
    /// On the wire, in bytes.
    length: u16,
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
        Self { number, mac, kind: 0x0806, payload, length: 60 }
    }

    fn ip(number: u8, mac: [u8; 6], from: Ipv4Addr) -> Self {
        Self::ip_of_length(number, mac, from, 60)
    }

    fn ip_of_length(number: u8, mac: [u8; 6], from: Ipv4Addr, length: u16) -> Self {
        let [above, below] = (length - 14).to_be_bytes();
        let mut header = vec![0x45, 0, above, below, 0, 0, 0, 0, 64, 17, 0, 0];
        header.extend(from.octets());
        header.extend([255; 4]);
        let words = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let sum: u32 = words.sum();
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("few words");
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        Self { number, mac, kind: 0x0800, payload: header, length }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes.extend([0xff; 6]);
        bytes.extend(self.mac);
        bytes.extend(self.kind.to_be_bytes());
        bytes.extend(&self.payload);
        bytes.resize(HEADER + usize::from(self.length) - MARK.len() - 1, 0);
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
        let network = open(Arc::new(KernelNetwork::default()), None).expect("opened");
        let (own, its) = (address(&network, 1), address(&network, 2));
        let open_tap = |connection: &Connection| {
            let name = CString::new(connection.tap.as_str()).expect("no NUL");
            open_tap(&name).expect("opened")
        };
        let first = open_tap(&network.attach(POD, 1, card(own)).expect("attached"));
        let second = open_tap(&network.attach(OTHER, 1, card(its)).expect("attached"));
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

/// Limits in bits per second: what the guest may receive, and send.
fn limited(address: Ipv4Addr, ingress: Option<u64>, egress: Option<u64>) -> GuestCard {
    let bandwidth = PodBandwidth { ingress_bits_per_second: ingress, egress_bits_per_second: egress };
    GuestCard { address, bandwidth }
}

#[test]
fn limits_are_set_again_only_when_they_change() {
    let host = FakeNetwork::default();
    let network = open(Arc::new(host.clone()), Some("10.200.1.0/24")).expect("opened");
    let table = names().rates_table();
    let told = || host.rules().contains(&format!("delete table bridge {table}"));
    let tap = network.attach(POD, 1, limited(address(&network, 1), None, Some(8_000))).expect("attached").tap;
    assert!(host.rules().contains(&format!("chain {tap}-from")) && told(), "{}", host.rules());
    network.attach(OTHER, 1, card(address(&network, 2))).expect("attached");
    assert!(!told(), "whoever comes without limits changes none");
    network.release(OTHER).expect("released");
    assert!(!told());
    // The next life of the agent knows of them by its records, and not of what the filter was told.
    let next = open(Arc::new(host.clone()), None).expect("found again");
    next.recover(&[(POD, 1, limited(address(&network, 1), None, Some(8_000)))]).expect("recovered");
    assert!(host.rules().contains(&format!("chain {tap}-from")));
    // What was not told is told the next time.
    host.fail_after(1);
    next.release(POD).expect_err("the rules are not set");
    next.attach(OTHER, 1, card(address(&network, 2))).expect("attached");
    assert!(told() && !host.rules().contains("limit rate"), "{}", host.rules());
    next.release(OTHER).expect("released");
    next.close().expect("closed");
    assert!(told(), "nothing is left");
}

/// Of 200 kB at once there arrives what may come at once, of a guest that is limited to 1 kbit/s.
#[test]
fn a_guest_is_no_faster_than_its_limits() {
    const FRAMES: usize = 200;
    in_a_namespace(|| {
        let network = open(Arc::new(KernelNetwork::default()), None).expect("opened");
        let cards = [
            card(address(&network, 1)),
            limited(address(&network, 2), None, Some(1_000)),
            limited(address(&network, 3), Some(1_000), None),
            limited(address(&network, 4), Some(8_000_000_000), Some(100_000_000_000)),
        ];
        let taps = [1, 2, 3, 4].map(|n| {
            let card = cards[n as usize - 1];
            let tap = network.attach(ObjectId(n), 1, card).expect("attached").tap;
            open_tap(&CString::new(tap).expect("no NUL")).expect("opened")
        });
        let frame = |from: usize, number, length| {
            let [a, b, c, d] = cards[from].address.octets();
            Frame::ip_of_length(number, [0x0a, 0x58, a, b, c, d], cards[from].address, length)
        };
        let silence = |to: &OwnedFd| while next_frame(to, 50).is_some() {};
        let passes = |from: usize, to: &OwnedFd| {
            silence(to);
            await_connected(&taps[from], to, &frame(from, 0, 60));
            silence(to);
            for _ in 0..FRAMES {
                rustix::io::write(&taps[from], &frame(from, 1, 1014).bytes()).expect("written");
            }
            std::iter::from_fn(|| next_frame(to, 200)).count()
        };
        assert_eq!(passes(0, &taps[3]), FRAMES, "the limits are beyond it");
        assert_eq!(passes(3, &taps[0]), FRAMES);
        assert_eq!(passes(2, &taps[0]), FRAMES, "who may receive little may send much");
        assert_eq!(passes(0, &taps[1]), FRAMES, "who may send little may receive much");
        // 64 KiB and a second's worth, less what the first frames took, and a kB for every 8 s that this takes.
        let some = 50..80;
        let sent = passes(1, &taps[0]);
        assert!(some.contains(&sent), "{sent} frames were sent");
        // All others' frames came to the third as well: nothing of its burst is left.
        let listener = network.attach(ObjectId(5), 1, limited(address(&network, 5), Some(1_000), None));
        let listener = CString::new(listener.expect("attached").tap).expect("no NUL");
        let received = passes(0, &open_tap(&listener).expect("opened"));
        assert!(some.contains(&received), "{received} frames were received");
        (1..=5).for_each(|n| network.release(ObjectId(n)).expect("released"));
        network.close().expect("closed");
    });
}

/// An agent dies at every change of what it does for a guest on the host, and the next one at every change of its own: the third
/// finds nothing that it cannot put right.
#[test]
fn agents_may_die_one_after_the_other_at_every_step_of_the_network() {
    let range = "10.200.1.0/24";
    let guest = |network: &Network| card(address(network, 1));
    // The first life of a pod: connected, and let go again.
    let start = |host: &FakeNetwork| -> Result<(), StepError> {
        let network = open(Arc::new(host.clone()), Some(range))?;
        network.recover(&[])?;
        network.attach(POD, 1, guest(&network))?;
        network.release(POD)
    };
    // What the next agent does: the guest did not outlive the first, or it did.
    let recover = |host: &FakeNetwork, lives: bool| -> Result<Network, StepError> {
        let network = open(Arc::new(host.clone()), Some(range))?;
        let live = [(POD, 1, guest(&network))];
        network.recover(if lives { &live } else { &[] })?;
        Ok(network)
    };
    let tap = names().tap(POD, 1);
    let mut pairs = 0;
    for first in 0.. {
        let mut has_died = false;
        for second in 0.. {
            let host = FakeNetwork::default();
            host.die_after(first);
            has_died = start(&host).is_err();
            // QEMU has its tap open only once it is attached.
            let lives = own(&host).contains(&(tap.clone(), true));
            host.die_after(second);
            let has_died_again = recover(&host, lives).is_err();
            host.live();
            let what = format!("died after {first} and {second}");
            let network = recover(&host, lives).unwrap_or_else(|error| panic!("{what}: {error}"));
            let taps = own(&host).into_iter().filter(|(name, _)| *name == tap).collect::<Vec<_>>();
            let wanted = if lives { vec![(tap.clone(), true)] } else { vec![] };
            assert_eq!(taps, wanted, "{what}");
            assert_eq!(host.rules().contains(&tap), lives, "{what}");
            network.release(POD).expect("released");
            network.close().expect("closed");
            assert_eq!(own(&host), [], "{what}");
            assert!(!host.rules().contains(&tap), "{what}");
            pairs += 1;
            assert!(pairs < 10_000, "it dies whenever it is not killed");
            if !has_died_again {
                break;
            }
        }
        if !has_died {
            break;
        }
    }
    assert!(pairs > 60, "{pairs}");
}
