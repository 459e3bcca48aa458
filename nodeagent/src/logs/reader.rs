//! Reading output, from a place on, and going on with it.

use std::fs::File;
use std::io::{self, BufReader, Seek as _};
use std::path::PathBuf;

use tokio::sync::{mpsc, watch};

use super::store::{Progress, segments};
use super::{PodLogs, Record, Run};

/// What a client wants to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// The run before the current one.
    pub(crate) previous: bool,
    /// Go on until the run ends.
    pub(crate) follow: bool,
    /// Only the last lines.
    pub(crate) tail_lines: Option<u64>,
    /// Only output since this time, milliseconds since the epoch.
    pub(crate) since_ms: u64,
}

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// No such run.
    #[error("{0}")]
    NoRun(&'static str),
    /// A file operation failed.
    #[error("cannot read the log")]
    Io(#[from] io::Error),
}

/// A place in the segments.
struct Cursor {
    dir: PathBuf,
    /// Sequence of the segment, and the length that was read of it.
    sequence: u64,
    length: u64,
    run: Run,
}

/// What comes from now on of the run that is there now.
pub(crate) struct FromNowOn {
    cursor: Cursor,
    progress: watch::Receiver<Progress>,
}

impl FromNowOn {
    /// # Errors
    /// [`ReadError`], also when the container has not started yet.
    pub(crate) fn of(logs: &PodLogs, container: &str) -> Result<Self, ReadError> {
        let mut progress = logs.watch(container)?;
        let run = progress.borrow_and_update().run;
        if run == Run::default() {
            return Err(ReadError::NoRun("the container has not started yet"));
        }
        let mut cursor = Cursor { dir: logs.container_dir(container), sequence: 0, length: 0, run };
        cursor.read()?;
        Ok(Self { cursor, progress })
    }

    /// Sends it until the run ends, or nobody receives.
    pub(crate) async fn send(self, sender: mpsc::Sender<Record>) -> Result<(), ReadError> {
        follow(self.cursor, self.progress, &sender).await
    }
}

/// Sends the records of a run, and then, with `follow`, new ones until it ends. Ends early when nobody receives.
pub(crate) async fn read(
    logs: PodLogs,
    container: String,
    selection: Selection,
    sender: mpsc::Sender<Record>,
) -> Result<(), ReadError> {
    let mut progress = logs.watch(&container)?;
    let start = *progress.borrow_and_update();
    if start.run == Run::default() {
        return Err(ReadError::NoRun("the container has not started yet"));
    }
    let run = if selection.previous { previous(&logs, &container, start.run)? } else { start.run };
    let mut cursor = Cursor { dir: logs.container_dir(&container), sequence: 0, length: 0, run };
    let mut first: Vec<Record> = cursor.read()?;
    first.retain(|record| record.time_ms >= selection.since_ms);
    if let Some(lines) = selection.tail_lines {
        tail(&mut first, lines);
    }
    for record in first {
        if sender.send(record).await.is_err() {
            return Ok(());
        }
    }
    if !selection.follow || selection.previous {
        return Ok(());
    }
    follow(cursor, progress, &sender).await
}

async fn follow(
    mut cursor: Cursor,
    mut progress: watch::Receiver<Progress>,
    sender: &mpsc::Sender<Record>,
) -> Result<(), ReadError> {
    loop {
        let now = *progress.borrow_and_update();
        for record in cursor.read()? {
            if sender.send(record).await.is_err() {
                return Ok(());
            }
        }
        if now.ended || now.run != cursor.run {
            return Ok(());
        }
        tokio::select! {
            changed = progress.changed() => if changed.is_err() { return Ok(()) },
            () = sender.closed() => return Ok(()),
        }
    }
}

fn previous(logs: &PodLogs, container: &str, current: Run) -> Result<Run, ReadError> {
    let mut found = None;
    for (_, _, path) in segments(&logs.container_dir(container))? {
        let mut file = BufReader::new(File::open(path)?);
        while let Some(record) = Record::read(&mut file)? {
            if record.run < current {
                found = found.max(Some(record.run));
            }
        }
    }
    found.ok_or(ReadError::NoRun("the container was not restarted, or the output before is gone"))
}

impl Cursor {
    /// The records of the run that are there now and were not read.
    fn read(&mut self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for (guest, sequence, path) in segments(&self.dir)? {
            if sequence < self.sequence || guest != self.run.guest {
                continue;
            }
            let mut file = match File::open(path) {
                // Pruned meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            if sequence > self.sequence {
                (self.sequence, self.length) = (sequence, 0);
            }
            file.seek(io::SeekFrom::Start(self.length))?;
            let mut file = Counting { inner: BufReader::new(file), count: 0 };
            while let Some(record) = Record::read(&mut file)? {
                self.length += std::mem::take(&mut file.count);
                if record.run == self.run {
                    records.push(record);
                }
            }
        }
        Ok(records)
    }
}

/// Counts what is read, so that a record that is cut off is read again later.
struct Counting<R> {
    inner: R,
    count: u64,
}

impl<R: io::Read> io::Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.count += length as u64;
        Ok(length)
    }
}

