//! Guests that are booted before there are pods for them, and copies of such.
//!
//! ```text
//!  <data>/vm-pool/<number>/        a guest's folder, as those of pods; a pod that has it has a link to it: pods/<pod>/<instance>
//! ```
//!
//! What to boot and when is decided by [`VmPool`] and [`VmTemplates`] in the core; this has it booted (`vm_pool/boot.rs`), holds it, and
//! gives it away. A guest of the pool is shut in as those of pods are, as a user of its own, and knows nothing of any pod. It gets its
//! disks by descriptor (`nodeagent/src/pod/pooled.rs`), so no path has to come into its jail. It has a guard that knows no lease until a
//! pod has it that must be unique. Guests that wait end with their agent: those that one left which crashed are killed by the next, as
//! all guests are that nobody knows. One that dies while it waits is noticed then, and another is booted in its place. A copy of a template is made when a pod asks for it, and by the pool where it has a template of its
//! size.

mod boot;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bulkhead_nodeagent_core::{GuestSize, TemplateAnswer, VmPool, VmTemplates};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::host::Host;
use crate::qmp::Qmp;
use crate::steps::{Step, passed};
use crate::vm::process::Process;
use crate::vm_template::Template;
use crate::{clock, disk};
use boot::{Failure, boot, copy, last_words, make};

/// The folder of all of them, below the data directory.
const FOLDER: &str = "vm-pool";
/// Which templates there are, in the data directory.
const TEMPLATES: &str = "vm-templates.json";
/// In the folder of one that waits for a pod, for people to see.
const READY: &str = "ready";
/// Pods that wait for an answer.
const ASKED_MAX: usize = 64;

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmPoolConfig {
    /// Guests that wait for pods.
    pub guests: u32,
    /// How large each is: only pods whose guest would be of this size get one.
    pub size: GuestSize,
}

/// A guest that has booted and belongs to nobody. Its process is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct PooledVm {
    number: u64,
    /// Its folder.
    pub(crate) dir: PathBuf,
    process: Option<Process>,
    /// Its control socket; taken by who furnishes it.
    pub(crate) qmp: Option<Qmp>,
    /// It has a guard, which knows no lease yet.
    pub(crate) guarded: bool,
    /// It is a copy of a template that was made for who asked.
    pub(crate) copied: bool,
}

impl PooledVm {
    /// It belongs to a pod from now on.
    pub(crate) fn into_process(mut self) -> Process {
        self.process.take().expect("it is taken once")
    }

    /// Its control group.
    pub(crate) fn group(&self) -> String {
        group(self.number)
    }
}

impl Drop for PooledVm {
    fn drop(&mut self) {
        self.kill();
    }
}

impl PooledVm {
    /// Kills it and waits for its end.
    pub(crate) async fn end(self) {
        self.kill();
        self.into_process().wait().await;
        passed(Step::PooledEnded);
    }

    fn kill(&self) {
        if let Some(Err(error)) = self.process.as_ref().map(|process| process.killer()?.kill()) {
            tracing::error!(guest = self.number, %error, "a guest of the pool cannot be killed");
        }
    }
}

/// Asks for guests.
#[derive(Debug, Default)]
pub(crate) struct VmPoolHandle {
    asked: Option<mpsc::Sender<Wanted>>,
}

/// A pod's wish, and where the answer goes.
#[derive(Debug)]
pub(crate) struct Wanted {
    size: GuestSize,
    /// Its pod must be unique.
    guarded: bool,
    answer: oneshot::Sender<Result<PooledVm, String>>,
}

/// What [`run`] needs.
#[derive(Debug)]
pub(crate) struct Asked {
    pool: Option<VmPoolConfig>,
    templates: bool,
    wanted: mpsc::Receiver<Wanted>,
}

impl VmPoolHandle {
    /// A handle for a pool, templates, or both, and what [`run`] needs to keep them; with neither, a handle for none.
    pub(crate) fn of(pool: Option<VmPoolConfig>, templates: bool) -> (Self, Option<Asked>) {
        if pool.is_none() && !templates {
            return (Self::default(), None);
        }
        let (asked, wanted) = mpsc::channel(ASKED_MAX);
        (Self { asked: Some(asked) }, Some(Asked { pool, templates, wanted }))
    }

    /// Whether there is a pool, or are templates.
    pub(crate) fn is_there(&self) -> bool {
        self.asked.is_some()
    }

    /// A guest that has booted, or why there is none.
    pub(crate) async fn take(&self, size: GuestSize, guarded: bool) -> Result<PooledVm, String> {
        let ended = || "the pool of guests has ended".to_owned();
        let (answer, given) = oneshot::channel();
        let asked = self.asked.as_ref().ok_or_else(ended)?;
        asked.send(Wanted { size, guarded, answer }).await.map_err(|_| ended())?;
        given.await.map_err(|_| ended())?
    }
}

