//! The loop: one thread, one epoll, everything the guest reacts to.
//!
//! ```text
//!  port ──► host messages ─┐                       ┌─► processes (start, signal)
//!  SIGCHLD ─► ends ────────┼─► Supervisor ─► actions ┼─► channel ─► port
//!  exec pipes ─► starts ───┤                       └─► power-off
//!  timers ─────────────────┘      pipes ─► LogRing ─► channel ◄─► Streams ◄─► commands, connections
//! ```

mod freezing;
mod giving;
mod handing;
mod pipes;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use bulkhead_guest_http::Failure;
use bulkhead_guest_protocol::guest::{self, GuestMessage, PodPhase};
use bulkhead_guest_protocol::host::{self, Check, HostMessage, PodConfig, StreamKind};
use bulkhead_guest_protocol::{PROTOCOL_VERSION, TEXT_LENGTH_MAX};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::cgroup::{Cgroup, UsageSample};
use crate::channel::Channel;
use crate::container::{Container, ExecReport, PodFiles};
use crate::freeze::Freezer;
use crate::handed_over::HandedOver;
use crate::ownership::Giver;
use crate::streams::Streams;
use crate::supervisor::{Action, Event, Now, Supervisor, Task};
use crate::task::TaskProcess;
use crate::volumes::Volumes;
use crate::{message, network, pages, resize, sysctl};
use pipes::Pipe;

/// How long a finished pod waits for the host to acknowledge its logs.
const LAST_LOGS_WAIT_MS: u64 = 5_000;
/// How long the farewell may take to leave.
const FAREWELL_WAIT_MS: u64 = 1_000;
/// A container whose log is full waits this long for the host's next acknowledgement; then the oldest is dropped.
const LOG_STALL_MS: u64 = 5_000;
/// The rest of a frame follows its head at once unless its writer died.
const PARTIAL_FRAME_WAIT_MS: u64 = 1_000;
/// How often usage is reported where the configuration does not say it.
const USAGE_INTERVAL_MS: u64 = 10_000;
/// Events taken from the kernel at once.
const EVENTS_PER_WAIT: usize = 64;
/// How often output is moved before other events are looked at again.
const PUMP_ROUNDS_MAX: usize = 16;

const TOKEN_SIGNAL: u64 = 0;
const TOKEN_PORT: u64 = 1;
const TOKEN_FREEZER: u64 = 2;
const TOKEN_GIVER: u64 = 3;
/// Container `i` uses the four numbers from `TOKEN_CONTAINERS + 4 * i`.
const TOKEN_CONTAINERS: u64 = 4;
/// Task `n` uses the number `TOKEN_TASKS + n`; containers have far fewer.
const TOKEN_TASKS: u64 = 1 << 32;
/// Streams use the numbers from here on; there are far fewer tasks.
const TOKEN_STREAMS: u64 = 1 << 48;

/// The configured pod.
struct Pod {
    supervisor: Supervisor,
    containers: Vec<Container>,
    files: PodFiles,
    cgroup: Option<Cgroup>,
    sandbox_id: String,
    trace_context: String,
    usage_interval_ms: u64,
    usage_due_ms: u64,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug)]
enum Ending {
    No,
    /// Waits for the host to acknowledge the logs.
    LastLogs {
        reason: &'static str,
        until_ms: u64,
    },
    /// The farewell is on its way.
    Farewell {
        until_ms: u64,
    },
}

/// The loop and all it owns.
pub(crate) struct Agent {
    epoll: Epoll,
    signals: SignalFd,
    channel: Channel,
    pod: Option<Pod>,
    volumes: Volumes,
    ending: Ending,
    boot_ms: u64,
    now: Now,
    /// Pipes that are not read because their log is full.
    paused: Vec<(usize, Pipe)>,
    acked_at_ms: u64,
    partial_since_ms: Option<u64>,
    /// Probes and hooks that are being done.
    tasks: Vec<TaskProcess>,
    streams: Streams,
    /// Probes and hooks that the host does.
    handed_over: HandedOver,
    /// The volume that stands still.
    freezer: Option<Freezer>,
    /// What gives the volumes to the pod's group, before it begins.
    giver: Option<Giver>,
    /// There may be more output to move although nothing else happens.
    is_behind: bool,
}

