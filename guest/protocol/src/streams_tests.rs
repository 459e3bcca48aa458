use proptest::prelude::*;

use super::*;
use crate::guest::{StreamClosed as Closed, StreamData as Data};
use crate::stream::{Connect, Exec, STREAM_DATA_LENGTH_MAX, STREAM_WINDOW, StreamOpened};

fn exec() -> StreamKind {
    let argv = vec!["cat".to_owned()];
    StreamKind::Exec(Exec { container: "main".into(), argv, stdin: true, ..Exec::default() })
}

fn data(stream: u64, data: &[u8], end: bool) -> GuestMessage {
    GuestMessage::StreamData(Data { stream, part: 0, data: data.to_vec(), end })
}

fn said(host: &mut HostStreams) -> Vec<String> {
    std::iter::from_fn(|| host.next_message())
        .map(|message| match message {
            HostMessage::StreamOpen(open) => format!("open {}", open.stream),
            HostMessage::StreamData(data) => {
                let end = if data.end { " end" } else { "" };
                format!("{} {}{end}", data.stream, String::from_utf8_lossy(&data.data))
            }
            HostMessage::StreamCredit(credit) => format!("credit {} {}", credit.stream, credit.bytes),
            HostMessage::StreamResize(resize) => format!("resize {}", resize.stream),
            HostMessage::StreamClose(close) => format!("close {}", close.stream),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_command_reads_prints_and_ends() {
    let mut host = HostStreams::default();
    let one = host.open(exec()).expect("room");
    assert_eq!(host.write(one, b"in"), Some(2));
    host.resize(one, TerminalSize { rows: 2, columns: 3 });
    host.finish(one);
    assert_eq!(host.write(one, b"more"), None, "after the end");
    assert_eq!(said(&mut host), ["open 1", "resize 1", "1 in", "1  end"]);
    assert_eq!(host.hear(GuestMessage::StreamOpened(StreamOpened { stream: one })), Some(one));
    host.hear(data(one, b"out", false));
    let end = Closed { stream: one, exit_code: Some(3), ..Closed::default() };
    host.hear(GuestMessage::StreamClosed(end.clone()));
    assert_eq!(host.read(one), Some(StreamEvent::Opened));
    assert_eq!(host.read(one), Some(StreamEvent::Data(StreamPart::Output, b"out".to_vec())));
    assert_eq!(host.read(one), Some(StreamEvent::Closed(end)));
    host.abandon(one);
    assert_eq!(host.read(one), None);
    assert_eq!(said(&mut host), [""; 0]);
}

#[test]
fn streams_take_turns_and_one_that_is_stuck_holds_up_no_other() {
    let mut host = HostStreams::default();
    let (stuck, other) = (host.open(exec()).expect("room"), host.open(exec()).expect("room"));
    let big = vec![b'x'; 4 * STREAM_WINDOW];
    let mut taken = 0;
    while let Some(length @ 1..) = host.write(stuck, &big[taken..]) {
        taken += length;
    }
    assert!(taken < STREAM_WINDOW && taken > STREAM_WINDOW - 2 * STREAM_DATA_LENGTH_MAX, "{taken}");
    assert_eq!(host.write(other, b"hi"), Some(2));
    let order: Vec<String> = said(&mut host).iter().map(|text| text.chars().take(6).collect()).collect();
    assert_eq!(order[..4], ["open 1", "open 2", "1 xxxx", "2 hi"]);
    assert_eq!(host.write(stuck, b"x"), Some(0));
    host.hear(GuestMessage::StreamCredit(StreamCredit { stream: stuck, bytes: u32::MAX }));
    assert_eq!(host.write(stuck, &big), Some(STREAM_DATA_LENGTH_MAX), "more than a window is not believed");
}

#[test]
fn there_are_so_many_and_no_more() {
    let mut host = HostStreams::default();
    for number in 1..=COMMANDS_MAX as u64 {
        assert_eq!(host.open(exec()), Ok(number));
    }
    let refused = host.open(exec()).expect_err("too many").to_string();
    assert!(refused.starts_with("the pod has 32 commands open already"), "{refused}");
    let connection =
        host.open(StreamKind::Connect(Connect { port: 80, own_address: false })).expect("counted apart");
    // One of which the guest never heard is gone at once; another only when the guest confirms it.
    host.abandon(1);
    host.open(exec()).expect("room again");
    said(&mut host);
    host.abandon(2);
    assert!(host.open(exec()).is_err());
    assert_eq!(said(&mut host), ["close 2"]);
    host.hear(GuestMessage::StreamClosed(Closed { stream: 2, ..Closed::default() }));
    host.open(exec()).expect("room again");
    assert!(matches!(
        host.open(StreamKind::Connect(Connect { port: 0, own_address: false })),
        Err(OpenError::Invalid(DecodeError::Invalid { field: "Connect.port", .. }))
    ));
    host.end("the guest has ended");
    let Some(StreamEvent::Closed(closed)) = host.read(connection) else { panic!("closed") };
    assert_eq!(closed.message, "the guest has ended");
    assert_eq!(host.open(exec()), Err(OpenError::Over { why: "the guest has ended".to_owned() }));
}

#[test]
fn guests_that_do_not_know_how_to_attach_are_not_asked_to() {
    let attach =
        || StreamKind::Attach(crate::stream::Attach { container: "main".into(), ..Default::default() });
    let mut host = HostStreams::default();
    let refused = host.open(attach()).expect_err("it has not said so").to_string();
    assert!(refused.contains("does not know how to attach"), "{refused}");
    assert_eq!(said(&mut host), [""; 0]);
    host.set_can_attach(true);
    assert_eq!(host.open(attach()), Ok(1));
    assert_eq!(said(&mut host), ["open 1"]);
}

#[test]
fn a_guest_that_sends_more_than_its_window_loses_the_stream() {
    let mut host = HostStreams::default();
    let one = host.open(exec()).expect("room");
    said(&mut host);
    for _ in 0..100 {
        host.hear(data(one, &[7; STREAM_DATA_LENGTH_MAX], false));
    }
    assert!(host.held() <= STREAM_WINDOW);
    assert_eq!(said(&mut host), ["close 1"]);
    let last = std::iter::from_fn(|| host.read(one)).find(|event| matches!(event, StreamEvent::Closed(_)));
    let Some(StreamEvent::Closed(closed)) = last else { panic!("closed") };
    assert!(closed.message.contains("more was sent than there was room for"), "{closed:?}");
    // It counts until the guest has confirmed its end.
    host.abandon(one);
    assert!(host.read(one).is_some());
    host.hear(GuestMessage::StreamClosed(Closed { stream: one, ..Closed::default() }));
    assert_eq!(host.read(one), None);
}

/// The other end, as an honest guest is: what it got, and what it may send.
#[derive(Default)]
struct GuestEnd {
    incoming: Incoming,
    outgoing: Outgoing,
    got: Vec<u8>,
    sent: u64,
}

const STREAMS: usize = 3;

/// Two ends, and what is on the way between them.
struct Pair {
    host: HostStreams,
    ids: Vec<u64>,
    guests: BTreeMap<u64, GuestEnd>,
    down: VecDeque<HostMessage>,
    up: VecDeque<GuestMessage>,
    written: Vec<u64>,
    got: Vec<Vec<u8>>,
}

/// The n-th byte of a stream.
fn byte(n: u64) -> u8 {
    (n % 251) as u8
}

impl Pair {
    fn new() -> Self {
        let mut host = HostStreams::default();
        let ids: Vec<u64> = (0..STREAMS).map(|_| host.open(exec()).expect("room")).collect();
        said(&mut host);
        let guests = ids.iter().map(|id| (*id, GuestEnd::default())).collect();
        let (written, got) = (vec![0; STREAMS], vec![Vec::new(); STREAMS]);
        Self { host, ids, guests, down: VecDeque::new(), up: VecDeque::new(), written, got }
    }

    fn step(&mut self, op: u8, which: usize, length: usize) {
        let id = self.ids[which];
        let guest = self.guests.get_mut(&id).expect("there");
        match op {
            0 => {
                let bytes: Vec<u8> = (0..length as u64).map(|n| byte(self.written[which] + n)).collect();
                self.written[which] += self.host.write(id, &bytes).expect("open") as u64;
            }
            1 => self.down.extend(self.host.next_message()),
            2 => match self.down.pop_front() {
                Some(HostMessage::StreamData(data)) => {
                    let guest = self.guests.get_mut(&data.stream).expect("there");
                    let part = data.part();
                    guest.incoming.push(part, data.data, data.end).expect("the host keeps to the window");
                }
                Some(HostMessage::StreamCredit(credit)) => {
                    self.guests.get_mut(&credit.stream).expect("there").outgoing.grant(credit.bytes);
                }
                _ => {}
            },
            3 => {
                if let Some(front) = guest.incoming.front() {
                    let length = length.min(front.len());
                    guest.got.extend_from_slice(&front[..length]);
                    guest.incoming.consume(length);
                }
                if let Some(bytes) = guest.incoming.grant() {
                    self.up.push_back(GuestMessage::StreamCredit(StreamCredit { stream: id, bytes }));
                }
            }
            4 => {
                let length = guest.outgoing.room().min(length);
                if length > 0 {
                    guest.outgoing.spend(length);
                    let bytes: Vec<u8> = (0..length as u64).map(|n| byte(guest.sent + n)).collect();
                    guest.sent += length as u64;
                    self.up.push_back(data(id, &bytes, false));
                }
            }
            5 => drop(self.up.pop_front().map(|message| self.host.hear(message))),
            _ => match self.host.read(id) {
                Some(StreamEvent::Data(_, bytes)) => self.got[which].extend(bytes),
                None => {}
                other => panic!("an honest guest: {other:?}"),
            },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Between honest ends nothing is lost, reordered or stuck, whatever comes when, and no window is ever exceeded.
    #[test]
    fn law_all_bytes_arrive_in_order_and_within_the_window(
        ops in proptest::collection::vec((0..7_u8, 0..STREAMS, 1..40_000_usize), 0..400),
    ) {
        let mut pair = Pair::new();
        for (op, which, length) in ops {
            pair.step(op, which, length);
            prop_assert!(pair.host.held() <= 2 * STREAMS * STREAM_WINDOW);
            prop_assert!(pair.guests.values().all(|guest| guest.incoming.held() <= STREAM_WINDOW));
        }
        for round in 0..40 * STREAMS {
            [1, 1, 1, 2, 2, 2, 3, 5, 5, 5, 6].iter().for_each(|op| pair.step(*op, round % STREAMS, usize::MAX));
        }
        for which in 0..STREAMS {
            let guest = &pair.guests[&pair.ids[which]];
            prop_assert_eq!((guest.got.len() as u64, pair.got[which].len() as u64), (pair.written[which], guest.sent));
            for got in [&guest.got, &pair.got[which]] {
                prop_assert!(got.iter().enumerate().all(|(n, b)| *b == byte(n as u64)), "in order");
            }
        }
    }

    /// Whatever a guest says, the host holds no more than the windows of its streams.
    #[test]
    fn law_a_hostile_guest_makes_the_host_hold_no_more_than_its_windows(
        messages in proptest::collection::vec((0..80_u8, 0..6_u64, 0..STREAM_DATA_LENGTH_MAX, any::<bool>()), 0..300),
    ) {
        let mut pair = Pair::new();
        for (kind, stream, length, flag) in messages {
            pair.host.hear(match kind {
                0 => GuestMessage::StreamClosed(Closed { stream, ..Closed::default() }),
                1..10 => GuestMessage::StreamOpened(StreamOpened { stream }),
                10..20 => GuestMessage::StreamCredit(StreamCredit { stream, bytes: u32::MAX }),
                _ => data(stream, &vec![0; length], kind == 20),
            });
            let _ = pair.host.write(stream, &vec![0; length]);
            if flag {
                let _ = pair.host.next_message();
            }
            prop_assert!(pair.host.held() <= 2 * STREAMS * STREAM_WINDOW);
        }
    }
}
