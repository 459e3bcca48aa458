//! What the agent knows of its devices beside what sysfs says now: which card is at an address, and whether it works.
//!
//! ```text
//!  CardReading (driver's library) ─┐                       ┌─► Device.id, model, memory
//!  Inventory (sysfs) ──────────────┼─► Cards ─► take_over ─┼─► Device.health, by the evidence of now
//!  KernelEvent (log) ──────────────┤     │                 └─► what was replaced: nothing that is said of an address sticks to it
//!  resets by the agent ────────────┘     └─► a file: the next agent knows it, too
//! ```
//!
//! **Identity.** A card's own number is known to its driver only, and a card with a guest is not with its driver. So what the driver
//! said is remembered for an address, for as long as nothing speaks against the same card being there: the function's ids and the
//! serial number in its configuration space (where it has one) are compared at every look, and what went away is forgotten.
//!
//! **Health** is what the evidence says now, so that a card that is well again is healthy without anybody's doing: one error in
//! the past makes none sick. What is only just so is told once it was seen twice; a card in the middle of its reset does not answer.

use std::collections::BTreeMap;

use bulkhead_types::{Device, DeviceHealth};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::{AerSeverity, Bdf, CARDS_MAX, CardReading, Inventory, KernelEvent, KernelRecord, PciFunction};

/// The code of a function that does not answer: its configuration space reads as ones.
pub const NOT_ANSWERING: &str = "NotAnswering";
/// The code of a function whose link had an error that it cannot be relied on after, until it was mended or reset.
pub const AER_FATAL: &str = "AerFatal";
/// Looks in a row at which something must be wrong until it is told.
const LOOKS_UNTIL_SICK: u32 = 2;
/// The same fault of the same card is told once in this time, in milliseconds: drivers repeat themselves.
const FAULT_AGAIN_AFTER_MS: u64 = 5_000;
/// Most faults of different cards or numbers that are told within that time.
const FAULTS_RECENT_MAX: usize = 256;

/// What a function is known by. What cannot be read now is unset and speaks against nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    /// Vendor, device, and the card's own two.
    ids: [u16; 4],
    /// `Device Serial Number` of its configuration space.
    serial: Option<u64>,
    /// The card's own number, by its driver.
    uuid: Option<SmolStr>,
    /// The model's name, by its driver.
    model: SmolStr,
    /// Its memory, by its driver, in bytes.
    memory_bytes: u64,
}

impl Identity {
    fn seen(function: &PciFunction) -> Self {
        let ids = [function.vendor, function.device, function.subsystem_vendor, function.subsystem_device];
        Self { ids, serial: function.serial_number, ..Self::default() }
    }

    /// Whether it can be the same card as `seen`.
    fn may_be(&self, seen: &Self) -> bool {
        let differ = |a: Option<u64>, b: Option<u64>| a.zip(b).is_some_and(|(a, b)| a != b);
        self.ids == seen.ids && !differ(self.serial, seen.serial)
    }
}

/// Why a function is not healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sick {
    code: &'static str,
    since_ms: u64,
    /// Looks at which it was so.
    looks: u32,
}

/// How a function was reset last after a guest had it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReset {
    /// The method, as [`crate::passthrough::ResetWay::name`] says it.
    pub method: SmolStr,
    /// When, milliseconds since the epoch.
    pub at_ms: u64,
}

/// Another card is at an address than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// Where.
    pub address: Bdf,
    /// The id of the one that was there.
    pub before: SmolStr,
    /// The id of the one that is there.
    pub now: SmolStr,
}

/// See the module. What is written of it is what the next agent cannot find out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownCards {
    /// The boot of the machine that the kernel's records are of.
    boot_id: SmolStr,
    /// The last record of the kernel's log that said something of a device.
    kernel_sequence: Option<u64>,
    known: BTreeMap<Bdf, Identity>,
    /// Functions whose link cannot be relied on, with when that was so first, milliseconds since the epoch.
    fatal: BTreeMap<Bdf, u64>,
    /// How functions were reset last.
    #[serde(default)]
    resets: BTreeMap<Bdf, LastReset>,
    /// The ports above each function, as they were seen last.
    #[serde(skip)]
    bridges: BTreeMap<Bdf, Vec<Bdf>>,
    #[serde(skip)]
    sick: BTreeMap<Bdf, Sick>,
    /// Faults that were told lately, with when, milliseconds since the epoch.
    #[serde(skip)]
    recent: BTreeMap<(Bdf, u32), u64>,
}

