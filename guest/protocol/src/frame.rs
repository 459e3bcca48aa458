//! Frames: a header with its own checksum, then the payload.
//!
//! ```text
//!  0        4          8                12               16
//!  ├─"BKHD"─┼─length──┼─crc32c(payload)─┼─crc32c(0..12)──┼─ payload: length bytes …
//! ```
//! Integers are little-endian. A port that is opened in the middle of a frame, or a writer that died in one, leaves
//! garbage in the stream; the magic and the header's checksum let the reader find the next header behind it.

use crate::{FRAME_LENGTH_MAX, FrameError};

/// Bytes in front of every payload.
pub const FRAME_HEADER_LENGTH: usize = 16;

const MAGIC: [u8; 4] = *b"BKHD";

/// After this many failed checksums in a row the reader skips whole frames instead of looking inside them. It bounds
/// the work that a hostile peer causes with nested headers to this many checksums over each byte.
const RESCANS_MAX: u32 = 16;

/// Appends one frame with this payload to `out`.
///
/// # Errors
/// [`FrameError::TooLong`] if the payload is longer than [`FRAME_LENGTH_MAX`]; nothing is appended then.
pub fn append_frame(payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    if payload.len() > FRAME_LENGTH_MAX {
        return Err(FrameError::TooLong { length: payload.len(), limit: FRAME_LENGTH_MAX });
    }
    let length = u32::try_from(payload.len()).expect("FRAME_LENGTH_MAX fits in 32 bits");
    let mut header = [0; FRAME_HEADER_LENGTH];
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8..12].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    let check = crc32c::crc32c(&header[..12]);
    header[12..].copy_from_slice(&check.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    Ok(())
}

/// Cuts a byte stream into payloads. It does no IO: push what was read, then take frames until `None`.
///
/// Holds at most one incomplete frame (16 bytes + [`FRAME_LENGTH_MAX`]) plus the last push, provided the caller takes
/// all frames after each push.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    /// Start of the unread bytes in `buffer`.
    start: usize,
    /// Failed payload checksums since the last good frame.
    rescans: u32,
}

/// What stands at the start of the unread bytes.
enum Head {
    /// Not enough bytes to say.
    Incomplete,
    /// Skip this many bytes, they are no header.
    Garbage(usize),
    /// A header that passed its own check.
    Frame { length: usize, checksum: u32 },
}

impl FrameReader {
    /// A reader at the start of a stream, or anywhere in one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes as they came from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next payload, an error for something that was skipped, or `None` until more bytes are pushed.
    pub fn next_frame(&mut self) -> Option<Result<Vec<u8>, FrameError>> {
        match self.head() {
            Head::Incomplete => None,
            Head::Garbage(bytes) => {
                self.start += bytes;
                Some(Err(FrameError::Garbage { bytes }))
            }
            Head::Frame { length, .. } if length > FRAME_LENGTH_MAX => {
                self.start += 1;
                Some(Err(FrameError::TooLong { length, limit: FRAME_LENGTH_MAX }))
            }
            Head::Frame { length, checksum } => self.take_payload(length, checksum),
        }
    }

    /// True while a part of a frame waits for its rest.
    pub fn is_partial(&self) -> bool {
        self.start < self.buffer.len()
    }

    /// Gives up on the incomplete frame at the head, because its writer is known to be gone, and looks for a header
    /// behind it. Later frames that were swallowed as its payload come out of [`Self::next_frame`] again.
    pub fn abandon_partial(&mut self) {
        if self.is_partial() {
            self.start += 1;
        }
    }

    fn take_payload(&mut self, length: usize, checksum: u32) -> Option<Result<Vec<u8>, FrameError>> {
        let from = self.start + FRAME_HEADER_LENGTH;
        let payload = self.buffer.get(from..from + length)?;
        if crc32c::crc32c(payload) == checksum {
            let payload = payload.to_vec();
            self.start = from + length;
            self.rescans = 0;
            return Some(Ok(payload));
        }
        self.rescans += 1;
        self.start += if self.rescans <= RESCANS_MAX { 1 } else { FRAME_HEADER_LENGTH + length };
        Some(Err(FrameError::Checksum { length }))
    }

    fn head(&self) -> Head {
        let unread = &self.buffer[self.start..];
        if unread.is_empty() {
            return Head::Incomplete;
        }
        match find_magic(unread) {
            0 => {}
            garbage => return Head::Garbage(garbage),
        }
        let Some(header) = unread.first_chunk::<FRAME_HEADER_LENGTH>() else { return Head::Incomplete };
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if crc32c::crc32c(&header[..12]) != word(12) {
            return Head::Garbage(1 + find_magic(&unread[1..]));
        }
        Head::Frame { length: word(4) as usize, checksum: word(8) }
    }
}

