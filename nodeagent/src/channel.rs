//! The conversation with a guest over its channel. Everything that a guest says is hostile: bounded by the protocol's
//! decoder, then by the core.
//!
//! ```text
//!  Hello (again each second) ──►  ◄── Hello ── Configure, or ResumeLogs when it was configured before ──►
//!  ◄── ContainerState · PodState · LogChunk · Usage        AckLogs · Stop ──►
//!  ◄── what streams say ──────────── clients ──────────── what clients say ──►
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_guest_protocol::guest::AskHost;
use bulkhead_guest_protocol::host::{
    AckLogs, Configure, FreezeVolume, GrowVolume, Hello, Ping, PodConfig, Reseed, ResumeLogs, Stop,
};
use bulkhead_guest_protocol::{
    FrameReader, GuestMessage, HostMessage, PROTOCOL_VERSION, decode, encode, guest,
};
use bulkhead_nodeagent_core::{GuestTimes, Input, SILENT_QUESTIONS, StartPhase, reason};
use bulkhead_types::{
    ContainerState, ContainerStatus, ContainerTermination, ObjectId, PodPhase, VolumeFiles,
};
use smol_str::SmolStr;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::clock;
use crate::https::Asks;
use crate::logs::{PodLogs, Record, Run};
use crate::starts::StartOf;
use crate::steps::{Step, passed};
use crate::streams::GuestStreams;
use crate::volumes::{GuestOrder, GuestTask, Still};
use meter::Meter;
use resize::Resizing;

pub(crate) use resize::{GuestAnswer, ResizeOrder};

/// How often a Hello is sent until it is answered.
const HELLO_INTERVAL: Duration = Duration::from_secs(1);
/// Most bytes that wait to be written; acknowledgements beyond it are left out, the guest repeats itself.
const OUT_LENGTH_MAX: usize = 2 << 20;
/// Data of streams is only added while less than this waits to be written, so that all else overtakes it soon.
const STREAM_BACKLOG_MAX: usize = 256 << 10;
/// Bytes read at a time.
const READ_LENGTH: usize = 64 << 10;
/// A guest that changes its states more often than this in a second waits for the next one.
const STATES_PER_SECOND_MAX: u32 = 200;

/// States overtake output: so long after the end of a container, and after its last output since, followers are told
/// that there is no more.
const OUTPUT_LAG: Duration = Duration::from_secs(1);

/// How long after output could not be kept it is asked for again.
const LOG_RETRY: Duration = Duration::from_secs(1);

/// One guest's side of the agent.
#[derive(Debug)]
pub(crate) struct Talk {
    pub(crate) pod: ObjectId,
    pub(crate) instance: u32,
    /// What to run; for a guest that was not told yet.
    pub(crate) config: PodConfig,
    pub(crate) logs: PodLogs,
    /// What clients have with it.
    pub(crate) streams: GuestStreams,
    pub(crate) inputs: mpsc::Sender<Input>,
    /// The files of its volumes, once they are known.
    pub(crate) files: watch::Receiver<Vec<VolumeFiles>>,
    /// What shall be done with volumes in the guest.
    pub(crate) volume_orders: mpsc::Receiver<GuestOrder>,
    /// What the guest and its containers should become.
    pub(crate) resizing: mpsc::Receiver<ResizeOrder>,
    /// Set to the grace, in milliseconds, once the guest should end.
    pub(crate) stop: watch::Receiver<Option<u64>>,
    /// What the guest's times are by the host's clocks.
    pub(crate) times: GuestTimes,
    /// The start of the pod; ends when its first container runs.
    pub(crate) start: Option<tracing::Span>,
    /// What that spends its time with.
    pub(crate) starts: Arc<StartOf>,
    /// How often it is asked whether it lives.
    pub(crate) look_every: Duration,
    /// While the guest stands still it cannot answer.
    pub(crate) still: Arc<Still>,
}

