//! What an agent wants done on its node, done; and what guests do by themselves.

use bulkhead_nodeagent_core::{Action, Input, ResizeFailure, ResizeVm, Resized, StartVm, VmRecord};
use bulkhead_types::{ObjectId, PodPhase, RestartPolicy, Shared, VolumeOrder, digest128, larger_sizes};
use smol_str::SmolStr;

use crate::clock::Micros;
use crate::devices;
use crate::hypervisor::Guest;
use crate::invariants::{physical, resizes};
use crate::network::Host;
use crate::world::{Phase, World};

/// A container that failed starts again after this time, in microseconds.
const CONTAINER_RESTART_US: Micros = 1_000_000;
/// Longest run of a container that ends by itself, in microseconds.
const JOB_US_MAX: Micros = 8_000_000;
/// Longest time in which a container that does not serve does so again, in microseconds.
const PROBE_US_MAX: Micros = 3_000_000;
/// Longest time that a guest takes to get other sizes, in microseconds.
const RESIZE_US_MAX: Micros = 3_000_000;
/// How often that fails, and how often it is refused, in thousandths.
const RESIZE_FAILURE_PERMILLE: u64 = 100;
/// Longest time to a container's crash, in microseconds.
const CRASH_US_MAX: Micros = 30_000_000;

/// Something that happens on a node. What the agent does carries the agent's life: it is undone by its death.
#[derive(Debug)]
pub(crate) enum GuestEvent {
    Record {
        life: u32,
        record: Box<VmRecord>,
    },
    Forget {
        life: u32,
        pod: ObjectId,
    },
    Image {
        life: u32,
        pod: ObjectId,
        container: SmolStr,
        image: SmolStr,
        available: bool,
    },
    Start {
        life: u32,
        start: Box<StartVm>,
    },
    /// A guest begins to get other sizes, and then has them.
    Resize {
        life: u32,
        order: Box<ResizeVm>,
        begun: bool,
    },
    Stop {
        life: u32,
        pod: ObjectId,
        instance: u32,
        grace_ms: u64,
    },
    Kill {
        life: u32,
        pod: ObjectId,
        instance: u32,
    },
    Clean {
        life: u32,
        pod: ObjectId,
    },
    /// The guest says its first word.
    Hello {
        pod: ObjectId,
        instance: u32,
    },
    /// A container starts.
    Begin {
        pod: ObjectId,
        instance: u32,
        container: usize,
    },
    /// A container ends; only if it was not started again since.
    End {
        pod: ObjectId,
        instance: u32,
        container: usize,
        restarts: u32,
        exit_code: i32,
    },
    /// What a container's readiness probe says changes; only if it was not started again since.
    Probe {
        pod: ObjectId,
        instance: u32,
        container: usize,
        restarts: u32,
        ready: bool,
    },
    /// A guard's timer goes off.
    GuardWake {
        pod: ObjectId,
        instance: u32,
    },
    /// A guard's SIGKILL has its effect.
    GuardKill {
        pod: ObjectId,
        instance: u32,
    },
    /// Something with a volume is done.
    VolumeTask {
        life: u32,
        order: VolumeOrder,
        guest: Option<(ObjectId, u32)>,
    },
    /// Everything in the guest has ended, or was asked to.
    PowerOff {
        pod: ObjectId,
        instance: u32,
    },
}

impl World {
    /// Does what an agent wants done about a pod, in the order in which it asks.
    pub(crate) fn act_on_pod(&mut self, number: u32, action: Action) {
        let options = self.options.node.clone();
        let host = &mut self.agents[number as usize];
        let life = host.life;
        let start_us = host.rng.range(1000, options.vm_start_us_max);
        let short_us = host.rng.range(100, 5000);
        let kill_us = host.rng.range(100, options.kill_us_max);
        let (pod, takes_us, event) = match action {
            Action::Prepare { pod } => return self.prepare(number, &pod),
            Action::PersistRecord(record) => (record.pod, short_us, GuestEvent::Record { life, record }),
            Action::ForgetRecord { pod } => (pod, short_us, GuestEvent::Forget { life, pod }),
            Action::StartVm(start) => (start.pod.id, start_us, GuestEvent::Start { life, start }),
            Action::ResizeVm(order) => {
                (order.pod.id, short_us, GuestEvent::Resize { life, order, begun: false })
            }
            Action::StopVm { pod, instance, grace_ms } => {
                (pod, short_us, GuestEvent::Stop { life, pod, instance, grace_ms })
            }
            Action::KillVm { pod, instance } => (pod, kill_us, GuestEvent::Kill { life, pod, instance }),
            Action::CleanUp { pod, .. } => (pod, short_us, GuestEvent::Clean { life, pod }),
            // Guests of a simulation hold no files.
            Action::UpdateFiles { .. } | Action::SetCpus { .. } => return,
            Action::Join
            | Action::Report(_)
            | Action::PersistLease { .. }
            | Action::DeleteVolume { .. }
            | Action::VolumeTask { .. }
            | Action::SetGpuMode(_)
            | Action::SetNics(_)
            | Action::Note(_) => return,
        };
        let free_us = host.busy_until_us.get(&pod).copied().unwrap_or(0).max(self.now_us);
        let done_us = free_us + takes_us;
        host.busy_until_us.insert(pod, done_us);
        let after_us = done_us - self.now_us;
        self.later(number, after_us, event);
    }