/// The control group of a pool's guest.
fn group(number: u64) -> String {
    format!("pool.{number}")
}

/// The control group of the guest in this folder, if it was one of the pool.
pub(crate) fn group_of(data: &Path, dir: &Path) -> Option<String> {
    let number = dir.strip_prefix(data.join(FOLDER)).ok()?.to_str()?.parse().ok()?;
    Some(group(number))
}

/// What was begun, and how it ended.
enum Done {
    /// A guest for the pool.
    Booted { number: u64, result: Result<PooledVm, Failure> },
    /// A copy for a pod.
    Copied { number: u64, size: GuestSize, wanted: Wanted, result: Result<PooledVm, Failure> },
    /// A template.
    Made { number: u64, size: GuestSize, result: Result<Template, String> },
    /// A guest that is of no use any more has ended.
    Ended { number: u64 },
}

/// A guest that waits for a pod.
struct Waiting {
    vm: PooledVm,
    /// Whoever awaits its end.
    watch: Option<AbortHandle>,
}

impl Waiting {
    /// Nobody awaits its end any more.
    fn into_vm(self) -> PooledVm {
        self.watch.iter().for_each(AbortHandle::abort);
        self.vm
    }
}

/// The pool and templates of a node while they are kept.
struct Keeper {
    host: Arc<Host>,
    stop: CancellationToken,
    pool: VmPool,
    waiting: BTreeMap<u64, Waiting>,
    /// Their ends: numbers.
    ends: JoinSet<u64>,
    /// Why the last guest that failed did; until one waits again.
    failure: Option<String>,
    /// Unset: nobody asked for templates.
    templates: Option<VmTemplates>,
    made: BTreeMap<GuestSize, Arc<Template>>,
    work: JoinSet<Done>,
}

