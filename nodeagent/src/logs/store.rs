//! Where output is written, and who waits for it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_types::ObjectId;
use tokio::sync::watch;

use super::{LogLimits, Record, Run};

/// What readers wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Grows with every record.
    pub(crate) records: u64,
    /// The last run that wrote or started.
    pub(crate) run: Run,
    /// That run has ended.
    pub(crate) ended: bool,
}

/// The logs of all pods of this node. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogStore {
    limits: LogLimits,
    pods: Arc<Mutex<BTreeMap<ObjectId, PodLogs>>>,
}

impl LogStore {
    /// One that keeps so much of every container.
    pub(crate) fn new(limits: LogLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The logs of a pod, kept in this folder.
    pub(crate) fn pod(&self, pod: ObjectId, dir: &Path) -> PodLogs {
        lock(&self.pods).entry(pod).or_insert_with(|| PodLogs::new(dir, self.limits)).clone()
    }

    /// The logs of a pod that is known.
    pub(crate) fn find(&self, pod: ObjectId) -> Option<PodLogs> {
        lock(&self.pods).get(&pod).cloned()
    }

    /// Removes a pod's logs; readers come to an end.
    pub(crate) fn remove(&self, pod: ObjectId) {
        if let Some(logs) = lock(&self.pods).remove(&pod) {
            logs.end_all();
        }
    }
}

/// The logs of one pod. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct PodLogs {
    dir: Arc<PathBuf>,
    limits: LogLimits,
    containers: Arc<Mutex<BTreeMap<String, Writer>>>,
}

#[derive(Debug)]
struct Writer {
    segment: Option<File>,
    length: u64,
    /// Next offset, of the guest of the last run.
    next_offset: u64,
    progress: watch::Sender<Progress>,
}

impl PodLogs {
    fn new(dir: &Path, limits: LogLimits) -> Self {
        Self { dir: Arc::new(dir.to_path_buf()), limits, containers: Arc::default() }
    }

    /// The folder of a container. Its name was checked to be a DNS label.
    pub(crate) fn container_dir(&self, container: &str) -> PathBuf {
        self.dir.join(container)
    }

    /// Adds output; what was added before is passed over. Returns the offset that comes next.
    pub(crate) fn append(&self, container: &str, mut record: Record) -> io::Result<u64> {
        let mut containers = lock(&self.containers);
        let writer = self.writer(&mut containers, container)?;
        let last = writer.progress.borrow().run;
        if record.run.guest < last.guest {
            return Ok(record.end());
        }
        if record.run.guest > last.guest {
            writer.next_offset = 0;
            writer.segment = None;
        }
        let known = writer.next_offset.saturating_sub(record.offset);
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(record.data.len());
        if known == record.data.len() {
            return Ok(writer.next_offset);
        }
        record.data.drain(..known);
        record.offset += known as u64;
        self.write(writer, container, &record)?;
        writer.next_offset = record.end();
        writer.progress.send_modify(|progress| {
            progress.records += 1;
            if record.run > progress.run {
                progress.run = record.run;
                progress.ended = false;
            }
        });
        Ok(writer.next_offset)
    }

    /// A run began.
    pub(crate) fn started(&self, container: &str, run: Run) -> io::Result<()> {
        let mut containers = lock(&self.containers);
        let writer = self.writer(&mut containers, container)?;
        writer.progress.send_modify(|progress| {
            if run > progress.run {
                if run.guest > progress.run.guest {
                    writer.next_offset = 0;
                    writer.segment = None;
                }
                progress.run = run;
                progress.ended = false;
            }
        });
        Ok(())
    }

    /// A run ended.
    pub(crate) fn ended(&self, container: &str, run: Run) {
        if let Some(writer) = lock(&self.containers).get_mut(container) {
            writer.progress.send_modify(|progress| progress.ended |= run >= progress.run);
        }
    }

    /// A container whose guest ended before this agent started: there is no more to come of what is here.
    pub(crate) fn mark_over(&self, container: &str) -> io::Result<()> {
        let mut containers = lock(&self.containers);
        let writer = self.writer(&mut containers, container)?;
        writer.progress.send_modify(|progress| progress.ended = true);
        Ok(())
    }

    /// Everything ended.
    pub(crate) fn end_all(&self) {
        for writer in lock(&self.containers).values() {
            writer.progress.send_modify(|progress| progress.ended = true);
        }
    }

    /// The first offset that is not here, of a guest's container.
    pub(crate) fn next_offset(&self, container: &str, guest: u32) -> io::Result<u64> {
        let mut containers = lock(&self.containers);
        let writer = self.writer(&mut containers, container)?;
        Ok(if writer.progress.borrow().run.guest == guest { writer.next_offset } else { 0 })
    }

    /// For readers: how far it is, now and later.
    pub(crate) fn watch(&self, container: &str) -> io::Result<watch::Receiver<Progress>> {
        let mut containers = lock(&self.containers);
        Ok(self.writer(&mut containers, container)?.progress.subscribe())
    }