    fn prepare(&mut self, number: u32, pod: &bulkhead_types::PodIntent) {
        let failure_permille = self.failures(self.options.node.image_failure_permille);
        let containers = pod.spec.init_containers.iter().chain(&pod.spec.containers);
        let names: Vec<_> = containers.map(|c| (c.name.clone(), c.image.clone())).collect();
        for (container, image) in names {
            let host = &mut self.agents[number as usize];
            let available = !host.rng.chance(failure_permille);
            let after_us = host.rng.range(1000, 300_000);
            let life = host.life;
            self.later(
                number,
                after_us,
                GuestEvent::Image { life, pod: pod.id, container, image, available },
            );
        }
    }

    /// A rate of failures: none once the faults are over.
    pub(crate) fn failures(&self, permille: u64) -> u64 {
        if self.phase == Phase::Safety { permille } else { 0 }
    }

    /// Something happens on a node.
    pub(crate) fn guest_event(&mut self, number: u32, boot: u32, event: GuestEvent) {
        let host = &self.agents[number as usize];
        if host.boot != boot {
            return;
        }
        let lives = |life: u32| host.is_up() && host.life == life;
        match event {
            GuestEvent::Record { life, record } if lives(life) => {
                self.agents[number as usize].hypervisor.records.insert(record.pod, *record);
            }
            GuestEvent::Forget { life, pod } if lives(life) => {
                self.agents[number as usize].hypervisor.records.remove(&pod);
            }
            GuestEvent::Image { life, pod, container, image, available } if lives(life) => {
                if available {
                    self.keep_image(number, &image);
                }
                let input = if available {
                    let digest = SmolStr::new_static("sha256:00");
                    Input::ImageReady { pod, container, digest }
                } else {
                    let reason = SmolStr::new_static("ErrImagePull");
                    Input::ImageFailed { pod, container, reason, message: "simulated".to_owned() }
                };
                self.tell_agent(number, input);
            }
            GuestEvent::Start { life, start } if lives(life) => self.start_guest(number, *start),
            GuestEvent::Resize { life, order, begun } if lives(life) => match begun {
                false => self.resize_begins(number, order),
                true => self.resize_ends(number, *order),
            },
            GuestEvent::Stop { life, pod, instance, grace_ms } if lives(life) => {
                self.stop_guest(number, pod, instance, grace_ms);
            }
            GuestEvent::Kill { life, pod, instance } if lives(life) => {
                self.kill_guest(number, pod, instance);
            }
            GuestEvent::Clean { life, pod } if lives(life) => self.clean_guest(number, pod),
            GuestEvent::VolumeTask { life, order, guest } if lives(life) => {
                self.end_volume_task(number, order, guest);
            }
            GuestEvent::Hello { pod, instance } => self.guest_speaks(number, pod, instance),
            GuestEvent::Begin { pod, instance, container } => {
                self.container_begins(number, pod, instance, container);
            }
            GuestEvent::End { pod, instance, container, restarts, exit_code } => {
                self.container_ends(number, pod, instance, (container, restarts, exit_code));
            }
            GuestEvent::Probe { pod, instance, container, restarts, ready } => {
                self.probe_says(number, pod, instance, (container, restarts, ready));
            }
            GuestEvent::GuardWake { pod, instance } => self.guard_wakes(number, pod, instance),
            GuestEvent::GuardKill { pod, instance } => {
                self.end_guest(number, pod, instance, "signal 9");
            }
            GuestEvent::PowerOff { pod, instance } => {
                self.end_guest(number, pod, instance, "exit status 0");
            }
            _ => {}
        }
    }

