//! What a function's configuration space says that sysfs does not.

use serde::{Deserialize, Serialize};

/// Where extended capabilities begin.
const EXTENDED: usize = 0x100;
/// The extended capability "Access Control Services".
const ACS: u32 = 0x000d;
/// The extended capability "Device Serial Number".
const SERIAL_NUMBER: u32 = 0x0003;
/// What everybody may read.
const HEADER: usize = 64;
/// Most capabilities of a function: a list that goes in circles ends here.
const CAPABILITIES_MAX: usize = 96;
/// Source validation, request redirect, completion redirect, upstream forwarding: together they keep two functions below one
/// bridge apart.
const ISOLATING: u16 = 0b1_1101;

/// Access Control Services: whether what comes from a function must pass the IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Acs {
    /// Only root may read that part of the configuration space.
    Unknown,
    /// The function has none.
    Absent,
    /// It is there, and what keeps functions apart is not all switched on.
    Off,
    /// What keeps functions apart is on.
    On,
}

/// Looks for it (PCI Express Base Specification 5.0, sections 7.6.3 and 7.7.8).
pub(super) fn acs(space: &[u8]) -> Acs {
    // Others than root get the first 64 bytes.
    if space.len() <= EXTENDED {
        return Acs::Unknown;
    }
    // The capability register is below, the control register above.
    let Some(at) = extended(space, ACS) else { return Acs::Absent };
    let Some(registers) = word(space, at + 4) else { return Acs::Unknown };
    let (able, on) = (registers as u16, (registers >> 16) as u16);
    if on & able & ISOLATING == able & ISOLATING { Acs::On } else { Acs::Off }
}

/// The number that a maker gives each card (PCI Express Base Specification 5.0, section 7.9.3); some give none, or 0 to all.
pub(super) fn serial_number(space: &[u8]) -> Option<u64> {
    let at = extended(space, SERIAL_NUMBER)?;
    let (low, high) = (word(space, at + 4)?, word(space, at + 8)?);
    let number = u64::from(high) << 32 | u64::from(low);
    (number != 0 && number != u64::MAX).then_some(number)
}

/// Whether anything answers. Virtual functions have ones in their first word alone.
pub(super) fn is_answering(space: &[u8]) -> bool {
    space.len() < HEADER || space[..HEADER].iter().any(|byte| *byte != u8::MAX)
}

/// What the standard header of a function that is no bridge says (PCI Express Base Specification 5.0, section 7.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StandardHeader {
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    pub(crate) command: u16,
    pub(crate) header_type: u8,
    pub(crate) bars: [u32; 6],
}

/// Reads it; `None` when there is less than it.
pub(crate) fn standard_header(space: &[u8]) -> Option<StandardHeader> {
    if space.len() < HEADER {
        return None;
    }
    let mut bars = [0; 6];
    for (number, bar) in bars.iter_mut().enumerate() {
        *bar = word(space, 0x10 + 4 * number)?;
    }
    let (ids, command) = (word(space, 0)?, word(space, 4)?);
    Some(StandardHeader {
        vendor: ids as u16,
        device: (ids >> 16) as u16,
        command: command as u16,
        header_type: space[0x0e],
        bars,
    })
}

/// Where an extended capability is.
fn extended(space: &[u8], id: u32) -> Option<usize> {
    let mut at = EXTENDED;
    for _ in 0..CAPABILITIES_MAX {
        let header = word(space, at).filter(|header| *header != 0 && *header != u32::MAX)?;
        if header & 0xffff == id {
            return Some(at);
        }
        at = ((header >> 20) & 0xffc) as usize;
        if at < EXTENDED {
            break;
        }
    }
    None
}

fn word(space: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(space.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration space with these extended capabilities: place, id, next place, and the word that follows.
    fn check(capabilities: &[(usize, u32, u32, u32)], expected: Acs) {
        let mut space = vec![0; 4096];
        for (at, id, next, word) in capabilities {
            space[*at..*at + 4].copy_from_slice(&(id | 1 << 16 | next << 20).to_le_bytes());
            space[*at + 4..*at + 8].copy_from_slice(&word.to_le_bytes());
        }
        assert_eq!(acs(&space), expected, "{capabilities:x?}");
    }

    #[test]
    fn access_control_is_found_behind_other_capabilities() {
        check(&[], Acs::Absent);
        check(&[(0x100, 0x0001, 0x148, 0)], Acs::Absent);
        check(&[(0x100, 0x0001, 0x148, 0), (0x148, 0x000d, 0, 0x001d_001f)], Acs::On);
        check(&[(0x100, 0x000d, 0, 0x0001_001f)], Acs::Off);
        // What the function is not able to do need not be on.
        check(&[(0x100, 0x000d, 0, 0x0005_0005)], Acs::On);
    }

    #[test]
    fn a_broken_list_ends() {
        check(&[(0x100, 0x0001, 0x100, 0)], Acs::Absent);
        check(&[(0x100, 0x0001, 0x40, 0)], Acs::Absent);
        check(&[(0x100, 0x0001, 0xffc, 0)], Acs::Absent);
        assert_eq!(acs(&[0xff; 4096]), Acs::Absent, "a function that is gone reads as ones");
        assert_eq!(acs(&[0; 64]), Acs::Unknown);
        assert_eq!(acs(&[]), Acs::Unknown);
    }

    #[test]
    fn serial_numbers_are_read_and_what_does_not_answer_is_told_apart() {
        let mut space = vec![0; 4096];
        space[0x100..0x10c].copy_from_slice(&[3, 0, 1, 0, 0x78, 0x56, 0x34, 0x12, 0xef, 0xcd, 0xab, 0x90]);
        assert_eq!(serial_number(&space), Some(0x90ab_cdef_1234_5678));
        space[0x104..0x10c].fill(0);
        assert_eq!(serial_number(&space), None, "nobody's number");
        assert_eq!(serial_number(&space[..64]), None);
        assert!(is_answering(&space) && is_answering(&[]), "nothing was read");
        assert!(!is_answering(&[0xff; 64]) && !is_answering(&[0xff; 4096]));
        // A virtual function: no vendor and device of its own.
        space[..4].fill(0xff);
        assert!(is_answering(&space));
    }
}
