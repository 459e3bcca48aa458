//! The bounded store of a container's output until the host has acknowledged it.
//!
//! ```text
//!   acked ≤ start ≤ cursor ≤ end        (offsets; one count for both streams and all instances)
//!     │  lost  │ sent   │ to send │
//! ```

use std::collections::VecDeque;

use bulkhead_guest_protocol::guest::{GuestMessage, LogChunk, LogGap, LogStream};
use bulkhead_guest_protocol::{LOG_DATA_LENGTH_MAX, LOG_RING_LENGTH_MAX};

/// What an entry costs beside its data, so that a container that writes single bytes cannot outgrow the bound.
const ENTRY_OVERHEAD: usize = 64;

/// Output closer together than this, of one stream, shares one entry and one time stamp.
const COALESCE_MS: u64 = 10;

#[derive(Debug)]
struct Entry {
    offset: u64,
    restart: u32,
    stream: LogStream,
    time_ms: u64,
    data: Vec<u8>,
}

impl Entry {
    fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }
}

/// Output of one container.
#[derive(Debug)]
pub(crate) struct LogRing {
    container: String,
    entries: VecDeque<Entry>,
    length: usize,
    /// The host has everything before this.
    acked: u64,
    /// The next offset to send.
    cursor: u64,
    /// The next offset to store.
    end: u64,
}

impl LogRing {
    pub(crate) fn new(container: &str) -> Self {
        Self { container: container.into(), entries: VecDeque::new(), length: 0, acked: 0, cursor: 0, end: 0 }
    }

    /// Stores output, and drops the oldest where the bound asks for it.
    pub(crate) fn push(&mut self, restart: u32, stream: LogStream, time_ms: u64, data: &[u8]) {
        for data in data.chunks(LOG_DATA_LENGTH_MAX) {
            self.push_chunk(restart, stream, time_ms, data);
        }
        while self.length > LOG_RING_LENGTH_MAX {
            self.drop_oldest();
        }
    }

    /// True if a further read would drop data that the host has not acknowledged.
    pub(crate) fn is_full(&self) -> bool {
        self.length + LOG_DATA_LENGTH_MAX + ENTRY_OVERHEAD > LOG_RING_LENGTH_MAX
    }

    /// The host has everything before `up_to`.
    pub(crate) fn ack(&mut self, up_to: u64) {
        self.acked = self.acked.max(up_to.min(self.end));
        while self.entries.front().is_some_and(|entry| entry.end() <= self.acked) {
            self.drop_oldest();
        }
        self.cursor = self.cursor.max(self.acked);
    }

    /// Send again from here.
    pub(crate) fn resume(&mut self, from: u64) {
        self.cursor = from.min(self.end);
    }

    /// Send everything again that is not acknowledged.
    pub(crate) fn rewind(&mut self) {
        self.cursor = self.acked;
    }

