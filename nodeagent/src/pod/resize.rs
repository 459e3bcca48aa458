//! A guest that runs gets other sizes: the host's limits, its machine, and its containers, in the core's order.
//!
//! What the machine has is asked of QEMU each time, so nothing need be remembered, and all of it may be done again. The machine
//! tells nobody when a guest took processors or memory, or gave them back, so it is asked again and again, within a deadline.

use std::sync::Arc;
use std::time::Duration;

use bulkhead_guest_protocol::guest;
use bulkhead_guest_protocol::host::{ContainerLimits, Resize};
use bulkhead_nodeagent_core::qemu::{Accel, GROWTH_DEVICE};
use bulkhead_nodeagent_core::{
    GuestSize, HostLimits, MEMORY_BLOCK_BYTES, RESIZE_ANSWER_MS, ResizeFailure, ResizeStep, ResizeVm,
    Resized, reason, resize_steps,
};
use bulkhead_types::{Container, ContainerSize, PodIntent, ResourceRequirements, Shared};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::blocking;
use crate::channel::{GuestAnswer, ResizeOrder};
use crate::error::chain;
use crate::host::Host;
use crate::steps::{Step, passed};
use crate::volumes::VolumePort;

/// How long all of it may take; the core asks again only later.
const DEADLINE: Duration = Duration::from_millis(RESIZE_ANSWER_MS * 3 / 4);
/// From one look at what the guest took, or gave back, to the next.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a guest may take to answer.
const WORD_TIMEOUT: Duration = Duration::from_secs(20);
/// Where QEMU has what was added to a machine.
const PERIPHERAL: &str = "/machine/peripheral/";

/// Everything that is needed of a guest and its host.
pub(super) struct Guest {
    pub(super) host: Arc<Host>,
    /// Its control group.
    pub(super) group: String,
    pub(super) machine: VolumePort,
    pub(super) words: mpsc::Sender<ResizeOrder>,
}

/// What a machine has, as QEMU says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Machine {
    /// Processors that it has.
    cpus: u32,
    /// Those of them that it began with, and keeps.
    cpus_kept: u32,
    /// Places for more, the next first: type and properties.
    free: Vec<(String, Value)>,
    /// Those that were added, the last first: names.
    added: Vec<String>,
    /// Memory that it began with, in bytes.
    first_bytes: u64,
    /// Most that can be added, what the guest has of it, and what it should have, in bytes; `None`: nothing can.
    growth: Option<(u64, u64, u64)>,
    /// What the balloon leaves of the first memory, in bytes; `None`: there is none.
    balloon: Option<u64>,
}

type Outcome<T> = Result<T, ResizeFailure>;

fn failed(message: impl Into<String>) -> ResizeFailure {
    ResizeFailure { reason: reason::RESIZE_FAILED.into(), message: message.into(), refused: false }
}

fn refused(message: impl Into<String>) -> ResizeFailure {
    ResizeFailure { reason: reason::GUEST_CANNOT_RESIZE.into(), message: message.into(), refused: true }
}

/// What there is to say where nothing was done, because it could not be written down that it is begun.
pub(super) fn not_written(order: &ResizeVm, error: &std::io::Error) -> Resized {
    let result = Err(failed(format!("the record cannot be written: {}", chain(error))));
    Resized { pod: order.pod.id, instance: order.instance, sizes: order.pod.spec.sizes(), result }
}

/// Does it, and says what came of it.
pub(super) async fn run(guest: Guest, order: ResizeVm) -> Resized {
    let work = tokio::time::timeout(DEADLINE, guest.resize(&order));
    let late = || failed(format!("it was not done within {} s: it goes on later", DEADLINE.as_secs()));
    let result = work.await.unwrap_or_else(|_| Err(late()));
    if let Err(failure) = &result {
        let ResizeFailure { reason, message, .. } = failure;
        tracing::warn!(pod = %order.pod.id, %reason, message, "the guest did not get its sizes");
    } else {
        tracing::info!(pod = %order.pod.id, size = ?order.size, "the guest was resized");
    }
    Resized { pod: order.pod.id, instance: order.instance, sizes: order.pod.spec.sizes(), result }
}

