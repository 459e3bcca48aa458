//! Messages survive a round trip, golden bytes stay as they are, and what breaks a bound is refused.

use bulkhead_guest_protocol::guest::{self, GuestMessage};
use bulkhead_guest_protocol::host::{self, HostMessage};
use bulkhead_guest_protocol::stream::*;
use bulkhead_guest_protocol::*;
use proptest::prelude::*;

fn round_trip<M: Wire + PartialEq + std::fmt::Debug>(message: &M) {
    let mut stream = Vec::new();
    encode(message, &mut stream).expect("fits");
    let mut reader = FrameReader::new();
    reader.push(&stream);
    let payload = reader.next_frame().expect("one frame").expect("whole");
    assert_eq!(&decode::<M>(&payload).expect("valid"), message);
    assert_eq!(reader.next_frame(), None);
}

fn check_refused<M: Wire + std::fmt::Debug>(message: &M, expected: &str) {
    let error = decode::<M>(&message.to_payload()).expect_err("must be refused");
    assert_eq!(error.to_string(), expected);
}

fn pod() -> host::PodConfig {
    host::PodConfig {
        hostname: "web-0".into(),
        sandbox_id: "7d3c".into(),
        restart_policy: host::RestartPolicy::Always as i32,
        containers: vec![host::ContainerConfig {
            name: "app".into(),
            disk_serial: "app".into(),
            argv: vec!["/bin/sh".into(), "-c".into(), "true".into()],
            env: vec!["PATH=/bin".into()],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn configure(change: impl FnOnce(&mut host::PodConfig)) -> HostMessage {
    let mut pod = pod();
    change(&mut pod);
    HostMessage::Configure(host::Configure { pod: Some(pod) })
}

#[test]
fn golden_payloads() {
    let hello = HostMessage::Hello(host::Hello { protocol_version: 1, asks_by_https: false });
    assert_eq!(hello.to_payload(), [0x0a, 2, 8, 1]);
    let ack = HostMessage::AckLogs(host::AckLogs { container: "a".into(), up_to_offset: 300 });
    assert_eq!(ack.to_payload(), [0x22, 6, 0x0a, 1, b'a', 0x10, 0xac, 2]);
    let chunk = GuestMessage::LogChunk(guest::LogChunk {
        container: "a".into(),
        restart: 2,
        stream: guest::LogStream::Stderr as i32,
        offset: 5,
        time_ms: 7,
        data: b"x".to_vec(),
    });
    assert_eq!(
        chunk.to_payload(),
        [0x22, 14, 0x0a, 1, b'a', 0x10, 2, 0x18, 1, 0x20, 5, 0x28, 7, 0x32, 1, b'x']
    );
}

#[test]
fn golden_streams() {
    let connect = StreamKind::Connect(Connect { port: 80, own_address: false });
    let open = HostMessage::StreamOpen(StreamOpen { stream: 1, kind: Some(connect) });
    assert_eq!(open.to_payload(), [0x42, 6, 8, 1, 0x2a, 2, 8, 80]);
    let data = StreamData { stream: 2, part: StreamPart::Errors.into(), data: b"x".to_vec(), end: true };
    let fields = [9, 8, 2, 0x10, 1, 0x1a, 1, b'x', 0x20, 1];
    assert_eq!(GuestMessage::StreamData(data.clone()).to_payload(), [&[0x52], &fields[..]].concat());
    assert_eq!(HostMessage::StreamData(data).to_payload(), [&[0x4a], &fields[..]].concat());
    let credit = StreamCredit { stream: 3, bytes: 300 };
    assert_eq!(HostMessage::StreamCredit(credit).to_payload(), [0x52, 5, 8, 3, 0x10, 0xac, 2]);
    assert_eq!(GuestMessage::StreamCredit(credit).to_payload(), [0x5a, 5, 8, 3, 0x10, 0xac, 2]);
    let size = Some(TerminalSize { rows: 24, columns: 80 });
    let resize = HostMessage::StreamResize(StreamResize { stream: 4, size });
    assert_eq!(resize.to_payload(), [0x5a, 8, 8, 4, 0x12, 4, 8, 24, 0x10, 80]);
    assert_eq!(HostMessage::StreamClose(StreamClose { stream: 5 }).to_payload(), [0x62, 2, 8, 5]);
    assert_eq!(GuestMessage::StreamOpened(StreamOpened { stream: 6 }).to_payload(), [0x4a, 2, 8, 6]);
    let closed =
        StreamClosed { stream: 7, end: StreamEnd::Failed.into(), exit_code: Some(2), message: "m".into() };
    let payload = GuestMessage::StreamClosed(closed).to_payload();
    assert_eq!(payload, [0x62, 9, 8, 7, 0x10, 3, 0x18, 2, 0x22, 1, b'm']);
}

#[test]
fn streams_are_bounded_in_both_directions() {
    let open = |kind| HostMessage::StreamOpen(StreamOpen { stream: 1, kind });
    let exec = |argv: &[&str]| {
        let argv = argv.iter().map(ToString::to_string).collect();
        open(Some(StreamKind::Exec(Exec { container: "main".into(), argv, tty: true, ..Exec::default() })))
    };
    round_trip(&exec(&["sh", "-c", ""]));
    check_refused(&open(None), "Field StreamOpen.kind: is missing");
    check_refused(&exec(&[]), "Field Exec.argv: holds no command");
    check_refused(&exec(&["a\0"]), "Field Exec.argv: holds a NUL byte");
    check_refused(&exec(&["a"; 5000]), "Field Exec.argv: is too long");
    let files = |path: &str| Files { container: "main".into(), path: path.into() };
    round_trip(&open(Some(StreamKind::ReadFiles(files("/etc")))));
    check_refused(&open(Some(StreamKind::WriteFiles(files("")))), "Field Files.path: is no path");
    let port = |port| open(Some(StreamKind::Connect(Connect { port, own_address: false })));
    check_refused(&port(65_536), "Field Connect.port: is no port");
    let data = |length| StreamData { data: vec![0; length], ..StreamData::default() };
    round_trip(&GuestMessage::StreamData(data(STREAM_DATA_LENGTH_MAX)));
    check_refused(
        &GuestMessage::StreamData(data(STREAM_DATA_LENGTH_MAX + 1)),
        "Field StreamData.data: 16385 bytes, the limit is 16384",
    );
    let odd = StreamData { part: 2, ..StreamData::default() };
    check_refused(&GuestMessage::StreamData(odd), "Field StreamData.part: unknown value 2");
    let odd = StreamClosed { end: 4, ..StreamClosed::default() };
    check_refused(&GuestMessage::StreamClosed(odd), "Field StreamClosed.end: unknown value 4");
    let long = StreamClosed { message: "m".repeat(TEXT_LENGTH_MAX + 1), ..StreamClosed::default() };
    check_refused(
        &GuestMessage::StreamClosed(long),
        "Field StreamClosed.message: 4097 bytes, the limit is 4096",
    );
}

#[test]
fn host_messages_round_trip() {
    round_trip(&HostMessage::Hello(host::Hello { protocol_version: PROTOCOL_VERSION, asks_by_https: true }));
    round_trip(&configure(|_| {}));
    round_trip(&HostMessage::Stop(host::Stop { grace_ms: Some(0) }));
    round_trip(&HostMessage::ResumeLogs(host::ResumeLogs { container: "app".into(), from_offset: u64::MAX }));
    round_trip(&HostMessage::Ping(host::Ping { number: 9 }));
}

#[test]
fn a_bad_pod_is_refused_with_its_field() {
    check_refused(&HostMessage::Configure(host::Configure { pod: None }), "Field Configure.pod: is missing");
    check_refused(&configure(|p| p.restart_policy = 0), "Field PodConfig.restart_policy: is not set");
    check_refused(&configure(|p| p.restart_policy = 9), "Field PodConfig.restart_policy: unknown value 9");
    check_refused(&configure(|p| p.containers.clear()), "Field PodConfig.containers: is empty");
    check_refused(
        &configure(|p| p.init_containers = p.containers.clone()),
        "Field ContainerConfig.name: is used twice in the pod",
    );
    check_refused(
        &configure(|p| p.containers[0].name = "../x".into()),
        "Field ContainerConfig.name: is no DNS-1123 label",
    );
    check_refused(
        &configure(|p| p.containers[0].argv.clear()),
        "Field ContainerConfig.argv: holds no command",
    );
    check_refused(
        &configure(|p| p.containers[0].working_dir = "tmp".into()),
        "Field ContainerConfig.working_dir: is not absolute",
    );
}

#[test]
fn a_hostile_guest_is_refused_with_the_field() {
    let chunk = |data: usize, offset| {
        GuestMessage::LogChunk(guest::LogChunk { data: vec![0; data], offset, ..Default::default() })
    };
    round_trip(&chunk(LOG_DATA_LENGTH_MAX, 0));
    check_refused(&chunk(LOG_DATA_LENGTH_MAX + 1, 0), "Field LogChunk.data: 32769 bytes, the limit is 32768");
    check_refused(&chunk(1, u64::MAX), "Field LogChunk.offset: is out of range");
    let state = guest::ContainerState { container: "a".repeat(64), ..Default::default() };
    check_refused(
        &GuestMessage::ContainerState(state),
        "Field ContainerState.container: 64 bytes, the limit is 63",
    );
    let state = guest::ContainerState { kind: 3, ..Default::default() };
    check_refused(&GuestMessage::ContainerState(state), "Field ContainerState.kind: unknown value 3");
    let gap = guest::LogGap { container: "a".into(), from_offset: 2, to_offset: 1 };
    check_refused(&GuestMessage::LogGap(gap), "Field LogGap.to_offset: 1 is before 2");
    assert!(matches!(decode::<GuestMessage>(&[]), Err(DecodeError::Unknown)));
    assert!(matches!(decode::<GuestMessage>(&[0x0a, 200]), Err(DecodeError::Malformed(_))));
}

proptest! {
    #[test]
    fn no_payload_panics(payload in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode::<GuestMessage>(&payload);
        let _ = decode::<HostMessage>(&payload);
    }

    #[test]
    fn log_chunks_round_trip(
        name in "[a-z0-9-]{1,63}", restart in any::<u32>(), stderr in any::<bool>(), offset in 0..u64::MAX / 2,
        time_ms in any::<u64>(), data in proptest::collection::vec(any::<u8>(), 0..1000),
    ) {
        round_trip(&GuestMessage::LogChunk(guest::LogChunk {
            container: name, restart, stream: i32::from(stderr), offset, time_ms, data,
        }));
    }

    #[test]
    fn states_round_trip(
        kind in 0..3_i32, exit_code in proptest::option::of(any::<i32>()), restart_count in any::<u32>(),
        message in "\\PC{0,100}", started_at_ms in any::<u64>(),
    ) {
        round_trip(&GuestMessage::ContainerState(guest::ContainerState {
            container: "app".into(), kind, exit_code, restart_count, message, started_at_ms, ..Default::default()
        }));
    }
}

#[test]
fn interfaces_have_golden_bytes_and_bounds() {
    let interface = host::InterfaceConfig {
        mac: "m".into(),
        address: "a".into(),
        gateway: "g".into(),
        mtu: 5,
        pci_port: "0".into(),
        name: "n".into(),
        more_addresses: vec!["x".into()],
        routes: vec![host::RouteConfig { destination: "d".into(), gateway: "r".into() }],
    };
    let with = |change: &dyn Fn(&mut host::InterfaceConfig)| {
        let mut interface = interface.clone();
        change(&mut interface);
        configure(|pod| pod.interfaces = vec![interface])
    };
    round_trip(&with(&|_| {}));
    let expected = [
        &[0x0a, 1, b'm', 0x12, 1, b'a', 0x1a, 1, b'g', 0x20, 5][..],
        &[0xe2, 3, 1, b'0', 0xea, 3, 1, b'n', 0xf2, 3, 1, b'x', 0xfa, 3, 6, 0x0a, 1, b'd', 0x12, 1, b'r'],
    ]
    .concat();
    assert_eq!(prost::Message::encode_to_vec(&interface), expected);
    round_trip(&with(&|one| (one.pci_port, one.name) = (String::new(), String::new())));
    check_refused(
        &with(&|one| one.name = "a/b".into()),
        "Field InterfaceConfig.name: is no name of an interface",
    );
    check_refused(
        &with(&|one| one.name = "n".repeat(16)),
        "Field InterfaceConfig.name: is no name of an interface",
    );
    check_refused(
        &with(&|one| one.pci_port = "../x".into()),
        "Field InterfaceConfig.pci_port: is no PCI address",
    );
    check_refused(
        &with(&|one| (one.mac, one.pci_port) = (String::new(), String::new())),
        "Field InterfaceConfig.mac: is empty, and pci_port too",
    );
    check_refused(
        &with(&|one| one.more_addresses = vec![String::new(); 65]),
        "Field InterfaceConfig.more_addresses: or routes are too many",
    );
    check_refused(
        &configure(|pod| pod.interfaces = vec![interface.clone(); 2]),
        "Field InterfaceConfig.name: is used twice in the pod",
    );
    let many: Vec<_> =
        (0..18).map(|n| host::InterfaceConfig { name: format!("n{n}"), ..interface.clone() }).collect();
    check_refused(&configure(|pod| pod.interfaces = many), "Field PodConfig.interfaces: are too many");
}

#[test]
fn golden_reseed() {
    let reseed = |length| host::Reseed { entropy: vec![7; length], unix_ms: 300 };
    let payload = HostMessage::Reseed(reseed(32)).to_payload();
    assert_eq!(payload, [&[0xb2, 2, 37, 0x0a, 32][..], &[7; 32], &[0x10, 0xac, 2]].concat());
    round_trip(&HostMessage::Reseed(reseed(256)));
    check_refused(&HostMessage::Reseed(reseed(31)), "Field Reseed.entropy: 31 bytes, at least 32 are needed");
    check_refused(&HostMessage::Reseed(reseed(257)), "Field Reseed.entropy: 257 bytes, the limit is 256");
    let failed = guest::Reseeded { error: "no".into() };
    assert_eq!(GuestMessage::Reseeded(failed).to_payload(), [0xb2, 2, 4, 0x0a, 2, b'n', b'o']);
    let hello = guest::Hello { reseeds: true, ..Default::default() };
    assert_eq!(GuestMessage::Hello(hello).to_payload(), [0x0a, 3, 0xf8, 5, 1]);
}

#[test]
fn what_is_handed_over_has_golden_bytes_and_bounds() {
    let ask = |container: &str, task| guest::AskHost { number: 5, container: container.into(), task };
    let liveness = guest::HostTask::Liveness as i32;
    round_trip(&GuestMessage::AskHost(ask("app", liveness)));
    assert_eq!(
        prost::Message::encode_to_vec(&ask("a", liveness)),
        [0x08, 5, 0x12, 1, b'a', 0x18, 2],
        "numbers are append-only"
    );
    check_refused(&GuestMessage::AskHost(ask("a", 5)), "Field AskHost.task: unknown value 5");
    check_refused(
        &GuestMessage::AskHost(ask(&"a".repeat(64), 0)),
        "Field AskHost.container: 64 bytes, the limit is 63",
    );
    let answer = |error: String| HostMessage::HostAnswer(host::HostAnswer { number: 5, error });
    round_trip(&answer("HTTP status 503".into()));
    check_refused(
        &answer("e".repeat(TEXT_LENGTH_MAX + 1)),
        "Field HostAnswer.error: 4097 bytes, the limit is 4096",
    );
    // Another variant than the plain one, so that no guest of an earlier version asks in the clear what should be asked by TLS.
    let http = host::HttpCheck { port: 443, path: "/".into(), headers: Vec::new() };
    let check = host::CheckConfig::of(host::Check::Https(http));
    assert_eq!(prost::Message::encode_to_vec(&check), [0x32, 6, 0x08, 0xbb, 3, 0x12, 1, b'/']);
}

#[test]
fn a_check_goes_to_the_pods_own_address_where_it_has_one() {
    let check = |own_address, interfaces: &[(&str, &str)], expected: &str| {
        let interface = |(name, address): &(&str, &str)| host::InterfaceConfig {
            name: (*name).into(),
            address: (*address).into(),
            ..Default::default()
        };
        let interfaces = interfaces.iter().map(interface).collect();
        let pod = host::PodConfig { interfaces, ..Default::default() };
        let tcp = host::Check::Tcp(host::TcpCheck { port: 1 });
        let check = host::CheckConfig { own_address, ..host::CheckConfig::of(tcp) };
        assert_eq!(check.asked(pod.own_address()).to_string(), expected, "{own_address}");
    };
    check(true, &[("net1", "10.2.0.2/24"), ("", "10.1.0.7/16")], "10.1.0.7");
    check(true, &[("eth0", "fd00::7/64")], "fd00::7");
    check(false, &[("eth0", "10.1.0.7/16")], "127.0.0.1");
    // No primary interface, one without an address, no network.
    check(true, &[("net1", "10.2.0.2/24")], "127.0.0.1");
    check(true, &[("eth0", "")], "127.0.0.1");
    check(true, &[], "127.0.0.1");
}

#[test]
fn volumes_are_held_still_by_name() {
    let wish = |volume: &str| host::FreezeVolume { volume: volume.into(), frozen: true, for_ms: 20_000 };
    round_trip(&HostMessage::FreezeVolume(wish("data")));
    check_refused(
        &HostMessage::FreezeVolume(wish("../data")),
        "Field FreezeVolume.volume: is no DNS-1123 label",
    );
    let said =
        |volume: &str| guest::VolumeFrozen { volume: volume.into(), frozen: false, error: "busy".into() };
    round_trip(&GuestMessage::VolumeFrozen(said("data")));
    check_refused(&GuestMessage::VolumeFrozen(said("")), "Field VolumeFrozen.volume: is no DNS-1123 label");
}