    /// True if the host has everything.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.acked == self.end
    }

    /// The next thing to send: a gap, or a chunk.
    pub(crate) fn next_message(&mut self) -> Option<GuestMessage> {
        if self.cursor == self.end {
            return None;
        }
        let start = self.entries.front().map_or(self.end, |entry| entry.offset);
        if self.cursor < start {
            let gap =
                LogGap { container: self.container.clone(), from_offset: self.cursor, to_offset: start };
            self.cursor = start;
            return Some(GuestMessage::LogGap(gap));
        }
        let after = self.entries.partition_point(|entry| entry.offset <= self.cursor);
        let entry = &self.entries[after - 1];
        let skip = usize::try_from(self.cursor - entry.offset).expect("an entry is small");
        let chunk = LogChunk {
            container: self.container.clone(),
            restart: entry.restart,
            stream: entry.stream as i32,
            offset: self.cursor,
            time_ms: entry.time_ms,
            data: entry.data[skip..].to_vec(),
        };
        self.cursor = entry.end();
        Some(GuestMessage::LogChunk(chunk))
    }

    fn push_chunk(&mut self, restart: u32, stream: LogStream, time_ms: u64, data: &[u8]) {
        let offset = self.end;
        self.end += data.len() as u64;
        self.length += data.len();
        if let Some(last) = self.entries.back_mut()
            && (last.restart, last.stream) == (restart, stream)
            && time_ms.saturating_sub(last.time_ms) < COALESCE_MS
            && last.data.len() + data.len() <= LOG_DATA_LENGTH_MAX
        {
            last.data.extend_from_slice(data);
            return;
        }
        self.length += ENTRY_OVERHEAD;
        self.entries.push_back(Entry { offset, restart, stream, time_ms, data: data.to_vec() });
    }

    fn drop_oldest(&mut self) {
        let entry = self.entries.pop_front().expect("the ring is not empty");
        self.length -= entry.data.len() + ENTRY_OVERHEAD;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Everything the ring wants to send, in short.
    fn drain(ring: &mut LogRing) -> Vec<String> {
        std::iter::from_fn(|| ring.next_message())
            .map(|message| match message {
                GuestMessage::LogChunk(c) => {
                    let stream = if c.stream() == LogStream::Stdout { "out" } else { "err" };
                    format!("{stream}#{} {} {}", c.restart, c.offset, String::from_utf8_lossy(&c.data))
                }
                GuestMessage::LogGap(g) => format!("gap {}..{}", g.from_offset, g.to_offset),
                other => panic!("no log message: {other:?}"),
            })
            .collect()
    }

    #[test]
    fn chunks_come_in_order_and_close_ones_share_an_entry() {
        let mut ring = LogRing::new("app");
        ring.push(0, LogStream::Stdout, 100, b"one");
        ring.push(0, LogStream::Stdout, 105, b"two");
        ring.push(0, LogStream::Stderr, 106, b"bad");
        ring.push(1, LogStream::Stderr, 107, b"x");
        ring.push(1, LogStream::Stderr, 207, b"y");
        assert_eq!(drain(&mut ring), ["out#0 0 onetwo", "err#0 6 bad", "err#1 9 x", "err#1 10 y"]);
        assert_eq!(drain(&mut ring), [""; 0]);
    }

    #[test]
    fn a_host_resumes_from_an_offset_or_from_what_it_acknowledged() {
        let mut ring = LogRing::new("app");
        ring.push(0, LogStream::Stdout, 0, b"0123456789");
        drain(&mut ring);
        ring.ack(4);
        assert!(!ring.is_acknowledged());
        ring.rewind();
        assert_eq!(drain(&mut ring), ["out#0 4 456789"]);
        ring.resume(7);
        assert_eq!(drain(&mut ring), ["out#0 7 789"]);
        ring.resume(u64::MAX);
        assert_eq!(drain(&mut ring), [""; 0]);
        ring.ack(u64::MAX);
        assert!(ring.is_acknowledged());
        ring.resume(2);
        assert_eq!(drain(&mut ring), ["gap 2..10"], "forgotten after the acknowledgement");
    }

    #[test]
    fn overflow_drops_the_oldest_and_tells() {
        let mut ring = LogRing::new("app");
        for number in 0..100_u64 {
            ring.push(0, LogStream::Stdout, number * 100, &[b'x'; LOG_DATA_LENGTH_MAX]);
        }
        assert!(ring.is_full());
        let messages = drain(&mut ring);
        let kept = LOG_RING_LENGTH_MAX / (LOG_DATA_LENGTH_MAX + ENTRY_OVERHEAD);
        assert_eq!(messages.len(), kept + 1);
        assert_eq!(messages[0], format!("gap 0..{}", (100 - kept) * LOG_DATA_LENGTH_MAX));
    }

    #[test]
    fn single_bytes_cannot_outgrow_the_bound() {
        let mut ring = LogRing::new("app");
        for number in 0..200_000_u64 {
            ring.push(0, LogStream::Stdout, number * 100, b"x");
        }
        assert!(ring.entries.len() <= LOG_RING_LENGTH_MAX / ENTRY_OVERHEAD);
    }

    proptest! {
        /// Whatever is pushed, acknowledged and resumed: what was not dropped arrives once and in order.
        #[test]
        fn nothing_is_lost_without_a_gap(ops in proptest::collection::vec((0..4_u8, 1..60_000_usize), 1..80)) {
            let mut ring = LogRing::new("app");
            let (mut pushed, mut received) = (0_u64, 0_u64);
            for (number, (op, length)) in ops.into_iter().enumerate() {
                match op {
                    0 | 1 => { ring.push(0, LogStream::Stdout, number as u64 * 7, &vec![0; length]); pushed += length as u64; }
                    2 => ring.ack(received),
                    _ => { ring.rewind(); ring.resume(received); }
                }
                if op == 1 || number % 3 == 0 {
                    while let Some(message) = ring.next_message() {
                        let (from, to) = match message {
                            GuestMessage::LogChunk(c) => (c.offset, c.offset + c.data.len() as u64),
                            GuestMessage::LogGap(g) => (g.from_offset, g.to_offset),
                            other => panic!("{other:?}"),
                        };
                        prop_assert_eq!(from, received);
                        received = to;
                    }
                    prop_assert_eq!(received, pushed);
                }
            }
        }
    }
}