impl KnownCards {
    /// What another agent knew, in this boot of the machine. What the kernel said in another one means nothing.
    #[must_use]
    pub fn in_boot(self, boot_id: &str) -> Self {
        if self.boot_id == boot_id {
            return self;
        }
        let known = self.known;
        Self { boot_id: SmolStr::new(boot_id), known, ..Self::default() }
    }

    /// Whether the next agent would know the same of both.
    #[must_use]
    pub fn is_written_as(&self, other: &Self) -> bool {
        (&self.boot_id, self.kernel_sequence) == (&other.boot_id, other.kernel_sequence)
            && (&self.known, &self.fatal, &self.resets) == (&other.known, &other.fatal, &other.resets)
    }

    /// Takes a record of the kernel's log; a fault that is to be told. What an earlier agent took is passed over.
    pub fn note_record(&mut self, record: KernelRecord, now_ms: u64) -> Option<(Bdf, u32)> {
        let event =
            record.event.filter(|_| self.kernel_sequence.is_none_or(|last| record.sequence > last))?;
        self.kernel_sequence = Some(record.sequence);
        match event {
            KernelEvent::Xid { card, code } => return self.note_fault(card, code, now_ms),
            KernelEvent::Aer { function, severity: AerSeverity::Fatal } => {
                if self.fatal.len() < CARDS_MAX {
                    self.fatal.entry(function).or_insert(now_ms);
                }
            }
            KernelEvent::Recovery { port, succeeded: true } => {
                let bridges = std::mem::take(&mut self.bridges);
                let is_behind = |at: &Bdf| bridges.get(at).is_some_and(|bridges| bridges.contains(&port));
                self.fatal.retain(|at, _| *at != port && !is_behind(at));
                self.bridges = bridges;
            }
            KernelEvent::Recovery { .. } | KernelEvent::Aer { .. } | KernelEvent::Inaccessible { .. } => {}
        }
        None
    }

    /// Takes a fault; the same if it is to be told.
    pub fn note_fault(&mut self, card: Bdf, code: u32, now_ms: u64) -> Option<(Bdf, u32)> {
        self.recent.retain(|_, at| now_ms.saturating_sub(*at) < FAULT_AGAIN_AFTER_MS);
        if self.recent.contains_key(&(card, code)) || self.recent.len() >= FAULTS_RECENT_MAX {
            return None;
        }
        self.recent.insert((card, code), now_ms);
        Some((card, code))
    }

    /// The agent reset a function, by this method.
    pub fn note_reset(&mut self, address: Bdf, method: &str, now_ms: u64) {
        self.resets.insert(address, LastReset { method: SmolStr::new(method), at_ms: now_ms });
        self.begin_anew(address);
    }

    /// How a function was reset last, in this boot of the machine.
    #[must_use]
    pub fn last_reset(&self, address: Bdf) -> Option<&LastReset> {
        self.resets.get(&address)
    }

    /// What was wrong with a function is not any more: it was reset, or it is another one.
    fn begin_anew(&mut self, address: Bdf) {
        self.fatal.remove(&address);
        // What answers a reset is reached through its ports.
        for port in self.bridges.get(&address).into_iter().flatten() {
            self.fatal.remove(port);
        }
        self.sick.remove(&address);
    }

