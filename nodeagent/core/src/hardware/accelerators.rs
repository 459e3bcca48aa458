//! What a driver's library tells of its cards: a narrow trait, of which the agent has one over NVML and tests one in memory.
//!
//! A card that a guest has is unknown to the host's driver, and so to the library: what it told of the card before is remembered
//! ([`super::KnownCards`]).

use std::time::Duration;

use serde::Serialize;
use smol_str::SmolStr;

use super::Bdf;

/// Most cards that are told of.
pub const CARDS_MAX: usize = 256;
/// Most faults of one wait.
pub const FAULTS_PER_WAIT_MAX: usize = 64;

/// What is wrong with a card now, by its own account; not what was wrong once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Ailment {
    /// The driver cannot reach it: it has fallen off the bus.
    #[serde(rename = "GpuLost")]
    Lost,
    /// It does not work until it was reset.
    ResetRequired,
    /// Memory with uncorrectable errors is in use until the card was reset.
    #[serde(rename = "PagesPendingRetirement")]
    PagesPending,
    /// Its own record of itself (infoROM) is damaged.
    InfoRomCorrupted,
}

impl Ailment {
    /// One CamelCase word, as `describe node` shows it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Lost => "GpuLost",
            Self::ResetRequired => "ResetRequired",
            Self::PagesPending => "PagesPendingRetirement",
            Self::InfoRomCorrupted => "InfoRomCorrupted",
        }
    }
}

/// A card as its library tells of it now. What a card does not tell is unset: none of it is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CardReading {
    /// Where it is.
    pub address: Bdf,
    /// Its own number for good, as `GPU-8f6c…`.
    pub uuid: Option<SmolStr>,
    /// The model.
    pub name: Option<SmolStr>,
    /// All of its memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// What of it is used, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// How busy it was during the last moment, 0 to 100.
    pub utilization_percent: Option<u32>,
    /// In degrees Celsius.
    pub temperature_celsius: Option<u32>,
    /// What it draws, in thousandths of a watt.
    pub power_milliwatts: Option<u64>,
    /// Uncorrected errors of its memory since its driver was loaded. A number that is not 0 is no ailment: the card goes on without
    /// the cells.
    pub ecc_uncorrected: Option<u64>,
    /// What is wrong now.
    pub ailments: Vec<Ailment>,
}

impl CardReading {
    /// A card of which nothing is told but where it is.
    #[must_use]
    pub fn of(address: Bdf) -> Self {
        Self {
            address,
            uuid: None,
            name: None,
            memory_bytes: None,
            memory_used_bytes: None,
            utilization_percent: None,
            temperature_celsius: None,
            power_milliwatts: None,
            ecc_uncorrected: None,
            ailments: Vec::new(),
        }
    }
}

/// The library cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{reason}")]
pub struct Unavailable {
    /// Why, for people.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

/// A library in use. While one is, its driver may not let go of any card.
pub trait Cards {
    /// All cards that the driver has, in the order of their addresses; at most [`CARDS_MAX`].
    fn list(&mut self) -> Vec<CardReading>;

    /// Waits for faults, for no longer than this; where the library tells of none it waits all the same.
    fn wait_for_faults(&mut self, at_most: Duration) -> Vec<(Bdf, u32)>;
}

/// A library of a driver.
pub trait Accelerators: Send {
    /// Uses it while `work` does; when this returns, nothing of it is in use any more.
    ///
    /// # Errors
    /// When it is not there or does not work; `work` was not called.
    fn open(&mut self, work: &mut dyn FnMut(&mut dyn Cards)) -> Result<(), Unavailable>;
}

/// Cards in memory, for tests.
#[derive(Clone, Debug, Default)]
pub struct FakeAccelerators {
    /// The cards.
    pub cards: Vec<CardReading>,
    /// Faults that were not told yet.
    pub faults: Vec<(Bdf, u32)>,
    /// It cannot be used.
    pub unavailable: Option<Unavailable>,
}

impl Accelerators for FakeAccelerators {
    fn open(&mut self, work: &mut dyn FnMut(&mut dyn Cards)) -> Result<(), Unavailable> {
        if let Some(unavailable) = &self.unavailable {
            return Err(unavailable.clone());
        }
        work(self);
        Ok(())
    }
}

impl Cards for FakeAccelerators {
    fn list(&mut self) -> Vec<CardReading> {
        let mut cards = self.cards.clone();
        cards.sort_by_key(|card| card.address);
        cards.truncate(CARDS_MAX);
        cards
    }