/// Keeps the last lines; a last line without its end counts as one.
fn tail(records: &mut Vec<Record>, lines: u64) {
    let mut left = lines;
    let ends_open = records.last().is_some_and(|record| record.data.last() != Some(&b'\n'));
    if ends_open && left > 0 {
        left -= 1;
    }
    // The newline that ends the last line is not one before it.
    let mut skip_newline = !ends_open;
    for index in (0..records.len()).rev() {
        let data = &records[index].data;
        for at in (0..data.len()).rev() {
            if data[at] != b'\n' {
                continue;
            }
            if std::mem::take(&mut skip_newline) && left > 0 {
                left -= 1;
                continue;
            }
            if left == 0 {
                let cut = at + 1;
                records[index].data.drain(..cut);
                records[index].offset += cut as u64;
                records.drain(..index);
                records.retain(|record| !record.data.is_empty());
                return;
            }
            left -= 1;
        }
    }
    if lines == 0 {
        records.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::{LogLimits, LogStore};
    use bulkhead_types::ObjectId;

    fn record(guest: u32, restart: u32, offset: u64, data: &str) -> Record {
        let run = Run { guest, restart };
        Record { stderr: false, run, time_ms: 1000 + offset, offset, data: data.as_bytes().to_vec() }
    }

    async fn text(logs: &PodLogs, selection: Selection) -> Result<String, ReadError> {
        let (sender, mut receiver) = mpsc::channel(10_000);
        read(logs.clone(), "main".to_owned(), selection, sender).await?;
        let mut bytes = Vec::new();
        while let Some(record) = receiver.recv().await {
            bytes.extend(record.data);
        }
        Ok(String::from_utf8(bytes).expect("text"))
    }

    fn logs(dir: &std::path::Path) -> PodLogs {
        LogStore::default().pod(ObjectId(1), dir)
    }

    #[tokio::test]
    async fn output_that_comes_twice_is_kept_once_also_after_a_restart_of_the_agent() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = logs(dir.path());
        assert_eq!(first.append("main", record(1, 0, 0, "one\n")).expect("written"), 4);
        assert_eq!(first.append("main", record(1, 0, 2, "e\ntwo\n")).expect("written"), 8);
        let second = logs(dir.path());
        assert_eq!(second.next_offset("main", 1).expect("known"), 8);
        assert_eq!(second.append("main", record(1, 0, 0, "one\ntwo\n")).expect("written"), 8);
        assert_eq!(second.append("main", record(1, 0, 8, "three\n")).expect("written"), 14);
        assert_eq!(text(&second, Selection::default()).await.expect("read"), "one\ntwo\nthree\n");
    }

    #[tokio::test]
    async fn the_previous_run_can_be_read() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let logs = logs(dir.path());
        let previous = Selection { previous: true, ..Selection::default() };
        assert!(text(&logs, Selection::default()).await.is_err(), "nothing has started");
        logs.append("main", record(1, 0, 0, "a\n")).expect("written");
        assert!(text(&logs, previous).await.is_err(), "nothing was restarted");
        logs.append("main", record(1, 1, 2, "b\n")).expect("written");
        assert_eq!(text(&logs, previous).await.expect("read"), "a\n");
        logs.append("main", record(2, 0, 0, "c\n")).expect("written");
        assert_eq!(text(&logs, previous).await.expect("read"), "b\n");
        assert_eq!(text(&logs, Selection::default()).await.expect("read"), "c\n");
    }

    #[tokio::test]
    async fn tails_and_times() {
        let check = async |chunks: &[&str], lines, expected: &str| {
            let dir = tempfile::tempdir().expect("temporary directory");
            let logs = logs(dir.path());
            let mut offset = 0;
            for chunk in chunks {
                offset = logs.append("main", record(1, 0, offset, chunk)).expect("written");
            }
            let selection = Selection { tail_lines: Some(lines), ..Selection::default() };
            assert_eq!(text(&logs, selection).await.expect("read"), expected, "{chunks:?} {lines}");
        };
        check(&["a\nb\nc\n"], 2, "b\nc\n").await;
        check(&["a\nb\nc\n"], 0, "").await;
        check(&["a\nb\nc\n"], 9, "a\nb\nc\n").await;
        check(&["a\nb", "b\nc"], 2, "bb\nc").await;
        check(&["a\n", "b\n", "c\n"], 1, "c\n").await;
        check(&["a\n", "b\n", "c\n"], 3, "a\nb\nc\n").await;
        let dir = tempfile::tempdir().expect("temporary directory");
        let logs = logs(dir.path());
        logs.append("main", record(1, 0, 0, "a\n")).expect("written");
        logs.append("main", record(1, 0, 2, "b\n")).expect("written");
        let since = Selection { since_ms: 1002, ..Selection::default() };
        assert_eq!(text(&logs, since).await.expect("read"), "b\n");
    }

    #[tokio::test]
    async fn followers_see_what_comes_until_the_run_ends() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let logs = logs(dir.path());
        logs.append("main", record(1, 0, 0, "a\n")).expect("written");
        let (sender, mut receiver) = mpsc::channel(1);
        let selection = Selection { follow: true, ..Selection::default() };
        let reading = tokio::spawn(read(logs.clone(), "main".to_owned(), selection, sender));
        assert_eq!(receiver.recv().await.expect("output").data, b"a\n");
        logs.append("main", record(1, 0, 2, "b\n")).expect("written");
        assert_eq!(receiver.recv().await.expect("output").data, b"b\n");
        logs.ended("main", Run { guest: 1, restart: 0 });
        assert_eq!(receiver.recv().await, None);
        reading.await.expect("no panic").expect("read");
    }

    #[tokio::test]
    async fn from_now_on_is_what_was_not_there_when_it_was_asked_for() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let logs = logs(dir.path());
        assert!(FromNowOn::of(&logs, "main").is_err(), "nothing has started");
        logs.append("main", record(1, 0, 0, "before")).expect("written");
        let follower = FromNowOn::of(&logs, "main").expect("it runs");
        logs.append("main", record(1, 0, 6, "at once")).expect("written");
        let (sender, mut receiver) = mpsc::channel(1);
        let reading = tokio::spawn(follower.send(sender));
        assert_eq!(receiver.recv().await.expect("output").data, b"at once");
        logs.append("main", record(1, 1, 13, "another run")).expect("written");
        assert_eq!(receiver.recv().await, None);
        reading.await.expect("no panic").expect("read");
    }

    #[tokio::test]
    async fn endless_output_is_bounded() {
        for limits in [LogLimits::default(), LogLimits { file_bytes: 1 << 20, files: 2 }] {
            let dir = tempfile::tempdir().expect("temporary directory");
            let logs = LogStore::new(limits).pod(ObjectId(1), dir.path());
            let chunk = "x".repeat(32 << 10);
            let mut offset = 0;
            for _ in 0..600 {
                offset = logs.append("main", record(1, 0, offset, &chunk)).expect("written");
            }
            let kept = text(&logs, Selection::default()).await.expect("read").len() as u64;
            let (most, least) = (limits.file_bytes * u64::from(limits.files), limits.file_bytes / 2);
            assert!(kept <= most, "{limits:?}: {kept}");
            assert!(kept >= most - limits.file_bytes - least, "{limits:?}: {kept}");
        }
    }
}
