//! Which card is where, as a file: replaced durably whenever it changed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_nodeagent_core::hardware::{
    Bdf, CardReading, Inventory, KernelRecord, KnownCards, Replaced, card_usage,
};
use bulkhead_nodeagent_core::passthrough::Binding;
use bulkhead_types::{DEVICES_MAX, Device, DeviceUsage};
use smol_str::SmolStr;

use crate::{clock, disk};

/// The file in the data directory.
const FILE: &str = "cards.json";

/// See the module.
#[derive(Debug)]
pub(super) struct KnownFile {
    path: PathBuf,
    cards: KnownCards,
    written: KnownCards,
    /// Devices that were reset and were not told of.
    resets: Vec<SmolStr>,
}

impl KnownFile {
    /// # Errors
    /// When the file cannot be read. What is no such file is left out: everything in it is found out again.
    pub(super) fn open(data: &Path, boot_id: &str) -> io::Result<Self> {
        let path = data.join(FILE);
        let known = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "what was known of cards is left out");
                KnownCards::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => KnownCards::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, cards: known.clone().in_boot(boot_id), written: known, resets: Vec::new() })
    }

    fn save(&mut self) {
        if self.cards.is_written_as(&self.written) {
            return;
        }
        let bytes = serde_json::to_vec(&self.cards).unwrap_or_default();
        match disk::replace(&self.path, &bytes) {
            Ok(()) => self.written = self.cards.clone(),
            Err(error) => tracing::warn!(path = %self.path.display(), %error, "cards are not remembered"),
        }
    }

    pub(super) fn look(&mut self, found: &Inventory, readings: Option<&[CardReading]>) -> Vec<Replaced> {
        let replaced = self.cards.look(found, readings, clock::unix_ms());
        self.save();
        replaced
    }

    /// Refuses a device whose card was replaced since the control plane was told of it.
    pub(super) fn check(&self, devices: &[(SmolStr, SmolStr)]) -> Result<(), String> {
        for (id, address) in devices {
            let Ok(at) = address.parse::<Bdf>() else { continue };
            let present = self.cards.id_at(at);
            // Before the card's own number was known it had its address.
            if present != *id && id != address {
                return Err(format!("device {id} is not at {address} any more: {present} is"));
            }
        }
        Ok(())
    }

    pub(super) fn note_reset(&mut self, address: Bdf, method: &str) {
        tracing::info!(%address, method, "a device was reset");
        self.cards.note_reset(address, method, clock::unix_ms());
        if self.resets.len() < DEVICES_MAX {
            self.resets.push(self.cards.id_at(address));
        }
        self.save();
    }

    pub(super) fn take_resets(&mut self) -> Vec<SmolStr> {
        std::mem::take(&mut self.resets)
    }

    pub(super) fn note_record(&mut self, record: KernelRecord) -> Option<(Bdf, u32)> {
        let fault = self.cards.note_record(record, clock::unix_ms());
        // What changes nothing but how far the log was read is written with the next look: a storm is not a write for each line.
        if fault.is_some() {
            self.save();
        }
        fault
    }

    pub(super) fn note_fault(&mut self, card: Bdf, code: u32) -> Option<(Bdf, u32)> {
        self.cards.note_fault(card, code, clock::unix_ms())
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.cards.is_in_doubt()
    }

    pub(super) fn id_at(&self, address: Bdf) -> SmolStr {
        self.cards.id_at(address)
    }

    pub(super) fn usage(
        &self,
        devices: &[Device],
        readings: Option<(Vec<CardReading>, Duration)>,
        bindings: &BTreeMap<Bdf, Binding>,
    ) -> Vec<DeviceUsage> {
        let ms = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let readings = readings.as_ref().map(|(all, age)| (all.as_slice(), ms(*age)));
        card_usage(devices, readings, bindings, &self.cards)
    }

    pub(super) fn take_over(&self, devices: &mut [Device]) {
        self.cards.take_over(devices);
    }
}