    /// Whether anything of this container was ever seen.
    pub(crate) fn exists(&self, container: &str) -> bool {
        lock(&self.containers).contains_key(container) || self.container_dir(container).is_dir()
    }

    fn writer<'a>(
        &self,
        containers: &'a mut MutexGuard<'_, BTreeMap<String, Writer>>,
        container: &str,
    ) -> io::Result<&'a mut Writer> {
        if !containers.contains_key(container) {
            let writer = Writer::open(&self.container_dir(container))?;
            containers.insert(container.to_owned(), writer);
        }
        Ok(containers.get_mut(container).expect("just inserted"))
    }

    fn write(&self, writer: &mut Writer, container: &str, record: &Record) -> io::Result<()> {
        let bytes = record.encode();
        if writer.segment.is_none() || writer.length + bytes.len() as u64 > self.limits.file_bytes {
            let dir = self.container_dir(container);
            fs::create_dir_all(&dir)?;
            let sequence = segments(&dir)?.last().map_or(1, |(_, sequence, _)| sequence + 1);
            let path = dir.join(format!("{}-{sequence}.log", record.run.guest));
            writer.segment = Some(OpenOptions::new().create_new(true).append(true).open(path)?);
            writer.length = 0;
            prune(&dir, self.limits.files)?;
        }
        let file = writer.segment.as_mut().expect("just opened");
        // One write: a reader sees the record as a whole, or a part that it waits for.
        if let Err(error) = file.write_all(&bytes) {
            writer.cut_back();
            return Err(error);
        }
        writer.length += bytes.len() as u64;
        Ok(())
    }
}

impl Writer {
    /// A record of which only a part was written, as on a disk that is full, goes: nothing behind it would ever be read. Where it cannot,
    /// a new segment begins.
    fn cut_back(&mut self) {
        if self.segment.as_ref().is_some_and(|file| file.set_len(self.length).is_err()) {
            self.segment = None;
        }
    }

    /// Goes on where the last life of the agent stopped, in a new segment.
    fn open(dir: &Path) -> io::Result<Self> {
        let (mut progress, mut next_offset) = (Progress::default(), 0);
        // The last segment may hold only a record that was cut off.
        for (_, _, path) in segments(dir)?.into_iter().rev().take(2) {
            let mut file = io::BufReader::new(File::open(path)?);
            while let Some(record) = Record::read(&mut file)? {
                if record.run >= progress.run {
                    progress.run = record.run;
                    next_offset = record.end();
                }
            }
            if next_offset > 0 {
                break;
            }
        }
        Ok(Self { segment: None, length: 0, next_offset, progress: watch::Sender::new(progress) })
    }
}

/// The segments of a container, oldest first: guest, sequence, path.
pub(super) fn segments(dir: &Path) -> io::Result<Vec<(u32, u64, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut segments = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.split_once('-'));
        if let Some((guest, sequence)) = stem
            && let (Ok(guest), Ok(sequence)) = (guest.parse(), sequence.parse())
        {
            segments.push((guest, sequence, path));
        }
    }
    segments.sort_by_key(|(_, sequence, _)| *sequence);
    Ok(segments)
}

fn prune(dir: &Path, files: u32) -> io::Result<()> {
    let segments = segments(dir)?;
    let surplus = segments.len().saturating_sub(files as usize);
    segments[..surplus].iter().try_for_each(|(_, _, path)| crate::disk::remove_file(path))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds the lock with the state half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: u64, data: &str) -> Record {
        let run = Run { guest: 1, restart: 0 };
        Record { stderr: false, run, time_ms: 1, offset, data: data.as_bytes().to_vec() }
    }

    /// What a reader finds.
    fn kept(logs: &PodLogs) -> String {
        let mut text = String::new();
        for (.., path) in segments(&logs.container_dir("main")).expect("listed") {
            let mut file = io::BufReader::new(File::open(path).expect("there"));
            while let Some(record) = Record::read(&mut file).expect("read") {
                text.push_str(&String::from_utf8_lossy(&record.data));
            }
        }
        text
    }

    #[test]
    fn what_comes_after_a_record_that_the_disk_did_not_take_is_read() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let logs = PodLogs::new(dir.path(), LogLimits::default());
        assert_eq!(logs.append("main", record(0, "one ")).expect("written"), 4);
        // The disk took a part of it.
        {
            let mut containers = lock(&logs.containers);
            let writer = containers.get_mut("main").expect("there");
            writer.segment.as_mut().expect("open").write_all(b"torn").expect("written");
            writer.cut_back();
        }
        assert_eq!(logs.append("main", record(4, "two ")).expect("written"), 8);
        assert_eq!(kept(&logs), "one two ");
        // Nor can the file be cut back.
        let full = OpenOptions::new().write(true).open("/dev/full").expect("every Linux has it");
        lock(&logs.containers).get_mut("main").expect("there").segment = Some(full);
        let refused = logs.append("main", record(8, "three")).expect_err("it is full");
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(logs.append("main", record(8, "three")).expect("there is room again"), 13);
        assert_eq!(kept(&logs), "one two three");
    }
}