    fn start_guest(&mut self, number: u32, start: StartVm) {
        let (failure, mute, stubborn) = {
            let options = &self.options.node;
            let rates = (options.start_failure_permille, options.mute_permille, options.stubborn_permille);
            (self.failures(rates.0), self.failures(rates.1), self.failures(rates.2))
        };
        let now_us = self.now_us;
        let (pod, instance) = (start.pod.id, start.instance);
        let host = &mut self.agents[number as usize];
        if host.rng.chance(failure) {
            let reason = SmolStr::new_static("GuestStartFailed");
            let message = "simulated".to_owned();
            return self.tell_agent(number, Input::VmStartFailed { pod, instance, reason, message });
        }
        let guard = match host.guard(&start, now_us) {
            Ok(guard) => guard,
            Err(reason) => {
                let (reason, message) = (SmolStr::new_static(reason), "simulated".to_owned());
                return self.tell_agent(number, Input::VmStartFailed { pod, instance, reason, message });
            }
        };
        let started_at_ms = host.clock.wall_ms(now_us);
        let stubborn = host.rng.chance(stubborn);
        let boot_us = host.rng.range(50_000, self.options.node.boot_us_max);
        let is_mute = host.rng.chance(mute);
        let devices = devices::of_guest(&start.pod);
        let own = start.address.map(std::net::IpAddr::from);
        let addresses = start.pod.networks.iter().filter_map(|one| one.address).chain(own).collect();
        let (volumes, volumes_read) = self.give_volumes(number, &start.pod);
        let host = &mut self.agents[number as usize];
        let mut guest = Guest::new(instance, start.pod.spec, started_at_ms, stubborn);
        (guest.volumes, guest.volumes_read) = (volumes, volumes_read);
        guest.guard = guard;
        guest.devices = devices;
        guest.cpus = start.pod.cpus;
        guest.addresses = addresses;
        guest.unique = start.pod.unique.then_some((start.pod.namespace, start.pod.name));
        let former = host.hypervisor.guests.insert(pod, guest);
        let verdict = physical::start(&physical::Start {
            pod,
            node: host.node,
            bound: self.chronicle.binding(pod),
            over: self.chronicle.is_over(pod),
            former: former.map(|guest| guest.instance),
            held: host.hypervisor.held(),
            guests: host.hypervisor.guests.len(),
            allocatable: host.allocatable,
            pods_max: host.pods_max,
        });
        self.judge(verdict);
        self.check_devices(number);
        self.check_cpus(number);
        self.check_once(number, pod);
        self.arm_guard(number, pod);
        self.counts.guests += 1;
        self.note(Host::Agent(number), "guest starts", digest128(&(pod, instance)), || {
            format!("pod {pod} instance {instance}")
        });
        if !is_mute {
            self.later(number, boot_us, GuestEvent::Hello { pod, instance });
        }
        self.tell_agent(number, Input::VmStarted { pod, instance, started_at_ms });
    }

    /// An agent begins to give a guest other sizes: from now on it may hold the larger of both.
    fn resize_begins(&mut self, number: u32, order: Box<ResizeVm>) {
        let host = &mut self.agents[number as usize];
        let (life, allocatable) = (host.life, host.allocatable);
        let after_us = host.rng.range(1000, RESIZE_US_MAX);
        let Some(guest) = host.hypervisor.guest(order.pod.id, order.instance) else { return };
        let both = larger_sizes(&guest.spec.sizes(), &order.pod.spec.sizes());
        guest.spec = Shared::new(guest.spec.resized(&both));
        let held = host.hypervisor.held();
        self.judge(resizes::held(held, allocatable));
        self.later(number, after_us, GuestEvent::Resize { life, order, begun: true });
    }

