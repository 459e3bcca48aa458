//! What a durable log write costs here: p50 and p99 of `write` + `sync` by batch size, and their rate.
//!
//! `cargo run --release -p bulkhead-storage --example fsync -- [directory] [entry bytes] [writes]`
//!
//! The directory should be on the disk in question; the default is the system's temporary one. Beside it, in the same
//! run, the floor: the same bytes appended to a plain file with one `fdatasync` each.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bulkhead_storage::{Identity, LogBatch, LogEntry, StorageError};

const BATCH_SIZES: [u64; 3] = [1, 16, 256];
const DEFAULT_ENTRY_BYTES: usize = 256;
const DEFAULT_WRITES: u64 = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let entry_bytes = arguments.next().map_or(Ok(DEFAULT_ENTRY_BYTES), |text| text.parse())?;
    let writes = arguments.next().map_or(Ok(DEFAULT_WRITES), |text| text.parse())?;
    let directory = directory.join(format!("bulkhead-fsync-{}", std::process::id()));
    println!("{writes} writes, {entry_bytes} bytes an entry, in {}", directory.display());
    println!("{:<12} {:>6} {:>10} {:>10} {:>12}", "what", "batch", "p50 µs", "p99 µs", "entries/s");
    let outcome = compare(&directory, entry_bytes, writes);
    std::fs::remove_dir_all(&directory)?;
    Ok(outcome?)
}

fn compare(directory: &Path, entry_bytes: usize, writes: u64) -> Result<(), StorageError> {
    let identity = Identity { cluster_id: [1; 16], member_id: 1, storage_uid: [1; 16] };
    let mut log = bulkhead_storage::open(directory, Some(identity))?.log;
    let mut next = log.load()?.last_index() + 1;
    for batch_size in BATCH_SIZES {
        let times = measure(writes, || {
            let entry = |index| LogEntry { index, bytes: vec![0xa5; entry_bytes] };
            let entries = (next..next + batch_size).map(entry).collect();
            next += batch_size;
            log.write(&LogBatch { hard_state: Some(vec![1; 24]), entries, ..LogBatch::default() })?;
            log.sync()
        })?;
        report("log", batch_size, times);
        log.write(&LogBatch { compact_to: Some(next - 1), ..LogBatch::default() })?;
        log.sync()?;
    }
    for batch_size in BATCH_SIZES {
        let failed =
            |error: std::io::Error| StorageError::Io { operation: "fdatasync", detail: error.to_string() };
        let mut file = File::create(directory.join("floor")).map_err(failed)?;
        let bytes = vec![0xa5; entry_bytes * usize::try_from(batch_size).expect("small")];
        let times =
            measure(writes, || file.write_all(&bytes).and_then(|()| file.sync_data()).map_err(failed))?;
        report("fdatasync", batch_size, times);
    }
    Ok(())
}

fn measure(
    writes: u64,
    mut write: impl FnMut() -> Result<(), StorageError>,
) -> Result<Vec<Duration>, StorageError> {
    (0..writes)
        .map(|_| {
            let start = Instant::now();
            write().map(|()| start.elapsed())
        })
        .collect()
}

fn report(what: &str, batch_size: u64, mut times: Vec<Duration>) {
    times.sort();
    let percentile = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_micros();
    let total: Duration = times.iter().sum();
    let entries = u32::try_from(times.len()).map_or(f64::NAN, f64::from)
        * f64::from(u32::try_from(batch_size).unwrap_or(0));
    let rate = entries / total.as_secs_f64();
    println!("{what:<12} {batch_size:>6} {:>10} {:>10} {rate:>12.0}", percentile(50), percentile(99));
}