    fn wait_for_faults(&mut self, _at_most: Duration) -> Vec<(Bdf, u32)> {
        let count = self.faults.len().min(FAULTS_PER_WAIT_MAX);
        self.faults.drain(..count).collect()
    }
}

/// Checks that a library keeps to the contract, on a machine that has its cards or none. Whether it could be used.
///
/// # Panics
/// When it does not.
pub fn check_accelerators(library: &mut dyn Accelerators) -> bool {
    let mut opened = 0;
    for _ in 0..2 {
        let mut called = false;
        let outcome = library.open(&mut |cards| {
            called = true;
            let all = cards.list();
            assert!(all.len() <= CARDS_MAX);
            assert!(all.is_sorted_by(|a, b| a.address < b.address), "each address once, in order: {all:?}");
            for card in &all {
                let ids = all.iter().filter(|one| one.uuid.is_some() && one.uuid == card.uuid);
                assert!(card.uuid.is_none() || ids.count() == 1, "{card:?} has another's number");
                assert_ne!(card.uuid.as_deref(), Some(""), "no number is no text");
                assert!(card.utilization_percent.is_none_or(|percent| percent <= 100), "{card:?}");
                if let (Some(used), Some(all)) = (card.memory_used_bytes, card.memory_bytes) {
                    assert!(used <= all, "{card:?}");
                }
            }
            let faults = cards.wait_for_faults(Duration::from_millis(1));
            assert!(faults.len() <= FAULTS_PER_WAIT_MAX);
            assert!(faults.iter().all(|(at, _)| all.iter().any(|card| card.address == *at)), "{faults:?}");
        });
        match outcome {
            Ok(()) => {
                assert!(called, "it was opened for nothing");
                opened += 1;
            }
            Err(Unavailable { reason, remedy }) => {
                assert!(!called && !reason.is_empty() && !remedy.is_empty(), "{reason}: {remedy}");
            }
        }
    }
    assert!(opened != 1, "what could be opened once can be opened again");
    opened > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ailments_have_one_name() {
        for one in [Ailment::Lost, Ailment::ResetRequired, Ailment::PagesPending, Ailment::InfoRomCorrupted] {
            assert_eq!(serde_json::to_value(one).expect("JSON"), one.code());
        }
    }

    #[test]
    fn the_fake_keeps_to_the_contract() {
        let card = |address: &str, uuid: &str| CardReading {
            uuid: Some(uuid.into()),
            memory_bytes: Some(80 << 30),
            memory_used_bytes: Some(1 << 30),
            utilization_percent: Some(100),
            power_milliwatts: Some(70_000),
            ..CardReading::of(address.parse().expect("an address"))
        };
        let cards = vec![card("0000:c1:00.0", "GPU-2"), card("0000:41:00.0", "GPU-1")];
        let faults = vec![(cards[0].address, 79); FAULTS_PER_WAIT_MAX + 1];
        let mut fake = FakeAccelerators { cards, faults, unavailable: None };
        assert!(check_accelerators(&mut fake));
        assert!(fake.faults.is_empty(), "what did not fit into the first wait came with the second");
        fake.unavailable = Some(Unavailable { reason: "no driver".into(), remedy: "load it".into() });
        assert!(!check_accelerators(&mut fake));
    }
}