/// Keeps the pool and templates until `stop`; then guests that wait end. Must begin after all guests of pods were found.
pub(crate) async fn run(host: Arc<Host>, asked: Asked, stop: CancellationToken) {
    let first = match clear(&host) {
        Ok(first) => first,
        Err(error) => return tracing::error!(%error, "there is no pool of guests: its folder cannot be used"),
    };
    let Asked { pool, templates, mut wanted } = asked;
    let pool = pool.unwrap_or(VmPoolConfig { guests: 0, size: GuestSize { cpus: 0, memory_bytes: 0 } });
    let mut keeper = Keeper {
        host,
        stop: stop.clone(),
        pool: VmPool::new(pool.size, pool.guests, first),
        waiting: BTreeMap::new(),
        ends: JoinSet::new(),
        failure: None,
        templates: templates.then(VmTemplates::default),
        made: BTreeMap::new(),
        work: JoinSet::new(),
    };
    loop {
        let retry = keeper.fill().map(|at| Duration::from_millis(at.saturating_sub(clock::boot_ms())));
        let retry = async {
            match retry {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            one = wanted.recv() => match one {
                Some(one) => keeper.give(one),
                None => break,
            },
            Some(done) = keeper.work.join_next() => match done {
                Ok(done) => keeper.finish(done).await,
                Err(error) => return tracing::error!(%error, "the pool of guests has ended"),
            },
            // Those of guests that were given away are not awaited any more.
            Some(ended) = keeper.ends.join_next() => ended.into_iter().for_each(|number| keeper.died(number)),
            () = retry => {}
        }
    }
    keeper.end().await;
}

impl Keeper {
    /// Boots what is missing: copies of a template, where there are any. When to look again although nothing happened.
    fn fill(&mut self) -> Option<u64> {
        let size = self.pool.size();
        while self.pool.deadline_ms().is_some_and(|at_ms| at_ms <= clock::boot_ms()) {
            let template = self.template(size).ok();
            // It costs what a boot does, and those that follow next to nothing.
            if self.templates.as_ref().is_some_and(|templates| templates.is_making(size)) {
                return None;
            }
            let Some(number) = self.pool.want(clock::boot_ms()) else { break };
            let (host, stop) = (Arc::clone(&self.host), self.stop.clone());
            self.work.spawn(async move {
                let result = match template {
                    Some(template) => copy(&host, number, (&template, size), true, &stop).await,
                    None => boot(&host, number, size, &stop).await.map_err(Failure::Boot),
                };
                Done::Booted { number, result }
            });
        }
        self.pool.deadline_ms()
    }

    /// The template of a size, or why there is none; then one may be begun.
    fn template(&mut self, size: GuestSize) -> Result<Arc<Template>, &'static str> {
        let templates = self.templates.as_mut().ok_or("no guest of the pool has booted")?;
        match templates.ask(size, clock::boot_ms()) {
            TemplateAnswer::Copy => self.made.get(&size).cloned().ok_or("there is no template of its size"),
            TemplateAnswer::None(why) => Err(why),
            TemplateAnswer::Make { instead_of } => {
                if let Some(other) = instead_of {
                    self.made.remove(&other);
                }
                passed(Step::TemplateBegun);
                let (host, stop, number) = (Arc::clone(&self.host), self.stop.clone(), self.pool.number());
                self.work.spawn(async move {
                    Done::Made { number, size, result: make(&host, number, size, &stop).await }
                });
                Err("there was no template of its size: one is made now")
            }
        }
    }

    /// Gives a pod a guest, begins a copy for it, or says why there is neither.
    fn give(&mut self, wanted: Wanted) {
        let size = wanted.size;
        if size == self.pool.size()
            && let Some(waiting) = self.pool.take().and_then(|number| self.waiting.remove(&number))
        {
            let vm = waiting.into_vm();
            let _ = disk::remove_file(&vm.dir.join(READY));
            passed(Step::PooledTaken);
            return self.hand_over(wanted, Ok(vm));
        }
        let why = match self.template(size) {
            Ok(template) => {
                let (host, stop, number) = (Arc::clone(&self.host), self.stop.clone(), self.pool.number());
                self.work.spawn(async move {
                    let result = copy(&host, number, (&template, size), wanted.guarded, &stop).await;
                    Done::Copied { number, size, wanted, result }
                });
                return;
            }
            Err(_) if self.templates.is_none() && size != self.pool.size() => {
                "its guest is of another size than those of the pool".to_owned()
            }
            Err(why) => match &self.failure {
                Some(failure) if self.templates.is_none() => format!("{why}: {failure}"),
                _ => why.to_owned(),
            },
        };
        self.hand_over(wanted, Err(why));
    }

    /// Answers a pod. One that does not wait any more leaves a guest that nobody knows.
    fn hand_over(&mut self, wanted: Wanted, answer: Result<PooledVm, String>) {
        if let Err(Ok(vm)) = wanted.answer.send(answer) {
            self.get_rid_of(vm);
        }
    }

    /// Ends a guest; what it leaves is removed when it has.
    fn get_rid_of(&mut self, vm: PooledVm) {
        self.work.spawn(async move {
            let number = vm.number;
            vm.end().await;
            Done::Ended { number }
        });
    }

    /// A guest waits for a pod; its end is awaited meanwhile.
    fn has_booted(&mut self, mut vm: PooledVm) {
        let number = vm.number;
        // Nobody waited for it.
        vm.copied = false;
        tracing::info!(guest = number, "a guest of the pool waits for a pod");
        self.pool.booted(number, clock::boot_ms());
        self.failure = None;
        // Nothing depends on it.
        let _ = fs::File::create_new(vm.dir.join(READY));
        let watch = match vm.process.as_ref().map(Process::watch) {
            Some(Ok(end)) => Some(self.ends.spawn(async move {
                // Of one that cannot be watched the end is noticed when a pod should have it.
                if end.await.is_err() {
                    std::future::pending::<()>().await;
                }
                number
            })),
            Some(Err(error)) => {
                tracing::warn!(guest = number, %error, "the end of a guest of the pool would not be noticed");
                None
            }
            None => None,
        };
        self.waiting.insert(number, Waiting { vm, watch });
        passed(Step::PooledWaits);
    }

    /// A guest died while it waited. The next is booted as after a boot that failed.
    fn died(&mut self, number: u64) {
        let Some(waiting) = self.waiting.remove(&number) else { return };
        let vm = waiting.into_vm();
        let failure = format!("the last one died while it waited for a pod{}", last_words(&vm.dir));
        tracing::warn!(guest = number, reason = failure, "a guest of the pool is lost");
        self.failure = Some(failure);
        self.pool.failed(number, clock::boot_ms());
        self.get_rid_of(vm);
    }

    async fn finish(&mut self, done: Done) {
        match done {
            Done::Booted { result: Ok(vm), .. } => self.has_booted(vm),
            Done::Ended { number } => discard(&self.host, number),
            Done::Booted { number, result: Err(failure) } => {
                tracing::warn!(guest = number, reason = %failure, "a guest of the pool did not boot");
                self.pool.failed(number, clock::boot_ms());
                self.failure = Some(format!("the last one did not boot: {failure}"));
                self.lose(self.pool.size(), &failure);
                discard(&self.host, number);
            }
            Done::Copied { size, wanted, result: Ok(vm), .. } => {
                self.templates.iter_mut().for_each(|templates| templates.copied(size));
                self.hand_over(wanted, Ok(vm));
            }
            Done::Copied { number, size, wanted, result: Err(failure) } => {
                tracing::warn!(guest = number, reason = %failure, "a pod's guest is no copy of a template");
                self.lose(size, &failure);
                discard(&self.host, number);
                self.hand_over(wanted, Err(failure.to_string()));
            }
            Done::Made { number, size, result } => {
                discard(&self.host, number);
                let Some(templates) = &mut self.templates else { return };
                match result {
                    // Another size has its place by now.
                    Ok(_) if !templates.made(size) => {}
                    Ok(template) => {
                        let held_mib = template.held_bytes() >> 20;
                        tracing::info!(
                            ?size,
                            held_mib,
                            "guests of this size are copies of a template from now on"
                        );
                        self.made.insert(size, Arc::new(template));
                        self.tell_of_templates();
                    }
                    Err(reason) => {
                        tracing::warn!(?size, reason, "there is no template for guests of this size");
                        templates.failed(size, clock::boot_ms());
                    }
                }
            }
        }
    }

    /// A template of which no copy ran is none.
    fn lose(&mut self, size: GuestSize, failure: &Failure) {
        let Some(templates) = &mut self.templates else { return };
        let is_lost = match failure {
            Failure::Boot(_) => false,
            Failure::Outdated => templates.outdated(size),
            Failure::Copy(_) => templates.copy_failed(size, clock::boot_ms()),
        };
        if is_lost {
            self.made.remove(&size);
            self.tell_of_templates();
        }
    }

    /// Writes down which there are, for people to see.
    fn tell_of_templates(&self) {
        let one = |(size, template): (&GuestSize, &Arc<Template>)| {
            let held_bytes = template.held_bytes();
            json!({ "cpus": size.cpus, "memory_bytes": size.memory_bytes, "held_bytes": held_bytes })
        };
        let all: Vec<_> = self.made.iter().map(one).collect();
        // Nothing depends on it.
        let _ = fs::write(self.host.data.join(TEMPLATES), json!(all).to_string());
        passed(Step::TemplatesTold);
    }

    async fn end(mut self) {
        while let Some(done) = self.work.join_next().await {
            let (number, vm) = match done {
                Ok(Done::Booted { number, result } | Done::Copied { number, result, .. }) => {
                    (number, result.ok())
                }
                Ok(Done::Made { number, .. } | Done::Ended { number }) => (number, None),
                Err(_) => continue,
            };
            match vm {
                Some(vm) => _ = self.waiting.insert(number, Waiting { vm, watch: None }),
                None => discard(&self.host, number),
            }
        }
        // They end with the agent.
        let _ = disk::remove_file(&self.host.data.join(TEMPLATES));
        for (number, waiting) in std::mem::take(&mut self.waiting) {
            waiting.into_vm().end().await;
            discard(&self.host, number);
        }
    }
}