impl Guest {
    async fn resize(&self, order: &ResizeVm) -> Outcome<()> {
        // First whether it can be at all: then nothing is changed.
        let machine = self.look().await?;
        check(&machine, order.was, order.size)?;
        self.say(Resize::default()).await?;
        // What was begun before may have got anywhere.
        for step in resize_steps(machine.size(order.was), order.size) {
            match step {
                ResizeStep::Host { larger } => self.limit_host(order, larger).await?,
                ResizeStep::Memory { memory_bytes } => self.set_memory(memory_bytes).await?,
                ResizeStep::Cpus { cpus } => self.set_cpus(cpus).await?,
                ResizeStep::Containers => {
                    self.say(Resize { containers: limits(order), ..Resize::default() }).await?;
                    passed(Step::ContainersLimited);
                }
            }
        }
        Ok(())
    }

    async fn limit_host(&self, order: &ResizeVm, larger: bool) -> Outcome<()> {
        let emulated = self.host.accel != Accel::Kvm;
        let wanted = HostLimits::new(&order.pod, order.size, emulated);
        let limits = if larger {
            // The most that it may have by the core's word: QEMU's own would let it choose its limits.
            let spec = Shared::new(order.pod.spec.resized(&order.most));
            let size = GuestSize::new(&spec);
            wanted.larger(HostLimits::new(&PodIntent { spec, ..order.pod.clone() }, size, emulated))
        } else {
            wanted
        };
        let (host, group) = (Arc::clone(&self.host), self.group.clone());
        let set = blocking(move || host.cgroups.change(&group, limits)).await;
        set.map_err(|error| failed(format!("the host's control groups: {}", chain(&error))))?;
        passed(Step::HostLimited);
        Ok(())
    }

    /// Adds memory, or takes it back: first what was added, then of what the guest began with.
    async fn set_memory(&self, wanted_bytes: u64) -> Outcome<()> {
        let machine = self.look().await?;
        // It keeps what it began with: `check`.
        let Some((_, has, asked)) = machine.growth else { return Ok(()) };
        let added = added_bytes(machine.first_bytes, wanted_bytes);
        let left = wanted_bytes.min(machine.first_bytes);
        let ballooned = machine.balloon.unwrap_or(machine.first_bytes);
        if (has, asked, ballooned) == (added, added, left) {
            return Ok(());
        }
        self.say(Resize { memory: true, ..Resize::default() }).await?;
        if ballooned != left {
            self.call("balloon", json!({ "value": left })).await?;
            passed(Step::BalloonAsked);
        }
        if asked != added {
            let path = format!("{PERIPHERAL}{GROWTH_DEVICE}");
            let value = json!({ "path": path, "property": "requested-size", "value": added });
            self.call("qom-set", value).await?;
            passed(Step::MemoryAsked);
        }
        self.until(|machine| {
            let has = machine.growth.map_or(0, |(_, has, _)| has);
            has == added && machine.balloon.is_none_or(|has| is_near(has, left))
        })
        .await?;
        passed(Step::MemoryChanged);
        Ok(())
    }

