//! What a function's configuration space says that sysfs does not.

use serde::{Deserialize, Serialize};

/// Where extended capabilities begin.
const EXTENDED: usize = 0x100;
/// The extended capability "Access Control Services".
const ACS: u32 = 0x000d;
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
    let word = |at: usize| Some(u32::from_le_bytes(space.get(at..at + 4)?.try_into().ok()?));
    let mut at = EXTENDED;
    for _ in 0..CAPABILITIES_MAX {
        let Some(header) = word(at).filter(|header| *header != 0 && *header != u32::MAX) else { break };
        if header & 0xffff == ACS {
            // The capability register is below, the control register above.
            let Some(registers) = word(at + 4) else { return Acs::Unknown };
            let (able, on) = (registers as u16, (registers >> 16) as u16);
            return if on & able & ISOLATING == able & ISOLATING { Acs::On } else { Acs::Off };
        }
        at = ((header >> 20) & 0xffc) as usize;
        if at < EXTENDED {
            break;
        }
    }
    Acs::Absent
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
}