    /// Compares with what there is now, and with what the driver's library tells; `None` where there is no such library.
    pub fn look(
        &mut self,
        inventory: &Inventory,
        readings: Option<&[CardReading]>,
        now_ms: u64,
    ) -> Vec<Replaced> {
        let readings: BTreeMap<Bdf, &CardReading> =
            readings.unwrap_or_default().iter().map(|reading| (reading.address, reading)).collect();
        let mut replaced = Vec::new();
        let former = std::mem::take(&mut self.known);
        self.bridges = inventory.functions.values().map(|one| (one.address, one.bridges.clone())).collect();
        for (address, function) in &inventory.functions {
            let seen = Identity::seen(function);
            let before = former.get(address);
            let mut now = match before.filter(|before| before.may_be(&seen)) {
                Some(before) => Identity { serial: seen.serial.or(before.serial), ..before.clone() },
                None => seen,
            };
            if let Some(reading) = readings.get(address)
                && let Some(uuid) = &reading.uuid
            {
                now.uuid = Some(uuid.clone());
                now.model = reading.name.clone().unwrap_or_default();
                now.memory_bytes = reading.memory_bytes.unwrap_or_default();
            }
            let is_other = before.is_some_and(|before| {
                let has_other_uuid = before.uuid.is_some() && now.uuid.is_some() && before.uuid != now.uuid;
                !before.may_be(&now) || has_other_uuid
            });
            if is_other {
                self.begin_anew(*address);
                self.resets.remove(address);
                let id = |one: &Identity| one.uuid.clone().unwrap_or_else(|| address_id(*address));
                let (before, now) = (before.map(id).unwrap_or_default(), id(&now));
                replaced.push(Replaced { address: *address, before, now });
            }
            self.known.insert(*address, now);
            self.judge(function, readings.get(address).copied(), now_ms);
        }
        self.fatal.retain(|address, _| inventory.functions.contains_key(address));
        self.resets.retain(|address, _| inventory.functions.contains_key(address));
        self.sick.retain(|address, _| inventory.functions.contains_key(address));
        replaced
    }

    /// Whether a function is sick now, by all that is known.
    fn judge(&mut self, function: &PciFunction, reading: Option<&CardReading>, now_ms: u64) {
        let address = function.address;
        let ailment = reading.and_then(|reading| reading.ailments.iter().min());
        let above = std::iter::once(&address).chain(&function.bridges);
        let fatal_ms = above.filter_map(|at| self.fatal.get(at)).min().copied();
        let code = match (function.is_answering, fatal_ms, ailment) {
            (false, ..) => NOT_ANSWERING,
            (true, Some(_), _) => AER_FATAL,
            (true, None, Some(ailment)) => ailment.code(),
            (true, None, None) => {
                self.sick.remove(&address);
                return;
            }
        };
        let since_ms = fatal_ms.unwrap_or(now_ms);
        let sick = self.sick.entry(address).or_insert(Sick { code, since_ms, looks: 0 });
        sick.code = code;
        sick.looks = sick.looks.saturating_add(1);
        if code == AER_FATAL {
            sick.looks = sick.looks.max(LOOKS_UNTIL_SICK);
        }
    }

    /// Whether something is wrong that only the next look can confirm.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.sick.values().any(|sick| sick.looks < LOOKS_UNTIL_SICK)
    }

    /// What a card at an address is known by: its own number, else the address.
    #[must_use]
    pub fn id_at(&self, address: Bdf) -> SmolStr {
        let uuid = self.known.get(&address).and_then(|known| known.uuid.clone());
        uuid.unwrap_or_else(|| address_id(address))
    }

    /// Adds all of that to devices, which are known by their addresses. What is sick for another reason stays so.
    pub fn take_over(&self, devices: &mut [Device]) {
        let mut renamed = BTreeMap::new();
        for device in devices.iter_mut() {
            let Ok(address) = device.address.parse::<Bdf>() else { continue };
            if let Some(known) = self.known.get(&address).filter(|known| known.uuid.is_some()) {
                let before = std::mem::replace(&mut device.id, self.id_at(address));
                renamed.insert(before, device.id.clone());
                device.model = known.model.clone();
                device.capacity.memory_bytes = known.memory_bytes;
            }
            if let Some(sick) = self.sick.get(&address).filter(|sick| sick.looks >= LOOKS_UNTIL_SICK)
                && device.health == DeviceHealth::Healthy
            {
                let (code, since_ms) = (SmolStr::new_static(sick.code), sick.since_ms);
                device.health = DeviceHealth::Unhealthy { code, since_ms };
            }
        }
        for parent in devices.iter_mut().filter_map(|device| device.parent.as_mut()) {
            if let Some(id) = renamed.get(parent) {
                *parent = id.clone();
            }
        }
    }
}

fn address_id(address: Bdf) -> SmolStr {
    SmolStr::new(address.to_string())
}

#[cfg(test)]
#[path = "known_cards_tests.rs"]
mod tests;