/// What one connection knows.
#[derive(Default)]
struct Conversation {
    reader: FrameReader,
    out: Vec<u8>,
    greeted: bool,
    /// The guest can make file systems larger.
    grows_volumes: bool,
    /// Who waits to hear what came of a resize.
    resizing: Resizing,
    /// What the guest wants to be asked for it, and is not asked yet.
    to_ask: Vec<AskHost>,
    /// Who waits for that, by the volume's name.
    growing: BTreeMap<String, GuestOrder>,
    /// The guest can hold volumes still.
    freezes_volumes: bool,
    /// Who waits for that, by the volume's name.
    freezing: BTreeMap<String, GuestOrder>,
    acks: BTreeMap<String, u64>,
    /// Containers of which output could not be kept.
    behind: BTreeMap<String, Behind>,
    /// Runs that ended, and when their output is taken to be complete.
    ending: BTreeMap<String, (Run, Instant)>,
    usage: Meter,
    /// When usage was told first: times of the meter count from here.
    begun: Option<Instant>,
    states: u32,
    second: Option<Instant>,
    /// Questions since the guest said anything.
    unanswered: u32,
}

/// Output that the disk did not take. What comes behind it is passed over until the guest has sent it again: it keeps what is not
/// acknowledged.
struct Behind {
    /// The first offset that is missing.
    from_offset: u64,
    /// When the guest is asked for it.
    ask_at: Instant,
}

