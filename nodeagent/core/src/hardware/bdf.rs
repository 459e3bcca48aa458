//! Addresses of PCI functions.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Domain, bus, device and function, as in `0000:3b:00.1` (PCI Local Bus Specification 3.0, section 3.2.2.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bdf {
    /// PCI domain (segment group). Linux gives domains above 16 bits to those that it makes up (Intel VMD).
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device; below 32.
    device: u8,
    /// Function; below 8.
    function: u8,
}

/// A text is no PCI address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no PCI address: expected dddd:bb:dd.f in hexadecimal, device below 20, function below 8")]
pub struct BdfError(String);

impl Bdf {
    /// Device; below 32.
    #[must_use]
    pub fn device(self) -> u8 {
        self.device
    }

    /// Function; below 8.
    #[must_use]
    pub fn function(self) -> u8 {
        self.function
    }
}

impl std::fmt::Display for Bdf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.device, self.function)
    }
}

impl FromStr for Bdf {
    type Err = BdfError;

    fn from_str(text: &str) -> Result<Self, BdfError> {
        let parse = || {
            let (rest, function) = text.split_once('.')?;
            let mut parts = rest.split(':');
            let (domain, bus, device) = (parts.next()?, parts.next()?, parts.next()?);
            let well_formed = parts.next().is_none()
                && [bus.len(), device.len(), function.len()] == [2, 2, 1]
                && (domain.len() == 4 || ((5..=8).contains(&domain.len()) && !domain.starts_with('0')))
                && text.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
            let bdf = Self {
                domain: u32::from_str_radix(domain, 16).ok()?,
                bus: u8::from_str_radix(bus, 16).ok()?,
                device: u8::from_str_radix(device, 16).ok()?,
                function: u8::from_str_radix(function, 16).ok()?,
            };
            (well_formed && bdf.device < 32 && bdf.function < 8).then_some(bdf)
        };
        parse().ok_or_else(|| BdfError(text.chars().take(32).collect()))
    }
}

impl TryFrom<String> for Bdf {
    type Error = BdfError;
    fn try_from(text: String) -> Result<Self, BdfError> {
        text.parse()
    }
}

impl From<Bdf> for String {
    fn from(bdf: Bdf) -> Self {
        bdf.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let bdf: Bdf = "0000:3b:1f.7".parse().expect("valid");
        assert_eq!((bdf.domain, bdf.bus, bdf.device(), bdf.function()), (0, 0x3b, 31, 7));
        for bad in [
            "",
            "3b:00.0",
            "0000:3b:20.0",
            "0000:3b:00.8",
            "0000:3b:00.0.",
            "+000:3b:00.0",
            "0000:3b:00",
            "00000:3b:00.0",
        ] {
            assert!(bad.parse::<Bdf>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn printing_then_parsing_is_the_identity(domain: u32, bus: u8, device in 0u8..32, function in 0u8..8) {
            let bdf = Bdf { domain, bus, device, function };
            prop_assert_eq!(bdf.to_string().parse::<Bdf>(), Ok(bdf));
        }
    }
}
