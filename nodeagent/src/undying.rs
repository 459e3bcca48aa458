//! Processes that were killed and do not end, because the kernel does not let them go.
//!
//! Nothing can end such a process. Whoever killed it waits for a while, has it told of the node, and goes on with what has nothing to do
//! with it; the warning is over when the process is.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::vm::process::Process;

/// How long processes that were killed may take to end, all together.
pub(crate) const END_WITHIN: Duration = Duration::from_secs(10);

/// Those of this node: what is said of each, by its process id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Undying(watch::Sender<BTreeMap<i32, String>>);

impl Undying {
    /// What is said of them now, and whenever that changes.
    pub(crate) fn told(&self) -> watch::Receiver<BTreeMap<i32, String>> {
        self.0.subscribe()
    }

    /// Waits until processes that were killed have ended, each with what it is of. Those that do not in this time are the answer, and told
    /// of until they do.
    ///
    /// # Errors
    /// When one cannot be watched.
    pub(crate) async fn wait<T>(
        &self,
        killed: Vec<(T, String, Process)>,
        within: Duration,
    ) -> io::Result<Vec<T>> {
        let mut ends = JoinSet::new();
        for (_, _, process) in &killed {
            let (pid, end) = (process.pid, process.watch()?);
            ends.spawn(async move { end.await.map(|()| pid) });
        }
        let mut living: BTreeMap<i32, (T, String, Process)> =
            killed.into_iter().map(|one| (one.2.pid, one)).collect();
        let all = async {
            while let Some(ended) = ends.join_next().await {
                living.remove(&ended.map_err(io::Error::other)??);
            }
            Ok::<_, io::Error>(())
        };
        if let Ok(ended) = tokio::time::timeout(within, all).await {
            ended?;
        }
        let mut left = Vec::new();
        for (pid, (of, what, process)) in living {
            tracing::error!(pid, what, "it was killed and does not end");
            let text = format!(
                "{what} (process {pid}) was killed and does not end, and what it has is nobody else's before it does: see /proc/{pid}/stack \
                 and dmesg; a boot of the machine ends it"
            );
            self.0.send_modify(|told| _ = told.insert(pid, text));
            let told = self.0.clone();
            tokio::spawn(async move {
                process.wait().await;
                tracing::info!(pid, what, "it has ended at last");
                told.send_modify(|told| _ = told.remove(&pid));
            });
            left.push(of);
        }
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::process::guards_below;

    /// A process that works in a folder, with a way to end it.
    async fn process(dir: &std::path::Path, name: &str) -> (tokio::process::Child, Process) {
        let folder = std::fs::canonicalize(dir).expect("there").join(name);
        std::fs::create_dir(&folder).expect("made");
        let mut command = tokio::process::Command::new("/bin/sh");
        command.args(["-c", "echo; read -r end", "guard"]).arg(&folder).current_dir(&folder);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().expect("started");
        // Before it runs it has no arguments.
        let mut stdout = child.stdout.take().expect("it is piped");
        assert_eq!(tokio::io::AsyncReadExt::read_u8(&mut stdout).await.expect("it says so"), b'\n');
        let (_, process) = guards_below(&folder).expect("scanned").pop().expect("found");
        (child, process)
    }

    #[tokio::test]
    async fn what_does_not_end_is_told_of_until_it_does_and_holds_nobody_up() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (mut ends, first) = process(dir.path(), "1").await;
        let (mut stays, second) = process(dir.path(), "2").await;
        let pid = second.pid;
        let undying = Undying::default();
        let mut told = undying.told();
        first.killer().expect("opened").kill().expect("killed");
        let killed = vec![(1, "the guest in 1".to_owned(), first), (2, "the guest in 2".to_owned(), second)];
        let left = undying.wait(killed, Duration::from_millis(300)).await.expect("watched");
        assert_eq!(left, [2]);
        ends.wait().await.expect("ours");
        let said = told.borrow_and_update().clone();
        assert_eq!(said.keys().collect::<Vec<_>>(), [&pid]);
        assert!(
            said[&pid].starts_with(&format!("the guest in 2 (process {pid}) was killed and does not end"))
        );
        // The kernel lets it go.
        drop(stays.stdin.take());
        stays.wait().await.expect("ours");
        told.wait_for(BTreeMap::is_empty).await.expect("it is watched");
    }

    #[tokio::test]
    async fn what_ends_in_time_is_waited_for_and_not_told_of() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (mut child, process) = process(dir.path(), "1").await;
        process.killer().expect("opened").kill().expect("killed");
        let undying = Undying::default();
        let left = undying.wait(vec![((), "a guest".to_owned(), process)], END_WITHIN).await;
        assert!(left.expect("watched").is_empty() && undying.told().borrow().is_empty());
        child.wait().await.expect("ours");
    }
}