    /// A guest has other sizes, or could not get them. What fails is anything between; what is refused is as it was.
    fn resize_ends(&mut self, number: u32, order: ResizeVm) {
        let failures = self.failures(RESIZE_FAILURE_PERMILLE);
        let host = &mut self.agents[number as usize];
        let (fails, refuses) = (host.rng.chance(failures), host.rng.chance(failures));
        let (pod, instance, sizes) = (order.pod.id, order.instance, order.pod.spec.sizes());
        let Some(guest) = host.hypervisor.guest(pod, instance) else { return };
        let failure = |reason: &'static str, refused| {
            let message = "simulated".to_owned();
            Err(ResizeFailure { reason: SmolStr::new_static(reason), message, refused })
        };
        let result = match (fails, refuses) {
            (true, _) => failure("ResizeFailed", false),
            (false, true) => {
                guest.spec = Shared::new(guest.spec.resized(&order.from));
                failure("GuestCannotResize", true)
            }
            (false, false) => {
                guest.spec = Shared::new(guest.spec.resized(&sizes));
                Ok(())
            }
        };
        let answer = Resized { pod, instance, sizes, result };
        self.tell_agent(number, Input::VmResized(Box::new(answer)));
    }

    /// A guest's process ends; tells whether there was one.
    pub(crate) fn end_guest(&mut self, number: u32, pod: ObjectId, instance: u32, status: &str) -> bool {
        let host = &mut self.agents[number as usize];
        if host.hypervisor.guest(pod, instance).is_none() {
            return false;
        }
        self.check_unique(number, pod);
        self.agents[number as usize].hypervisor.guests.remove(&pod);
        self.note(Host::Agent(number), "guest ends", digest128(&(pod, instance)), || {
            format!("pod {pod} instance {instance}: {status}")
        });
        self.tell_exit(number, pod, instance, status);
        true
    }

    /// Kills a guest's process. That there was none is an answer too.
    fn kill_guest(&mut self, number: u32, pod: ObjectId, instance: u32) {
        if !self.end_guest(number, pod, instance, "signal 9") {
            self.tell_exit(number, pod, instance, "no process");
        }
    }

    fn tell_exit(&mut self, number: u32, pod: ObjectId, instance: u32, status: &str) {
        let at_ms = self.agents[number as usize].clock.wall_ms(self.now_us);
        let (status, last_console) = (status.to_owned(), String::new());
        self.tell_agent(number, Input::VmExited { pod, instance, status, at_ms, last_console });
    }

    fn stop_guest(&mut self, number: u32, pod: ObjectId, instance: u32, grace_ms: u64) {
        let host = &mut self.agents[number as usize];
        let after_us = host.rng.range(1000, 1000 + grace_ms.min(2000) * 1000);
        let Some(guest) = host.hypervisor.guest(pod, instance) else { return };
        guest.stopping = true;
        if guest.stubborn {
            return;
        }
        self.later(number, after_us, GuestEvent::PowerOff { pod, instance });
    }

    fn clean_guest(&mut self, number: u32, pod: ObjectId) {
        let lives = self.agents[number as usize].hypervisor.guests.contains_key(&pod);
        let verdict = physical::gone("cleaned up", pod, lives);
        self.judge(verdict);
        self.tell_agent(number, Input::VmGone { pod });
    }

    fn guest_speaks(&mut self, number: u32, pod: ObjectId, instance: u32) {
        let host = &mut self.agents[number as usize];
        let Some(guest) = host.hypervisor.guest(pod, instance) else { return };
        guest.speaks = true;
        let begins = if guest.init_count() > 0 { 0..1 } else { 0..guest.containers.len() };
        self.tell_agent(number, Input::GuestHello { pod, instance });
        for container in begins {
            let after_us = self.agents[number as usize].rng.range(1000, 100_000);
            self.later(number, after_us, GuestEvent::Begin { pod, instance, container });
        }
    }

    fn container_begins(&mut self, number: u32, pod: ObjectId, instance: u32, container: usize) {
        let crash_permille = self.failures(self.options.node.container_crash_permille);
        let now_us = self.now_us;
        let host = &mut self.agents[number as usize];
        let at_ms = host.clock.wall_ms(now_us);
        let Some(guest) = host.hypervisor.guest(pod, instance).filter(|g| !g.stopping) else { return };
        let has_probe = self.options.node.unready_permille > 0;
        let status = guest.begin(container, at_ms, !has_probe);
        let is_init = container < guest.init_count();
        let runs_on = !is_init && guest.spec.restart_policy == RestartPolicy::Always;
        let crashes = host.rng.chance(if runs_on { crash_permille } else { crash_permille.max(1) * 3 });
        let run_us_max = if runs_on { CRASH_US_MAX } else { JOB_US_MAX };
        let run_us = host.rng.range(1000, run_us_max);
        if has_probe && !is_init {
            let after_us = host.rng.range(1000, PROBE_US_MAX);
            let (restarts, ready) = (status.restart_count, true);
            self.later(number, after_us, GuestEvent::Probe { pod, instance, container, restarts, ready });
        }
        if crashes || !runs_on {
            let exit_code = i32::from(crashes && crash_permille > 0);
            let restarts = status.restart_count;
            self.later(number, run_us, GuestEvent::End { pod, instance, container, restarts, exit_code });
        }
        self.tell_agent(
            number,
            Input::GuestContainer { pod, instance, status, unready_because: String::new() },
        );
    }

    /// A container becomes ready, or ceases to be: then it becomes so again.
    fn probe_says(
        &mut self,
        number: u32,
        pod: ObjectId,
        instance: u32,
        (container, restarts, ready): (usize, u32, bool),
    ) {
        let unready_permille = self.failures(self.options.node.unready_permille);
        let host = &mut self.agents[number as usize];
        let Some(guest) = host.hypervisor.guest(pod, instance).filter(|g| !g.stopping) else { return };
        let Some(status) = guest.probe(container, restarts, ready) else { return };
        let again = !ready || host.rng.chance(unready_permille);
        let after_us = host.rng.range(1000, if ready { CRASH_US_MAX } else { PROBE_US_MAX });
        let unready_because = if ready { String::new() } else { "simulated".to_owned() };
        self.tell_agent(number, Input::GuestContainer { pod, instance, status, unready_because });
        if again {
            let ready = !ready;
            self.later(number, after_us, GuestEvent::Probe { pod, instance, container, restarts, ready });
        }
    }

    fn container_ends(
        &mut self,
        number: u32,
        pod: ObjectId,
        instance: u32,
        (container, restarts, exit_code): (usize, u32, i32),
    ) {
        let now_us = self.now_us;
        let host = &mut self.agents[number as usize];
        let at_ms = host.clock.wall_ms(now_us);
        let Some(guest) = host.hypervisor.guest(pod, instance).filter(|g| !g.stopping) else { return };
        if guest.containers[container].restart_count != restarts {
            return;
        }
        let status = guest.end(container, exit_code, at_ms);
        let init_count = guest.init_count();
        let follows: Vec<usize> = if guest.restarts(container, exit_code) {
            vec![container]
        } else if container >= init_count || exit_code != 0 {
            Vec::new()
        } else if container + 1 < init_count {
            vec![container + 1]
        } else {
            (init_count..guest.containers.len()).collect()
        };
        let again = follows == [container];
        let outcome = guest.outcome();
        self.tell_agent(
            number,
            Input::GuestContainer { pod, instance, status, unready_because: String::new() },
        );
        for next in follows {
            let after_us = if again { CONTAINER_RESTART_US } else { 10_000 };
            self.later(number, after_us, GuestEvent::Begin { pod, instance, container: next });
        }
        if let Some(well) = outcome {
            self.tell_outcome(number, pod, instance, well);
            self.later(number, 200_000, GuestEvent::PowerOff { pod, instance });
        }
    }

    fn tell_outcome(&mut self, number: u32, pod: ObjectId, instance: u32, well: bool) {
        if well {
            self.chronicle.note_success(pod);
        }
        let phase = if well { PodPhase::Succeeded } else { PodPhase::Failed };
        let (reason, message) = (SmolStr::default(), String::new());
        self.tell_agent(number, Input::GuestPod { pod, instance, phase, reason, message });
    }

    /// Guests that an agent adopted tell it everything that they know.
    pub(crate) fn adopted_guests_speak(&mut self, number: u32) {
        let hypervisor = &self.agents[number as usize].hypervisor;
        let speaking: Vec<(ObjectId, Guest)> =
            hypervisor.guests.iter().filter(|(_, g)| g.speaks).map(|(pod, g)| (*pod, g.clone())).collect();
        for (pod, guest) in speaking {
            let instance = guest.instance;
            let outcome = guest.outcome();
            self.tell_agent(number, Input::GuestHello { pod, instance });
            for status in guest.containers {
                self.tell_agent(
                    number,
                    Input::GuestContainer { pod, instance, status, unready_because: String::new() },
                );
            }
            if let Some(well) = outcome {
                self.tell_outcome(number, pod, instance, well);
            }
        }
    }
}