/// Position of the first magic, or of a tail that may become one, or the length.
fn find_magic(bytes: &[u8]) -> usize {
    (0..bytes.len())
        .find(|&at| {
            let rest = &bytes[at..];
            let known = rest.len().min(MAGIC.len());
            rest[..known] == MAGIC[..known]
        })
        .unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        append_frame(payload, &mut out).expect("short enough");
        out
    }

    /// Everything that comes out when the stream arrives in pieces of `step` bytes.
    fn read(stream: &[u8], step: usize) -> (Vec<Vec<u8>>, Vec<FrameError>) {
        let mut reader = FrameReader::new();
        let (mut frames, mut errors) = (Vec::new(), Vec::new());
        for piece in stream.chunks(step) {
            reader.push(piece);
            while let Some(item) = reader.next_frame() {
                match item {
                    Ok(payload) => frames.push(payload),
                    Err(error) => errors.push(error),
                }
            }
        }
        (frames, errors)
    }

    fn check(stream: &[u8], frames: &[&[u8]], errors: &[FrameError]) {
        let (got, failed) = read(stream, stream.len().max(1));
        assert_eq!(got, frames);
        assert_eq!(failed, errors);
        assert_eq!(read(stream, 1).0, frames, "byte by byte");
    }

    #[test]
    fn golden_frame() {
        assert_eq!(
            frame(b"abc"),
            [
                b"BKHD".as_slice(),
                &[3, 0, 0, 0],
                &0x364b_3fb7_u32.to_le_bytes(),
                &crc32c::crc32c(b"BKHD\x03\0\0\0\xb7\x3f\x4b\x36").to_le_bytes(),
                b"abc",
            ]
            .concat()
        );
    }

    #[test]
    fn whole_frames_and_garbage_between_them() {
        check(&[frame(b"one"), frame(b""), frame(b"two")].concat(), &[b"one", b"", b"two"], &[]);
        check(
            &[b"noise".to_vec(), frame(b"one"), b"BKH".to_vec(), frame(b"two")].concat(),
            &[b"one", b"two"],
            &[FrameError::Garbage { bytes: 5 }, FrameError::Garbage { bytes: 3 }],
        );
    }

    #[test]
    fn a_flipped_bit_costs_one_frame() {
        let mut damaged = frame(b"one");
        *damaged.last_mut().expect("not empty") ^= 1;
        check(
            &[damaged, frame(b"two")].concat(),
            &[b"two"],
            &[FrameError::Checksum { length: 3 }, FrameError::Garbage { bytes: 18 }],
        );
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_it_is_awaited() {
        let mut header = [b"BKHD".as_slice(), &u32::MAX.to_le_bytes(), &[0; 4]].concat();
        let check_word = crc32c::crc32c(&header).to_le_bytes();
        header.extend_from_slice(&check_word);
        let (frames, errors) = read(&[header, frame(b"two")].concat(), 7);
        assert_eq!(frames, [b"two"]);
        assert_eq!(errors[0], FrameError::TooLong { length: u32::MAX as usize, limit: FRAME_LENGTH_MAX });
        let too_long = vec![0; FRAME_LENGTH_MAX + 1];
        assert!(matches!(append_frame(&too_long, &mut Vec::new()), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn an_abandoned_partial_frame_gives_back_what_it_swallowed() {
        let mut reader = FrameReader::new();
        reader.push(&frame(&[7; 1000])[..100]);
        reader.push(&frame(b"hello again"));
        assert_eq!(reader.next_frame(), None);
        assert!(reader.is_partial());
        reader.abandon_partial();
        assert_eq!(reader.next_frame(), Some(Err(FrameError::Garbage { bytes: 99 })));
        assert_eq!(reader.next_frame(), Some(Ok(b"hello again".to_vec())));
        assert!(!reader.is_partial());
    }

    #[test]
    fn nested_headers_do_not_multiply_the_work() {
        // Each header claims a payload that reaches far beyond the next header and has a wrong checksum.
        let mut header = [b"BKHD".as_slice(), &600_000_u32.to_le_bytes(), &[9; 4]].concat();
        let check_word = crc32c::crc32c(&header).to_le_bytes();
        header.extend_from_slice(&check_word);
        let stream = header.repeat(80_000);
        let (frames, errors) = read(&stream, stream.len());
        assert!(frames.is_empty());
        let checksums = errors.iter().filter(|e| matches!(e, FrameError::Checksum { .. })).count();
        assert!(checksums <= RESCANS_MAX as usize + stream.len() / 600_000 + 1, "{checksums}");
    }

    proptest! {
        #[test]
        fn any_split_and_any_garbage_gives_the_frames_back(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
            // Without the first letter of the magic, so that garbage is no header by accident.
            garbage in proptest::collection::vec(prop_oneof![0_u8..b'B', b'C'..=255], 0..50),
            step in 1_usize..64,
        ) {
            let mut stream = Vec::new();
            for payload in &payloads {
                stream.extend_from_slice(&garbage);
                append_frame(payload, &mut stream).expect("short enough");
            }
            prop_assert_eq!(read(&stream, step).0, payloads);
        }

        #[test]
        fn no_stream_panics_or_stalls(stream in proptest::collection::vec(
            prop_oneof![Just(b'B'), Just(b'K'), Just(b'H'), Just(b'D'), any::<u8>()], 0..400), step in 1_usize..100) {
            read(&stream, step);
        }
    }
}
