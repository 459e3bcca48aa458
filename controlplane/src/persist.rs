//! The log thread: persist requests to disk, in order, several per flush.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bulkhead_controlplane_core::replica::Persist;
use bulkhead_controlplane_core::server::Input;
use bulkhead_controlplane_disk::to_batch;
use bulkhead_storage::{LogStore, StorageError};

use crate::handle::Handle;
use crate::metrics::Metrics;

/// How often a full disk is asked whether there is room again.
pub(crate) const SPACE_POLL: Duration = Duration::from_millis(500);
/// How long the thread waits for work before it asks a disk that nobody writes to whether there is room. A server whose
/// peers are all without room is asked to write nothing, and has to find out by itself.
const IDLE: Duration = Duration::from_secs(2);
/// Most requests under one flush.
const FLUSH_MAX: usize = 64;

/// Writes requests until the sender is gone. Ends with an error when the disk fails in a way that waiting
/// does not heal.
pub(crate) fn run(
    log: &mut dyn LogStore,
    requests: &Receiver<Persist>,
    handle: &Handle,
    metrics: &Metrics,
) -> Result<(), StorageError> {
    loop {
        let first = match requests.recv_timeout(IDLE) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => {
                if let Err(error) = log.check_space()
                    && wait_for_room(log, &error, handle)
                {
                    tell_of_room(handle);
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let batch: Vec<Persist> =
            std::iter::once(first).chain(requests.try_iter().take(FLUSH_MAX - 1)).collect();
        let started = Instant::now();
        for request in &batch {
            write(log, request, handle)?;
        }
        if batch.iter().any(|request| request.must_sync) {
            log.sync()?;
        }
        metrics.persisted(batch.len(), started.elapsed());
        let number = batch.iter().map(|request| request.number).max().unwrap_or(0);
        if number > 0 && handle.tell_blocking(Input::Persisted { number }).is_err() {
            return Ok(());
        }
    }
}

/// Writes one request. While the disk is full, the server is told (it steps down and refuses submissions) and
/// the request waits for room.
fn write(log: &mut dyn LogStore, request: &Persist, handle: &Handle) -> Result<(), StorageError> {
    let batch = to_batch(request);
    let mut waited = false;
    loop {
        match log.write(&batch) {
            Ok(()) => break,
            Err(error) if error.is_full() && error.is_refusal() => {
                // What waits here was acknowledged to nobody.
                if !wait_for_room(log, &error, handle) {
                    return Ok(());
                }
                waited = true;
            }
            Err(error) => return Err(error),
        }
    }
    if waited {
        tell_of_room(handle);
    }
    Ok(())
}

/// Tells the server that its disk is full, and waits until it is not; `false` when the server has ended before.
fn wait_for_room(log: &mut dyn LogStore, error: &StorageError, handle: &Handle) -> bool {
    tracing::error!(%error, "the disk is full: this server steps down and refuses writes until there is room");
    if handle.tell_blocking(Input::DiskFull(true)).is_err() {
        return false;
    }
    while log.check_space().is_err() {
        if handle.is_stopped() {
            return false;
        }
        std::thread::sleep(SPACE_POLL);
    }
    true
}

fn tell_of_room(handle: &Handle) {
    tracing::info!("the disk has room again");
    // When the node thread has ended there is nobody to tell.
    let _ = handle.tell_blocking(Input::DiskFull(false));
}