/// Waits until then; for ever when there is no then.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Waits for the first word of a guest, which says what it can. One that is a copy is made one of its own then, and confirms it.
pub(crate) async fn first_word(stream: UnixStream, mut seed: Option<Reseed>) -> io::Result<guest::Hello> {
    let mut greeted = None;
    let (mut talk, mut hello) = (Conversation::default(), tokio::time::interval(HELLO_INTERVAL));
    let mut buffer = vec![0; READ_LENGTH];
    loop {
        tokio::select! {
            _ = hello.tick(), if greeted.is_none() => talk.hello(),
            ready = stream.ready(talk.interest()) => {
                if !talk.exchange(&stream, ready?, &mut buffer)? {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                while let Some(frame) = talk.reader.next_frame() {
                    match frame.ok().and_then(|payload| decode::<GuestMessage>(&payload).ok()) {
                        Some(GuestMessage::Hello(hello)) => {
                            let Some(seed) = seed.take() else { return Ok(greeted.unwrap_or(hello)) };
                            talk.say(&HostMessage::Reseed(seed));
                            greeted = Some(hello);
                        }
                        Some(GuestMessage::Reseeded(done)) => {
                            let Some(hello) = greeted.take().filter(|_| done.error.is_empty()) else {
                                return Err(io::Error::other(done.error));
                            };
                            return Ok(hello);
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

impl Talk {
    /// Talks until the guest closes its end.
    pub(crate) async fn run(&mut self, stream: UnixStream) -> io::Result<()> {
        let result = self.converse(stream).await;
        self.streams.fail_all("the connection to the pod's guest was lost");
        result
    }

    async fn converse(&mut self, stream: UnixStream) -> io::Result<()> {
        let (mut talk, mut hello) = (Conversation::default(), tokio::time::interval(HELLO_INTERVAL));
        let (mut buffer, mut asks) = (vec![0; READ_LENGTH], Asks::default());
        self.stop.mark_changed();
        let mut look = tokio::time::interval(self.look_every);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = look.tick() => {
                    if self.still.stands() {
                        talk.unanswered = 0;
                    } else if talk.ask() {
                        self.tell(Input::GuestSilent { pod: self.pod, instance: self.instance }).await;
                    }
                }
                _ = hello.tick(), if !talk.greeted => talk.hello(),
                changed = self.stop.changed(), if talk.greeted => {
                    let grace_ms = *self.stop.borrow_and_update();
                    if grace_ms.is_some() {
                        talk.say(&HostMessage::Stop(Stop { grace_ms }));
                        passed(Step::StopSaid);
                    }
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                // Without a sender the guest is let go, and `stop` says so.
                Ok(()) = self.files.changed(), if talk.greeted => {
                    let volumes = self.files.borrow_and_update().clone();
                    talk.say_files(&volumes);
                }
                Some(order) = self.volume_orders.recv(), if talk.greeted => talk.order(order),
                Some(order) = self.resizing.recv(), if talk.greeted => {
                    if let Some(message) = talk.resizing.ask(order) {
                        talk.say(&message);
                    }
                }
                answer = asks.next() => talk.say(&HostMessage::HostAnswer(answer)),
                () = self.streams.wanted(), if talk.greeted => {}
                () = until(talk.next_end()) => talk.end_runs(&self.logs),
                () = until(talk.next_resumption()) => talk.resume_logs(),
                ready = stream.ready(talk.interest()) => {
                    if !talk.exchange(&stream, ready?, &mut buffer)? {
                        return Ok(());
                    }
                    while let Some(frame) = talk.reader.next_frame() {
                        self.hear(&mut talk, frame).await;
                    }
                    talk.to_ask.drain(..).for_each(|ask| asks.begin(ask, &self.config, &self.streams));
                    talk.acknowledge();
                }
            }
            if talk.greeted {
                talk.say_streams(&self.streams);
            }
        }
    }

    async fn hear(
        &mut self,
        talk: &mut Conversation,
        frame: Result<Vec<u8>, bulkhead_guest_protocol::FrameError>,
    ) {
        let message = match frame {
            Ok(payload) => decode::<GuestMessage>(&payload).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        talk.unanswered = 0;
        match message {
            Ok(GuestMessage::Hello(hello)) => self.greet(talk, &hello).await,
            // Rests of an earlier conversation.
            Ok(_) if !talk.greeted => {}
            Ok(message) => self.take(talk, message).await,
            Err(error) => tracing::debug!(pod = %self.pod, error, "the guest sent something useless"),
        }
    }

    async fn greet(&mut self, talk: &mut Conversation, hello: &guest::Hello) {
        if hello.protocol_version != PROTOCOL_VERSION {
            tracing::warn!(pod = %self.pod, version = hello.protocol_version, "the guest speaks another protocol");
            return;
        }
        if std::mem::replace(&mut talk.greeted, true) {
            return;
        }
        passed(Step::GuestGreeted);
        tracing::debug!(pod = %self.pod, boot_ms = hello.boot_ms, kernel = hello.kernel_release, "the guest is up");
        if !hello.streams {
            self.streams.end(
                "the pod's guest was started by an earlier version of the agent, which has no commands and connections; \
                 they work once the pod is started again",
            );
        }
        if !hello.configured {
            self.starts.guest_spoke(hello);
        }
        self.streams.set_can_attach(hello.attach);
        (talk.grows_volumes, talk.freezes_volumes) = (hello.grows_volumes, hello.freezes_volumes);
        talk.resizing.can = hello.resizes;
        let volumes = self.files.borrow_and_update().clone();
        talk.say_files(&volumes);
        if hello.configured {
            for container in self.containers() {
                match self.logs.next_offset(container, self.instance) {
                    Ok(from_offset) => {
                        let container = container.to_owned();
                        talk.say(&HostMessage::ResumeLogs(ResumeLogs { container, from_offset }));
                    }
                    Err(error) => tracing::warn!(pod = %self.pod, %error, "the log cannot be read"),
                }
            }
        } else if self.config.incomplete {
            // The agent ended between the guest's start and its first word, and what it should run is kept nowhere else
            // than in the control plane: it ends, and the core starts another.
            tracing::info!(pod = %self.pod, "a guest that was never told what to run ends");
            talk.say(&HostMessage::Stop(Stop { grace_ms: Some(0) }));
        } else if let Some(message) = abilities::lacks(hello, &self.config) {
            let (phase, reason) = (PodPhase::Failed, SmolStr::new_static(reason::GUEST_TOO_OLD));
            talk.say(&HostMessage::Stop(Stop { grace_ms: Some(0) }));
            self.tell(Input::GuestHello { pod: self.pod, instance: self.instance }).await;
            return self
                .tell(Input::GuestPod { pod: self.pod, instance: self.instance, phase, reason, message })
                .await;
        } else {
            talk.say(&HostMessage::Configure(Configure { pod: Some(self.config.clone()) }));
        }
        self.tell(Input::GuestHello { pod: self.pod, instance: self.instance }).await;
    }

    async fn take(&mut self, talk: &mut Conversation, message: GuestMessage) {
        match message {
            GuestMessage::ContainerState(state) => {
                talk.pace().await;
                self.container(talk, state).await;
            }
            GuestMessage::PodState(state) => {
                talk.pace().await;
                let phase = match state.phase() {
                    guest::PodPhase::Initializing => PodPhase::Pending,
                    guest::PodPhase::Running => PodPhase::Running,
                    guest::PodPhase::Succeeded => PodPhase::Succeeded,
                    guest::PodPhase::Failed => PodPhase::Failed,
                };
                let (reason, message) = (SmolStr::new(state.reason), state.message);
                self.tell(Input::GuestPod { pod: self.pod, instance: self.instance, phase, reason, message })
                    .await;
            }
            GuestMessage::LogChunk(chunk) => self.log(talk, chunk),
            GuestMessage::LogGap(gap) => {
                tracing::warn!(
                    pod = %self.pod, container = gap.container, from = gap.from_offset, to = gap.to_offset,
                    "output is lost: it was not fetched in time"
                );
                if let Some(behind) = talk.behind.get_mut(&gap.container) {
                    behind.from_offset = behind.from_offset.max(gap.to_offset);
                }
            }
            GuestMessage::Usage(usage) => self.usage(talk, usage).await,
            GuestMessage::AskHost(ask) => {
                talk.pace().await;
                talk.to_ask.push(ask);
            }
            GuestMessage::VolumeGrown(grown) => talk.grown(grown),
            GuestMessage::Resized(resized) => talk.resizing.hear(resized),
            GuestMessage::VolumeFrozen(frozen) => talk.frozen(frozen),
            GuestMessage::Stopping(stopping) => {
                tracing::debug!(pod = %self.pod, reason = stopping.reason, "the guest powers off");
            }
            message @ (GuestMessage::StreamOpened(_)
            | GuestMessage::StreamData(_)
            | GuestMessage::StreamCredit(_)
            | GuestMessage::StreamClosed(_)) => self.streams.hear(message),
            // A copy confirms it before it is anybody's.
            GuestMessage::Pong(_) | GuestMessage::Hello(_) | GuestMessage::Reseeded(_) => {}
        }
    }

    async fn container(&mut self, talk: &mut Conversation, state: guest::ContainerState) {
        if !self.containers().contains(state.container.as_str()) {
            return;
        }
        let run = Run { guest: self.instance, restart: state.restart_count };
        let kind = state.kind();
        match kind {
            guest::ContainerStateKind::Running => {
                self.starts.end(StartPhase::Container, Some(StartPhase::Output));
                passed(Step::ContainerRuns);
                if let Some(span) = self.start.take() {
                    tracing::info!(parent: &span, container = state.container, "first container runs");
                }
                if let Err(error) = self.logs.started(&state.container, run) {
                    tracing::warn!(pod = %self.pod, %error, "the log cannot be opened");
                }
            }
            guest::ContainerStateKind::Terminated => {
                talk.ending.insert(state.container.clone(), (run, Instant::now() + OUTPUT_LAG));
            }
            guest::ContainerStateKind::Waiting => {}
        }
        let started_at_ms = self.our_time(state.started_at_ms);
        let end = |reason: String, message: String, started_at_ms| {
            Box::new(ContainerTermination {
                exit_code: state.exit_code.unwrap_or(0),
                signal: state.signal,
                reason: SmolStr::new(reason),
                message,
                started_at_ms,
                finished_at_ms: self.our_time(state.finished_at_ms),
            })
        };
        let last = |started_at_ms| {
            state.exit_code.map(|_| end(state.last_reason.clone(), state.last_message.clone(), started_at_ms))
        };
        let (now, last_termination) = match kind {
            guest::ContainerStateKind::Waiting => (
                ContainerState::Waiting {
                    reason: SmolStr::new(state.reason.as_str()),
                    message: state.message.clone(),
                },
                last(started_at_ms),
            ),
            // Only the start of the current run is told.
            guest::ContainerStateKind::Running => (ContainerState::Running { started_at_ms }, last(0)),
            guest::ContainerStateKind::Terminated => (
                ContainerState::Terminated(end(state.reason.clone(), state.message.clone(), started_at_ms)),
                None,
            ),
        };
        let status = ContainerStatus {
            name: SmolStr::new(state.container),
            state: now,
            last_termination,
            restart_count: state.restart_count,
            ready: kind == guest::ContainerStateKind::Running && !state.unready,
            image_digest: SmolStr::default(),
        };
        let (pod, instance) = (self.pod, self.instance);
        let unready_because = if state.unready { state.message } else { String::new() };
        self.tell(Input::GuestContainer { pod, instance, status, unready_because }).await;
    }

    fn log(&self, talk: &mut Conversation, chunk: guest::LogChunk) {
        if !self.containers().contains(chunk.container.as_str()) {
            return;
        }
        if let Some(behind) = talk.behind.get(&chunk.container)
            && chunk.offset > behind.from_offset
        {
            return;
        }
        let (first, end) = (chunk.offset, chunk.offset.saturating_add(chunk.data.len() as u64));
        let record = Record {
            stderr: chunk.stream() == guest::LogStream::Stderr,
            run: Run { guest: self.instance, restart: chunk.restart },
            time_ms: self.times.of_output(chunk.time_ms, clock::both()),
            offset: chunk.offset,
            data: chunk.data,
        };
        if let Some((_, at)) = talk.ending.get_mut(&chunk.container) {
            *at = Instant::now() + OUTPUT_LAG;
        }
        match self.logs.append(&chunk.container, record) {
            Ok(up_to) => {
                self.starts.end(StartPhase::Output, None);
                if up_to >= end {
                    talk.behind.remove(&chunk.container);
                }
                talk.acks.insert(chunk.container, up_to);
            }
            Err(error) => {
                tracing::warn!(pod = %self.pod, %error, "output cannot be written; the guest keeps it");
                let from_offset = self.logs.next_offset(&chunk.container, self.instance).unwrap_or(first);
                let behind = Behind { from_offset, ask_at: Instant::now() + LOG_RETRY };
                talk.behind.insert(chunk.container, behind);
            }
        }
    }

    async fn usage(&self, talk: &mut Conversation, usage: guest::Usage) {
        if usage.container.is_empty() || self.containers().contains(usage.container.as_str()) {
            let elapsed = talk.begun.get_or_insert_with(Instant::now).elapsed();
            talk.usage.take(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX), usage);
            self.tell(Input::Usage(talk.usage.reading(self.pod))).await;
        }
    }

    /// A time of the guest's state as ours.
    fn our_time(&self, guest_ms: u64) -> u64 {
        self.times.of_state(guest_ms, clock::both())
    }

    fn containers(&self) -> BTreeSet<&str> {
        let all = self.config.init_containers.iter().chain(&self.config.containers);
        all.map(|container| container.name.as_str()).collect()
    }

    async fn tell(&self, input: Input) {
        // Nobody listens when the agent is about to end.
        let _ = self.inputs.send(input).await;
    }
}

impl Conversation {
    fn interest(&self) -> Interest {
        if self.out.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE }
    }

    fn say(&mut self, message: &HostMessage) {
        if let Err(error) = encode(message, &mut self.out) {
            tracing::error!(%error, "a message does not fit in a frame");
        }
    }

    fn order(&mut self, order: GuestOrder) {
        let volume = order.volume.clone();
        match order.task {
            GuestTask::Grow { .. } if !self.grows_volumes => {
                let reason = "the pod's guest was started by an earlier version of the agent: its file system grows with the \
                              next start of the pod";
                drop(order.answer.send(Err(reason.to_owned())));
            }
            GuestTask::Grow { disk_bytes } => {
                self.say(&HostMessage::GrowVolume(GrowVolume { volume: volume.clone(), disk_bytes }));
                self.growing.insert(volume, order);
            }
            GuestTask::Freeze { .. } | GuestTask::Thaw if !self.freezes_volumes => {
                let reason = "the pod's guest was started by an earlier version of the agent, and cannot hold volumes still";
                drop(order.answer.send(Err(reason.to_owned())));
            }
            GuestTask::Freeze { for_ms } => {
                self.say(&HostMessage::FreezeVolume(FreezeVolume {
                    volume: volume.clone(),
                    frozen: true,
                    for_ms,
                }));
                self.freezing.insert(volume, order);
            }
            GuestTask::Thaw => {
                let wish = FreezeVolume { volume: volume.clone(), frozen: false, for_ms: 0 };
                self.say(&HostMessage::FreezeVolume(wish));
                self.freezing.insert(volume, order);
            }
        }
    }

    /// As [`Self::grown`].
    fn frozen(&mut self, frozen: guest::VolumeFrozen) {
        let Some(order) = self.freezing.get(&frozen.volume) else { return };
        // What it says of an earlier wish is no answer to this one.
        let wanted = matches!(order.task, GuestTask::Freeze { .. });
        if frozen.error.is_empty() && frozen.frozen != wanted {
            return;
        }
        if let Some(order) = self.freezing.remove(&frozen.volume) {
            let result = if frozen.error.is_empty() { Ok(()) } else { Err(frozen.error) };
            let _ = order.answer.send(result);
        }
    }

    /// Who asked may have given up; what nobody asked for is passed over.
    fn grown(&mut self, grown: guest::VolumeGrown) {
        if let Some(order) = self.growing.remove(&grown.volume) {
            let result = if grown.error.is_empty() { Ok(()) } else { Err(grown.error) };
            let _ = order.answer.send(result);
        }
    }

    /// All files of these volumes, in frames that hold them.
    fn say_files(&mut self, volumes: &[VolumeFiles]) {
        for message in volumes.iter().flat_map(files::messages) {
            self.say(&HostMessage::VolumeFiles(message));
        }
    }

    /// What clients have for the guest, as long as there is room for it.
    fn say_streams(&mut self, streams: &GuestStreams) {
        while self.out.len() < STREAM_BACKLOG_MAX
            && let Some(message) = streams.next_message()
        {
            self.say(&message);
        }
    }

    fn hello(&mut self) {
        // One that was not even written yet need not be said again.
        if self.out.is_empty() {
            self.say(&HostMessage::Hello(Hello { protocol_version: PROTOCOL_VERSION, asks_by_https: true }));
        }
    }

    /// Asks whether the guest lives; true when too many such questions had no answer. A Hello is one, too.
    fn ask(&mut self) -> bool {
        let is_silent = self.unanswered >= SILENT_QUESTIONS;
        self.unanswered = self.unanswered.saturating_add(1);
        if self.greeted && self.out.len() < OUT_LENGTH_MAX {
            self.say(&HostMessage::Ping(Ping { number: self.unanswered.into() }));
        }
        is_silent
    }

    /// Reads and writes what can be; false when the guest closed its end.
    fn exchange(
        &mut self,
        stream: &UnixStream,
        ready: tokio::io::Ready,
        buffer: &mut [u8],
    ) -> io::Result<bool> {
        if ready.is_writable() && !self.out.is_empty() {
            match stream.try_write(&self.out) {
                Ok(length) => {
                    self.out.drain(..length);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if ready.is_readable() {
            match stream.try_read(buffer) {
                Ok(0) => return Ok(false),
                Ok(length) => self.reader.push(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn next_resumption(&self) -> Option<Instant> {
        self.behind.values().map(|behind| behind.ask_at).min()
    }

    /// Asks again for output that could not be kept.
    fn resume_logs(&mut self) {
        let now = Instant::now();
        let mut wishes = Vec::new();
        for (container, behind) in self.behind.iter_mut().filter(|(_, behind)| behind.ask_at <= now) {
            behind.ask_at = now + LOG_RETRY;
            wishes.push(ResumeLogs { container: container.clone(), from_offset: behind.from_offset });
        }
        if self.out.len() < OUT_LENGTH_MAX {
            wishes.into_iter().for_each(|wish| self.say(&HostMessage::ResumeLogs(wish)));
        }
    }

    fn next_end(&self) -> Option<Instant> {
        self.ending.values().map(|(_, at)| *at).min()
    }

    fn end_runs(&mut self, logs: &PodLogs) {
        let now = Instant::now();
        self.ending.retain(|container, (run, at)| {
            let waits = *at > now;
            if !waits {
                logs.ended(container, *run);
            }
            waits
        });
    }

    fn acknowledge(&mut self) {
        for (container, up_to_offset) in std::mem::take(&mut self.acks) {
            if self.out.len() < OUT_LENGTH_MAX {
                self.say(&HostMessage::AckLogs(AckLogs { container, up_to_offset }));
            }
        }
    }

    async fn pace(&mut self) {
        let begun = *self.second.get_or_insert_with(Instant::now);
        if begun.elapsed() >= Duration::from_secs(1) {
            (self.second, self.states) = (Some(Instant::now()), 0);
        }
        self.states += 1;
        if self.states > STATES_PER_SECOND_MAX {
            tokio::time::sleep_until(begun + Duration::from_secs(1)).await;
        }
    }
}

mod abilities;
mod files;
mod meter;
mod resize;

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;
