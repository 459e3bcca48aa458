//! Messages survive a round trip, golden bytes stay as they are, and what breaks a bound is refused.

use bulkhead_guest_protocol::guest::{self, GuestMessage};
use bulkhead_guest_protocol::host::{self, HostMessage};
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
    let hello = HostMessage::Hello(host::Hello { protocol_version: 1 });
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
fn host_messages_round_trip() {
    round_trip(&HostMessage::Hello(host::Hello { protocol_version: PROTOCOL_VERSION }));
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
