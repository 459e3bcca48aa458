//! What kind of function a function is, by numbers.

use std::str::FromStr;

/// Vendor and device id, as in `15b3:1017` (PCI Local Bus Specification 3.0, section 6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciId {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
}

/// A text is no pair of ids.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no vendor and device id: expected vvvv:dddd in hexadecimal, such as 15b3:1017")]
pub struct PciIdError(String);

impl FromStr for PciId {
    type Err = PciIdError;

    fn from_str(text: &str) -> Result<Self, PciIdError> {
        let number = |part: &str| {
            let well_formed = part.len() == 4 && part.bytes().all(|b| b.is_ascii_hexdigit());
            well_formed.then(|| u16::from_str_radix(part, 16).ok()).flatten()
        };
        let ids = text.split_once(':').and_then(|(vendor, device)| Some((number(vendor)?, number(device)?)));
        let (vendor, device) = ids.ok_or_else(|| PciIdError(text.to_owned()))?;
        Ok(Self { vendor, device })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        assert_eq!("1b36:0010".parse(), Ok(PciId { vendor: 0x1b36, device: 0x10 }));
        for text in
            ["", "1b36", "1b36:", ":0010", "1b36:10", "1b36:00100", "0x1b:0010", "+b36:0010", "1b36:0010:1"]
        {
            assert_eq!(text.parse::<PciId>(), Err(PciIdError(text.to_owned())));
        }
    }
}
