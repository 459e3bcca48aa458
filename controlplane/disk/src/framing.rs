//! Records in a stream of chunks: each with its length before it, chunks cut anywhere.

/// Longest record: a single object is far below it.
pub(crate) const RECORD_BYTES_MAX: usize = 16 << 20;

/// Adds one record.
pub(crate) fn push(buffer: &mut Vec<u8>, record: &[u8]) {
    let length = u32::try_from(record.len()).expect("records are below 16 MiB");
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(record);
}

/// Cuts records out of a stream of bytes.
#[derive(Debug, Default)]
pub(crate) struct Unframer {
    buffer: Vec<u8>,
    at: usize,
}

impl Unframer {
    /// Takes more bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole record, if there is one.
    ///
    /// # Errors
    /// When a length is beyond all reason.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, &'static str> {
        let rest = &self.buffer[self.at..];
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > RECORD_BYTES_MAX {
            return Err("a record's length is beyond 16 MiB");
        }
        if rest.len() < length {
            return Ok(None);
        }
        let start = self.at + 4;
        self.at = start + length;
        Ok(Some(&self.buffer[start..start + length]))
    }

    /// Whether a record is cut off.
    pub(crate) fn is_inside(&self) -> bool {
        self.at < self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_any_cut() {
        let records: Vec<Vec<u8>> = (0..20u8).map(|n| vec![n; usize::from(n)]).collect();
        let mut stream = Vec::new();
        records.iter().for_each(|r| push(&mut stream, r));
        for chunk in 1..30 {
            let mut unframer = Unframer::default();
            let mut found = Vec::new();
            for bytes in stream.chunks(chunk) {
                unframer.feed(bytes);
                while let Some(record) = unframer.next().expect("sound") {
                    found.push(record.to_vec());
                }
            }
            assert_eq!(found, records, "chunks of {chunk}");
            assert!(!unframer.is_inside());
        }
    }

    #[test]
    fn absurd_lengths_are_refused() {
        let mut unframer = Unframer::default();
        unframer.feed(&[0xff; 8]);
        assert!(unframer.next().is_err());
    }
}