impl Agent {
    /// Opens the port and starts to listen.
    pub(crate) fn open(port: &PathBuf, boot_ms: u64) -> Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block().context("block SIGCHLD")?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let channel = Channel::open(port).with_context(|| format!("open {}", port.display()))?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_SIGNAL))?;
        // Edge-triggered: while the host's end is closed, the port reports a hang-up at every look.
        let port_flags =
            EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLHUP | EpollFlags::EPOLLET;
        epoll.add(channel.fd(), EpollEvent::new(port_flags, TOKEN_PORT))?;
        Ok(Self {
            epoll,
            signals,
            channel,
            pod: None,
            volumes: Volumes::default(),
            ending: Ending::No,
            boot_ms,
            now: read_clocks(),
            paused: Vec::new(),
            acked_at_ms: 0,
            partial_since_ms: None,
            tasks: Vec::new(),
            streams: Streams::default(),
            handed_over: HandedOver::default(),
            freezer: None,
            giver: None,
            is_behind: false,
        })
    }

    /// Runs until the guest has nothing left to do. The caller powers off.
    pub(crate) fn run(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS_PER_WAIT];
        loop {
            let count = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(error) => return Err(error).context("wait for events"),
            };
            self.now = read_clocks();
            for event in &events[..count] {
                self.on_event(event.data(), event.events());
            }
            self.on_timers();
            self.resume_paused();
            self.pump();
            self.end_inputs();
            if self.is_over() {
                self.unmount();
                return Ok(());
            }
        }
    }

    fn on_event(&mut self, token: u64, flags: EpollFlags) {
        match token {
            TOKEN_SIGNAL => {
                while let Ok(Some(_)) = self.signals.read_signal() {}
                self.reap();
            }
            TOKEN_PORT => self.on_port(flags),
            TOKEN_FREEZER => self.on_freezer(),
            TOKEN_GIVER => self.on_giver(),
            token if token >= TOKEN_STREAMS => self.streams.on_event(token - TOKEN_STREAMS, flags),
            token if token >= TOKEN_TASKS => {
                // Closing the pipe removes it from epoll.
                let task = self.tasks.iter_mut().find(|task| TOKEN_TASKS + task.number == token);
                task.into_iter().for_each(TaskProcess::read_output);
            }
            token => {
                let number = token - TOKEN_CONTAINERS;
                let index = usize::try_from(number / 4).expect("tokens are small");
                let pipe = [Pipe::Exec, Pipe::Stdout, Pipe::Stderr][(number % 4) as usize];
                self.on_pipe(index, pipe);
            }
        }
    }

    fn on_port(&mut self, flags: EpollFlags) {
        // First the hang-up: the news that the host has opened its end again travels apart from the data and may come
        // later than the first message, which must not be thrown away.
        if flags.contains(EpollFlags::EPOLLHUP) {
            self.channel.on_hangup();
            self.host_is_gone();
            self.streams.close_all(self.now.monotonic_ms);
            // Nobody is there who would say that it may go on.
            self.let_go();
        }
        let messages = self.channel.read();
        self.on_messages(messages);
        self.partial_since_ms = self.channel.is_partial().then_some(self.now.monotonic_ms);
        self.channel.flush();
    }

    fn on_messages(&mut self, messages: Vec<HostMessage>) {
        for message in messages {
            match message {
                HostMessage::Hello(hello) => self.on_hello(&hello),
                HostMessage::Configure(configure) => self.configure(configure.pod.expect("validated")),
                HostMessage::ResumeLogs(resume) => {
                    if let Some(container) = self.container_mut(&resume.container) {
                        container.logs.resume(resume.from_offset);
                    }
                }
                HostMessage::AckLogs(ack) => {
                    self.acked_at_ms = self.now.monotonic_ms;
                    if let Some(container) = self.container_mut(&ack.container) {
                        container.logs.ack(ack.up_to_offset);
                    }
                }
                HostMessage::VolumeFiles(files) => self.volumes.take(files, self.pod.is_some()),
                HostMessage::GrowVolume(grow) => {
                    let result = self.volumes.grow(&grow.volume, grow.disk_bytes);
                    let mut error = result.err().map_or_else(String::new, |error| format!("{error:#}"));
                    error.truncate(error.floor_char_boundary(TEXT_LENGTH_MAX));
                    let grown = guest::VolumeGrown { volume: grow.volume, error };
                    self.channel.send(&GuestMessage::VolumeGrown(grown));
                }
                HostMessage::Resize(resize) => self.resize(&resize),
                HostMessage::Reseed(reseed) => {
                    let result = crate::reseed::reseed(&reseed, self.pod.is_some());
                    // Timers that count by the other guest's clock would be wrong; there are none before there is a pod.
                    self.now = read_clocks();
                    let mut error = result.err().map_or_else(String::new, |error| format!("{error:#}"));
                    error.truncate(error.floor_char_boundary(TEXT_LENGTH_MAX));
                    self.channel.send(&GuestMessage::Reseeded(guest::Reseeded { error }));
                }
                HostMessage::HostAnswer(answer) => {
                    if let Some((index, task)) = self.handed_over.answered(answer.number) {
                        let outcome = if answer.error.is_empty() { Ok(()) } else { Err(answer.error) };
                        self.supervise(Event::Done { index, task, number: answer.number, outcome });
                    }
                }
                HostMessage::FreezeVolume(freeze) => self.freeze(freeze),
                HostMessage::Stop(stop) => self.stop(stop),
                HostMessage::Ping(ping) => {
                    self.channel.send(&GuestMessage::Pong(guest::Pong { number: ping.number }));
                }
                HostMessage::StreamOpen(open) => self.open_stream(open),
                HostMessage::StreamData(data) => self.streams.data(data),
                HostMessage::StreamCredit(credit) => self.streams.credit(credit),
                HostMessage::StreamResize(resize) => {
                    self.streams.resize(resize.stream, resize.size.unwrap_or_default());
                }
                HostMessage::StreamClose(close) => self.streams.close(close.stream, self.now.monotonic_ms),
            }
        }
    }

    fn open_stream(&mut self, open: host::StreamOpen) {
        let container = match &open.kind {
            Some(StreamKind::Exec(exec)) => exec.container.as_str(),
            Some(StreamKind::ReadFiles(files) | StreamKind::WriteFiles(files)) => files.container.as_str(),
            Some(StreamKind::Attach(attach)) => attach.container.as_str(),
            Some(StreamKind::ReadLogs(logs)) => logs.container.as_str(),
            Some(StreamKind::Connect(_)) | None => "",
        };
        let mut containers = self.pod.iter().flat_map(|pod| &pod.containers);
        let target = containers.find(|one| one.config.name == container).and_then(Container::target);
        if let Some(answer) = self.streams.open(open, target.as_ref(), &self.epoll, TOKEN_STREAMS) {
            self.channel.send(&answer);
        }
    }

    fn on_hello(&mut self, hello: &host::Hello) {
        if hello.protocol_version != PROTOCOL_VERSION {
            eprintln!(
                "bulkhead-guest: the agent speaks protocol version {}, this guest {PROTOCOL_VERSION}",
                hello.protocol_version
            );
        }
        self.channel.on_hello();
        self.volumes.forget_partial();
        self.host_is_gone();
        self.handed_over.host_came(hello.asks_by_https);
        self.streams.close_all(self.now.monotonic_ms);
        self.acked_at_ms = self.now.monotonic_ms;
        let mut answer = guest::Hello {
            protocol_version: PROTOCOL_VERSION,
            boot_ms: self.boot_ms,
            uptime_ms: read_clocks().monotonic_ms,
            kernel_release: crate::setup::kernel_release(),
            streams: true,
            attach: true,
            grows_volumes: true,
            huge_pages: true,
            resizes: true,
            reseeds: true,
            hands_over_https: true,
            freezes_volumes: true,
            ..Default::default()
        };
        let mut states = Vec::new();
        if let Some(pod) = &mut self.pod {
            answer.configured = true;
            answer.sandbox_id.clone_from(&pod.sandbox_id);
            answer.trace_context.clone_from(&pod.trace_context);
            let count = pod.supervisor.container_count();
            answer.container_count = u32::try_from(count).expect("CONTAINERS_MAX is small");
            pod.containers.iter_mut().for_each(|container| container.logs.rewind());
            states = pod.supervisor.states();
        }
        self.channel.send(&GuestMessage::Hello(answer));
        states.iter().for_each(|state| self.channel.send(state));
        for (number, index, task) in self.handed_over.all() {
            self.ask_host(index, task, number);
        }
    }

    fn configure(&mut self, config: PodConfig) {
        if self.pod.is_some() {
            eprintln!("bulkhead-guest: already configured, a second configuration is ignored");
            return;
        }
        eprintln!("bulkhead-guest: pod {} with {} containers", config.hostname, config.containers.len());
        let cgroup = Cgroup::make_pod(config.pids_max).context("make the pod's cgroup");
        let network = network::configure(&config).context("configure the network");
        let sysctls = sysctl::set_all(&config.sysctls);
        let pages = pages::set_aside(&config);
        let volumes = self.volumes.configure(&config).and_then(|()| message::mount());
        let usage_interval_ms =
            if config.usage_interval_ms == 0 { USAGE_INTERVAL_MS } else { config.usage_interval_ms };
        let failure = cgroup
            .as_ref()
            .err()
            .or(network.as_ref().err())
            .or(sysctls.as_ref().err())
            .or(pages.as_ref().err())
            .or(volumes.as_ref().err())
            .map(|error| format!("{error:#}"));
        self.streams.own_address = config.own_address();
        let all = config.init_containers.iter().chain(&config.containers);
        self.pod = Some(Pod {
            supervisor: Supervisor::new(&config),
            containers: all.map(|container| Container::new(container.clone())).collect(),
            files: PodFiles {
                hostname: config.hostname.clone(),
                pids_max: config.pids_max,
                hosts: network::hosts_file(&config),
                resolv_conf: network::resolv_conf(&config),
                sysctls: config.sysctls,
            },
            cgroup: cgroup.ok(),
            sandbox_id: config.sandbox_id,
            trace_context: config.trace_context,
            usage_interval_ms,
            usage_due_ms: self.now.monotonic_ms + usage_interval_ms,
        });
        match failure {
            None => self.begin(config.fs_group),
            Some(message) => self.fail(message),
        }
    }

    /// Other sizes, as far as they can be had now; says what came of it.
    fn resize(&mut self, order: &host::Resize) {
        let containers = self.pod.as_mut().map(|pod| pod.containers.as_mut_slice()).unwrap_or_default();
        let mut answer = guest::Resized { number: order.number, ..Default::default() };
        match resize::resize(order, containers) {
            Ok(done) => {
                answer.cpus = done.cpus;
                for index in done.restart {
                    self.supervise(Event::Restart { index });
                }
            }
            Err(resize::Failure::InUse(why)) => (answer.in_use, answer.error) = (true, why),
            Err(resize::Failure::Other(error)) => answer.error = format!("{error:#}"),
        }
        answer.error.truncate(answer.error.floor_char_boundary(TEXT_LENGTH_MAX));
        self.channel.send(&GuestMessage::Resized(answer));
    }

    /// The pod cannot run at all: says why and ends.
    fn fail(&mut self, mut message: String) {
        eprintln!("bulkhead-guest: {message}");
        message.truncate(message.floor_char_boundary(TEXT_LENGTH_MAX));
        let state =
            guest::PodState { phase: PodPhase::Failed as i32, reason: "SandboxFailed".into(), message };
        self.channel.send(&GuestMessage::PodState(state));
        self.power_off_soon("Fatal");
    }

    fn stop(&mut self, stop: host::Stop) {
        if self.pod.is_some() {
            self.supervise(Event::Stop { grace_ms: stop.grace_ms });
        } else {
            self.power_off_soon("Stopped");
        }
    }

    /// Feeds the supervisor and carries out what it orders; what fails at once comes back as an event. This ends
    /// because a container that cannot start is only tried again at once the first time.
    fn supervise(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let Some(pod) = &mut self.pod else { return };
            for action in pod.supervisor.handle(event, self.now) {
                if let Some(event) = self.act(action) {
                    events.push_back(event);
                }
            }
        }
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        let pod = self.pod.as_mut().expect("only a pod has a supervisor");
        match action {
            Action::Start { index, instance } => {
                return match pod.containers[index].start(instance, &pod.files, &self.volumes) {
                    Ok(()) => {
                        self.watch(index);
                        None
                    }
                    Err(outcome) => {
                        eprintln!(
                            "bulkhead-guest: {}: {}",
                            pod.containers[index].config.name, outcome.message
                        );
                        Some(Event::Ended { index, outcome })
                    }
                };
            }
            Action::Terminate { index } => pod.containers[index].ask_to_end(),
            Action::Kill { index } => pod.containers[index].signal(Signal::SIGKILL),
            Action::Do { index, task, number } => {
                let check = pod.containers[index].check(task).and_then(|check| check.kind.as_ref());
                if matches!(check, Some(Check::Https(_))) {
                    return self.hand_over(index, task, number);
                }
                let outcome = self.begin_task(index, task, number).err()?;
                return Some(Event::Done { index, task, number, outcome: Err(format!("{outcome:#}")) });
            }
            Action::Abandon { number } => {
                self.handed_over.answered(number);
                for task in self.tasks.extract_if(.., |task| task.number == number) {
                    task.kill();
                }
            }
            Action::Report(message) => self.channel.send(&message),
            Action::PowerOff { reason } => self.power_off_soon(reason),
        }
        None
    }

    /// Starts a probe or hook; its end is told when its process is reaped.
    fn begin_task(&mut self, index: usize, task: Task, number: u64) -> Result<()> {
        let container = &self.pod.as_ref().expect("only a pod has a supervisor").containers[index];
        let check = container.check(task).context("there is no such probe or hook")?;
        let target = container.target().context("the container does not run")?;
        let own = self.streams.own_address;
        let process = TaskProcess::start((index, task, number), check, own, &target)?;
        let output = process.output.as_ref().expect("a new process prints");
        let event = EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_TASKS + number);
        self.epoll.add(output, event).expect("a new pipe can be watched");
        self.tasks.push(process);
        Ok(())
    }

    fn power_off_soon(&mut self, reason: &'static str) {
        if matches!(self.ending, Ending::No) {
            self.ending = Ending::LastLogs { reason, until_ms: self.now.monotonic_ms + LAST_LOGS_WAIT_MS };
        }
    }

    fn reap(&mut self) {
        loop {
            let status = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(status) => status,
            };
            let Some(pid) = status.pid() else { continue };
            if let Some(at) = self.tasks.iter().position(|task| task.has_pid(pid)) {
                let done = self.tasks.swap_remove(at);
                let (index, task, number) = (done.index, done.task, done.number);
                match done.finish(status) {
                    Err(Failure::NeedsTls) => {
                        let event = self.hand_over(index, task, number);
                        event.into_iter().for_each(|event| self.supervise(event));
                    }
                    Err(Failure::Text(text)) => {
                        self.supervise(Event::Done { index, task, number, outcome: Err(text) });
                    }
                    Ok(()) => self.supervise(Event::Done { index, task, number, outcome: Ok(()) }),
                }
                continue;
            }
            if self.streams.reap(pid, status) {
                continue;
            }
            let Some(pod) = &mut self.pod else { continue };
            let Some(index) = pod.containers.iter().position(|container| container.has_pid(pid)) else {
                continue;
            };
            self.paused.retain(|&(paused, _)| paused != index);
            let (executed, outcome) = pod.containers[index].finish(status, self.now.wall_ms);
            self.streams.end_attached(pid, outcome.exit_code);
            if executed == ExecReport::Executing {
                self.supervise(Event::Started { index });
            }
            self.supervise(Event::Ended { index, outcome });
        }
    }

    fn on_timers(&mut self) {
        let now_ms = self.now.monotonic_ms;
        if self.partial_since_ms.is_some_and(|since_ms| now_ms >= since_ms + PARTIAL_FRAME_WAIT_MS) {
            let messages = self.channel.abandon_partial();
            self.on_messages(messages);
            self.partial_since_ms = self.channel.is_partial().then_some(now_ms);
        }
        self.streams.on_time(now_ms);
        let Some(pod) = &mut self.pod else { return };
        if now_ms >= pod.usage_due_ms {
            pod.usage_due_ms = now_ms + pod.usage_interval_ms;
            self.report_usage();
            let containers = self.pod.iter().flat_map(|pod| &pod.containers);
            if let Some(message) = containers.into_iter().find_map(Container::exceeds_its_storage) {
                self.supervise(Event::Evict { message });
            }
        }
        if self
            .pod
            .as_ref()
            .and_then(|pod| pod.supervisor.next_deadline_ms())
            .is_some_and(|due_ms| now_ms >= due_ms)
        {
            self.supervise(Event::Tick);
        }
    }

    fn report_usage(&mut self) {
        let Some(pod) = &self.pod else { return };
        let message = |container: &str, sample: UsageSample| {
            GuestMessage::Usage(guest::Usage {
                container: container.into(),
                cpu_usec: sample.cpu_usec,
                memory_bytes: sample.memory_bytes,
                time_ms: self.now.wall_ms,
            })
        };
        if let Some(cgroup) = &pod.cgroup {
            self.channel.send(&message("", cgroup.usage()));
        }
        for container in &pod.containers {
            if let Some(sample) = container.usage() {
                self.channel.send(&message(&container.config.name, sample));
            }
        }
    }

    fn is_over(&mut self) -> bool {
        let now_ms = self.now.monotonic_ms;
        if let Ending::LastLogs { reason, until_ms } = self.ending {
            let pod = self.pod.as_ref();
            let acked = pod.is_none_or(|pod| pod.containers.iter().all(|c| c.logs.is_acknowledged()));
            let told = self.channel.is_connected() && self.channel.is_flushed() && acked;
            if told || now_ms >= until_ms {
                let message = if acked { "" } else { "the last logs were not acknowledged in time" };
                let stopping = guest::Stopping { reason: reason.into(), message: message.into() };
                self.channel.send(&GuestMessage::Stopping(stopping));
                self.channel.flush();
                self.ending = Ending::Farewell { until_ms: now_ms + FAREWELL_WAIT_MS };
            }
        }
        match self.ending {
            Ending::Farewell { until_ms } => self.channel.is_flushed() || now_ms >= until_ms,
            Ending::No | Ending::LastLogs { .. } => false,
        }
    }

    fn unmount(&mut self) {
        self.let_go();
        self.forget_giver();
        if let Some(pod) = &mut self.pod {
            pod.containers.iter_mut().for_each(Container::unmount);
        }
    }

    fn timeout(&self) -> EpollTimeout {
        let ending = match self.ending {
            Ending::No => None,
            Ending::LastLogs { until_ms, .. } | Ending::Farewell { until_ms } => Some(until_ms),
        };
        let stall = (!self.paused.is_empty()).then_some(self.acked_at_ms + LOG_STALL_MS);
        let partial = self.partial_since_ms.map(|since_ms| since_ms + PARTIAL_FRAME_WAIT_MS);
        let pod = self.pod.as_ref();
        let usage = pod.map(|pod| pod.usage_due_ms);
        let supervisor = pod.and_then(|pod| pod.supervisor.next_deadline_ms());
        let streams = self.streams.next_deadline_ms();
        if self.is_behind {
            return EpollTimeout::ZERO;
        }
        let next = [ending, stall, partial, usage, supervisor, streams].into_iter().flatten().min();
        let Some(due_ms) = next else { return EpollTimeout::NONE };
        let left_ms = due_ms.saturating_sub(read_clocks().monotonic_ms);
        EpollTimeout::try_from(left_ms).unwrap_or(EpollTimeout::MAX)
    }

    fn container_mut(&mut self, name: &str) -> Option<&mut Container> {
        self.pod.as_mut()?.containers.iter_mut().find(|container| container.config.name == name)
    }
}

/// Both clocks in milliseconds.
pub(crate) fn read_clocks() -> Now {
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every kernel has this clock");
    let millis = |seconds: i64, nanos: i64| u64::try_from(seconds * 1000 + nanos / 1_000_000).unwrap_or(0);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        monotonic_ms: millis(boot.tv_sec(), boot.tv_nsec()),
        wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
    }
}