/// Removes what an earlier agent's pool left, where there is none now: what guests had that were to be a pod's may be secret, and large.
pub(crate) async fn forget(host: &Arc<Host>) {
    if !host.data.join(FOLDER).exists() {
        return;
    }
    let of_pool = Arc::clone(host);
    let cleared = tokio::task::spawn_blocking(move || clear(&of_pool)).await;
    if let Ok(Err(error)) = cleared {
        tracing::warn!(%error, "what guests of an earlier pool left stays");
    }
}

/// Removes what guests left that are no pod's, and says which number is free.
fn clear(host: &Host) -> io::Result<u64> {
    let base = host.data.join(FOLDER);
    fs::create_dir_all(&base)?;
    disk::remove_file(&host.data.join(TEMPLATES))?;
    let kept: Vec<PathBuf> = host.records.links()?;
    let mut first = 0;
    for entry in fs::read_dir(&base)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.parse::<u64>().ok());
        first = first.max(number.map_or(0, |number| number + 1));
        if !kept.contains(&path) {
            disk::remove_dir(&path)?;
        }
    }
    passed(Step::PoolCleared);
    Ok(first)
}

/// Removes what is left of a guest that has ended, or is about to.
fn discard(host: &Host, number: u64) {
    let dir = host.data.join(FOLDER).join(number.to_string());
    let removed = disk::remove_dir(&dir).and(host.cgroups.remove(&group(number)));
    if let Err(error) = removed {
        tracing::debug!(guest = number, %error, "what a guest of the pool left is removed by the next agent");
    }
    passed(Step::PooledDiscarded);
}