    /// Adds processors and has the guest use them, or the other way round.
    async fn set_cpus(&self, wanted: u32) -> Outcome<()> {
        let machine = self.look().await?;
        let more = wanted.saturating_sub(machine.cpus);
        for (kind, properties) in machine.free.iter().take(usize::try_from(more).unwrap_or(usize::MAX)) {
            let mut device = properties.clone();
            let core = properties.get("core-id").and_then(Value::as_u64).unwrap_or(0);
            let socket = properties.get("socket-id").and_then(Value::as_u64).unwrap_or(0);
            device["driver"] = json!(kind);
            device["id"] = json!(format!("cpu{socket}.{core}"));
            if let Some(device) = device.as_object_mut() {
                device.remove("node-id");
            }
            self.call("device_add", device).await?;
            passed(Step::CpuAdded);
        }
        let until = Instant::now() + DEADLINE;
        // The firmware tells the guest of them when it comes to that.
        while self.say(Resize { cpus: wanted, ..Resize::default() }).await?.cpus != wanted {
            if Instant::now() >= until {
                return Err(failed(format!("the guest does not use {wanted} processors")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        passed(Step::CpusUsed);
        let surplus = machine.cpus.saturating_sub(wanted.max(machine.cpus_kept));
        for id in machine.added.iter().take(usize::try_from(surplus).unwrap_or(usize::MAX)) {
            self.call("device_del", json!({ "id": id })).await?;
            passed(Step::CpuRemoved);
        }
        let left = wanted.max(machine.cpus_kept);
        self.until(|machine| machine.cpus == left).await
    }

    /// Looks until the machine is so.
    async fn until(&self, is_so: impl Fn(&Machine) -> bool) -> Outcome<()> {
        while !is_so(&self.look().await?) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn look(&self) -> Outcome<Machine> {
        let slots = self.call("query-hotpluggable-cpus", json!({})).await?;
        let memory = self.call("query-memory-size-summary", json!({})).await?;
        let devices = self.call("query-memory-devices", json!({})).await?;
        // Refused where there is no balloon, or the guest has no driver for it yet.
        let balloon = self.machine.call("query-balloon", json!({})).await.ok();
        Ok(Machine::read(&slots, &memory, &devices, balloon.as_ref()))
    }

    async fn call(&self, command: &'static str, arguments: Value) -> Outcome<Value> {
        self.machine.call(command, arguments).await.map_err(|error| failed(error.to_string()))
    }

    /// Asks the guest.
    async fn say(&self, resize: Resize) -> Outcome<guest::Resized> {
        let (answer, answered) = oneshot::channel();
        let gone = || failed("the guest does not answer");
        self.words.send(ResizeOrder { resize, answer }).await.map_err(|_| gone())?;
        let answer =
            tokio::time::timeout(WORD_TIMEOUT, answered).await.map_err(|_| gone())?.map_err(|_| gone())?;
        match answer {
            GuestAnswer::Cannot => Err(refused(
                "the guest was started by an earlier version of the agent; it gets its sizes when the pod is started again",
            )),
            GuestAnswer::Resized(resized) if resized.error.is_empty() => Ok(resized),
            GuestAnswer::Resized(resized) if resized.in_use => Err(ResizeFailure {
                reason: reason::MEMORY_IN_USE.into(),
                message: resized.error,
                refused: false,
            }),
            GuestAnswer::Resized(resized) => Err(failed(resized.error)),
        }
    }
}

/// How much must be added, in whole blocks.
fn added_bytes(first_bytes: u64, wanted_bytes: u64) -> u64 {
    wanted_bytes.saturating_sub(first_bytes).div_ceil(MEMORY_BLOCK_BYTES) * MEMORY_BLOCK_BYTES
}

/// The balloon goes by pages of the guest, and stops near where it should.
fn is_near(has_bytes: u64, wanted_bytes: u64) -> bool {
    has_bytes.abs_diff(wanted_bytes) < 1 << 20
}

/// Whether the machine of a guest that was so large can become so large, or small.
fn check(machine: &Machine, was: GuestSize, size: GuestSize) -> Outcome<()> {
    let most = machine.cpus + u32::try_from(machine.free.len()).unwrap_or(u32::MAX);
    if size.cpus > most {
        return Err(refused(format!(
            "the guest has places for {most} processors, {} are needed; it gets them when the pod is started again",
            size.cpus
        )));
    }
    // Without that device all of it is there from the start, huge pages among it, and stays.
    let (first_bytes, room, added) = match machine.growth {
        Some((most, ..)) => (machine.first_bytes, most, added_bytes(machine.first_bytes, size.memory_bytes)),
        None => (was.memory_bytes, 0, size.memory_bytes.saturating_sub(was.memory_bytes)),
    };
    if added > room {
        let mib = |bytes: u64| bytes >> 20;
        return Err(refused(format!(
            "the guest began with {} MiB of memory and can have {} MiB more, {} MiB are needed; it gets them when the pod is \
             started again",
            mib(first_bytes),
            mib(room),
            mib(size.memory_bytes)
        )));
    }
    if size.memory_bytes < first_bytes && machine.growth.is_none() {
        return Err(refused("the guest cannot give memory back; it has less when the pod is started again"));
    }
    Ok(())
}

/// What the guest's containers may use.
fn limits(order: &ResizeVm) -> Vec<ContainerLimits> {
    let spec = &order.pod.spec;
    let of = |container: &Container| {
        let (limits, reserved) = (container.limits, container.requests.or(container.limits));
        // What it has is one of these, or between them.
        let may_have = [&order.from, &order.most, &order.least];
        let of_it =
            |sizes: &&Vec<ContainerSize>| sizes.iter().find(|size| size.name == container.name).cloned();
        let may_have: Vec<ContainerSize> = may_have.iter().filter_map(of_it).collect();
        let policy = container.resize_policy();
        let differs = |get: fn(&ResourceRequirements) -> Option<u64>| {
            may_have
                .iter()
                .any(|size| get(&size.limits) != get(&limits) || get(&size.reserved()) != get(&reserved))
        };
        ContainerLimits {
            name: container.name.to_string(),
            cpu_millis: limits.cpu_millis.unwrap_or(0),
            memory_bytes: limits.memory_bytes.unwrap_or(0),
            cpu_request_millis: reserved.cpu_millis.unwrap_or(0),
            restart: (policy.restart_for_cpu && differs(|r| r.cpu_millis))
                || (policy.restart_for_memory && differs(|r| r.memory_bytes)),
        }
    };
    spec.sidecars().chain(&spec.containers).map(of).collect()
}

impl Machine {
    /// How large it is; its memory is as it was where that cannot change.
    fn size(&self, was: GuestSize) -> GuestSize {
        let memory_bytes = match self.growth {
            Some((_, has, asked)) => self.balloon.unwrap_or(self.first_bytes).saturating_add(has.max(asked)),
            None => was.memory_bytes,
        };
        GuestSize { cpus: self.cpus, memory_bytes }
    }

    fn read(slots: &Value, memory: &Value, devices: &Value, balloon: Option<&Value>) -> Self {
        let place = |slot: &Value| {
            let number =
                |name: &str| slot.pointer(&format!("/props/{name}")).and_then(Value::as_u64).unwrap_or(0);
            (number("socket-id"), number("core-id"), number("thread-id"))
        };
        let mut slots: Vec<&Value> = slots.as_array().into_iter().flatten().collect();
        slots.sort_by_key(|slot| place(slot));
        let mut machine = Self::default();
        for slot in slots {
            match slot.get("qom-path").and_then(Value::as_str) {
                Some(path) => {
                    machine.cpus += 1;
                    match path.strip_prefix(PERIPHERAL) {
                        Some(id) => machine.added.insert(0, id.to_owned()),
                        None => machine.cpus_kept += 1,
                    }
                }
                None => {
                    let kind = slot.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
                    machine.free.push((kind, slot.get("props").cloned().unwrap_or_default()));
                }
            }
        }
        let bytes = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64);
        machine.first_bytes = bytes(memory, "base-memory").unwrap_or(0);
        let growth = devices.as_array().into_iter().flatten().filter_map(|device| device.get("data"));
        let growth = growth.filter(|data| data.get("id").and_then(Value::as_str) == Some(GROWTH_DEVICE));
        machine.growth = growth
            .filter_map(|data| {
                Some((bytes(data, "max-size")?, bytes(data, "size")?, bytes(data, "requested-size")?))
            })
            .next();
        machine.balloon = balloon.and_then(|balloon| bytes(balloon, "actual"));
        machine
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_types::{ContainerOptions, PodSpec, Rare, ResizePolicy};

    use super::*;

    const MIB: u64 = 1 << 20;

    /// What QEMU 7.2 says of a machine with `-smp cpus=1,maxcpus=3` that got one processor and 128 MiB.
    fn machine() -> Machine {
        let slot = |core: u64, path: Option<&str>| {
            let mut slot = json!({"props": {"core-id": core, "thread-id": 0, "node-id": 0, "socket-id": 0}, "type": "max-x86_64-cpu"});
            if let Some(path) = path {
                slot["qom-path"] = json!(path);
            }
            slot
        };
        let slots = json!([
            slot(2, None),
            slot(1, Some("/machine/peripheral/cpu0.1")),
            slot(0, Some("/machine/unattached/device[0]"))
        ]);
        let memory = json!({"base-memory": 256 * MIB, "plugged-memory": 128 * MIB});
        let device = json!({"id": "vmem0", "size": 128 * MIB, "requested-size": 128 * MIB, "max-size": 4096 * MIB, "block-size": 2 * MIB});
        let devices = json!([{"type": "virtio-mem", "data": device}]);
        Machine::read(&slots, &memory, &devices, Some(&json!({"actual": 256 * MIB})))
    }

    #[test]
    fn a_machine_is_read_from_what_qemu_says() {
        let found = machine();
        assert_eq!(
            (found.cpus, found.cpus_kept, found.added.as_slice()),
            (2, 1, ["cpu0.1".to_owned()].as_slice())
        );
        assert_eq!(found.free.len(), 1);
        assert_eq!((found.free[0].0.as_str(), &found.free[0].1["core-id"]), ("max-x86_64-cpu", &json!(2)));
        assert_eq!(found.first_bytes, 256 * MIB);
        assert_eq!(found.growth, Some((4096 * MIB, 128 * MIB, 128 * MIB)));
        let nothing = Machine::read(&json!([]), &json!({}), &json!([]), None);
        assert_eq!((nothing.growth, nothing.balloon), (None, None));
    }

    #[test]
    fn what_a_machine_cannot_become_is_refused_with_the_reason() {
        let was = GuestSize { cpus: 2, memory_bytes: 256 * MIB };
        let check = |machine: &Machine, cpus: u32, mib: u64, expected: Option<&str>| {
            let found = check(machine, was, GuestSize { cpus, memory_bytes: mib * MIB });
            match (found, expected) {
                (Ok(()), None) => {}
                (Err(failure), Some(part)) => {
                    assert!(failure.refused && failure.message.contains(part), "{failure:?}");
                }
                (found, expected) => panic!("{found:?} is not {expected:?}"),
            }
        };
        let found = machine();
        check(&found, 3, 256 + 4096, None);
        check(&found, 1, 100, None);
        check(&found, 4, 256, Some("places for 3 processors, 4 are needed"));
        check(&found, 1, 257 + 4096, Some("can have 4096 MiB more"));
        let fixed = Machine { growth: None, free: Vec::new(), ..found };
        check(&fixed, 2, 256, None);
        check(&fixed, 2, 257, Some("can have 0 MiB more"));
        check(&fixed, 2, 255, Some("cannot give memory back"));
        // Pages of the host that it has beside its ordinary memory are nothing that it should give back.
        let paged = Machine { first_bytes: (256 + 64) * MIB, ..fixed };
        check(&paged, 1, 256, None);
        check(&paged, 2, 320, Some("can have 0 MiB more"));
    }

    /// Whether a container is to be restarted that should have `wanted`, had `from`, and may have anything from `least` to `most`, each of
    /// thousandths of a CPU and MiB.
    #[test]
    fn who_may_have_other_limits_is_restarted_for_those_it_should_have() {
        let amounts = |(cpu_millis, mib): (u64, u64)| ResourceRequirements {
            cpu_millis: Some(cpu_millis),
            memory_bytes: Some(mib * MIB),
            ..ResourceRequirements::default()
        };
        let size = |of| ContainerSize { name: "web".into(), requests: amounts(of), limits: amounts(of) };
        let check = |for_cpu: bool, for_memory: bool, from, most, least, wanted, expected: bool| {
            let options = ContainerOptions {
                resize_policy: Rare::some(ResizePolicy {
                    restart_for_cpu: for_cpu,
                    restart_for_memory: for_memory,
                }),
                ..ContainerOptions::default()
            };
            let container = Container {
                name: "web".into(),
                requests: amounts(wanted),
                limits: amounts(wanted),
                options: Rare::some(options),
                ..Container::default()
            };
            let spec = PodSpec { containers: vec![container], ..PodSpec::default() };
            let order = ResizeVm {
                instance: 1,
                from: vec![size(from)],
                most: vec![size(most)],
                least: vec![size(least)],
                was: GuestSize { cpus: 1, memory_bytes: 256 * MIB },
                size: GuestSize::new(&spec),
                pod: PodIntent { spec: Shared::new(spec), ..crate::pod::tests::pod_with_card() },
            };
            assert_eq!(limits(&order)[0].restart, expected, "{from:?} {most:?} {least:?} {wanted:?}");
        };
        let (small, large, much) = ((300, 128), (500, 128), (500, 256));
        check(true, false, large, large, large, small, true);
        check(true, false, large, large, large, large, false);
        // It was to have less, which it may have got, and should have what it had.
        check(true, false, large, large, small, large, true);
        check(false, true, large, large, small, large, false);
        check(false, true, much, much, large, much, true);
        // The same of more.
        check(true, false, small, large, small, small, true);
        check(false, false, large, large, small, large, false);
    }

    #[test]
    fn what_was_begun_is_taken_back_only_after_the_containers() {
        let steps = |machine: &Machine| {
            let was = GuestSize { cpus: 1, memory_bytes: 256 * MIB };
            let steps = resize_steps(machine.size(was), was);
            steps.iter().position(|step| *step == ResizeStep::Containers).expect("there")
        };
        // It was to become larger, and is wanted as it was.
        assert_eq!(steps(&machine()), 1, "before memory and processors");
        let asked = Machine { growth: Some((4096 * MIB, 0, 128 * MIB)), ..machine() };
        assert_eq!(steps(&asked), 1, "what was asked for may come yet");
        let fixed = Machine { growth: None, cpus: 1, ..machine() };
        assert_eq!(steps(&fixed), 3);
    }
}
