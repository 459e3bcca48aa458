//! What the kernel tells of devices as they come and go: uevents, and which of them mean that the machine is to be looked at.
//!
//! ```text
//!  socket ─► Uevent ─► is_of_devices ─► Burst: a look once it is quiet, or at the latest after a while
//!     └─ some were lost ──────────────────┘
//! ```
//!
//! Source: `lib/kobject_uevent.c` of Linux: `ACTION@DEVPATH`, then `KEY=value`, each ended by a zero byte.

/// Longest message that is looked at, in bytes (`UEVENT_BUFFER_SIZE` is 2048).
pub const UEVENT_BYTES_MAX: usize = 8192;
/// A look follows when nothing came for this long, in milliseconds: a card is many functions, and its driver makes more.
pub const QUIET_MS: u64 = 200;
/// A look follows at the latest this long after the first, in milliseconds.
pub const BURST_MS: u64 = 2_000;

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uevent {
    /// `add`, `remove`, `change`, `bind`, `unbind`, …
    pub action: String,
    /// Where it is below `/sys`.
    pub devpath: String,
    /// `pci`, `net`, `module`, …
    pub subsystem: String,
}

/// Reads a message; `None` for what is none, as what other programs send each other.
#[must_use]
pub fn uevent(message: &[u8]) -> Option<Uevent> {
    let message = &message[..message.len().min(UEVENT_BYTES_MAX)];
    let mut parts = message.split(|byte| *byte == 0).map(|part| std::str::from_utf8(part).ok());
    let (action, devpath) = parts.next()??.split_once('@')?;
    let mut found = Uevent { action: action.to_owned(), devpath: devpath.to_owned(), ..Uevent::default() };
    for part in parts.flatten() {
        if let Some(subsystem) = part.strip_prefix("SUBSYSTEM=") {
            subsystem.clone_into(&mut found.subsystem);
        }
    }
    Some(found)
}

impl Uevent {
    /// Whether the machine's devices, or what they need, may be others than before. Interfaces that are no device's (those of pods)
    /// come and go with every guest and mean nothing.
    #[must_use]
    pub fn is_of_devices(&self) -> bool {
        let is_pci = self.devpath.starts_with("/devices/pci");
        match self.subsystem.as_str() {
            "pci" | "vfio" | "vfio-dev" | "iommu" => true,
            "net" | "infiniband" => is_pci,
            "module" => ["/module/vfio", "/module/iommufd", "/module/nvidia"]
                .iter()
                .any(|module| self.devpath.starts_with(module)),
            "misc" => self.devpath.ends_with("/vfio"),
            _ => false,
        }
    }
}

/// Messages that came close together: one look for all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Burst(Option<(u64, u64)>);

impl Burst {
    /// Something came; `now_ms` on a clock that never goes back.
    pub fn note(&mut self, now_ms: u64) {
        let first = self.0.map_or(now_ms, |(first, _)| first);
        self.0 = Some((first, now_ms));
    }

    /// When to look, in milliseconds on the same clock; `None` when nothing came.
    #[must_use]
    pub fn due_ms(&self) -> Option<u64> {
        self.0.map(|(first, last)| last.saturating_add(QUIET_MS).min(first.saturating_add(BURST_MS)))
    }

    /// The look begins.
    pub fn clear(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &str, expected: Option<bool>) {
        let bytes = message.replace('|', "\0");
        assert_eq!(uevent(bytes.as_bytes()).map(|event| event.is_of_devices()), expected, "{message}");
    }

    #[test]
    fn what_is_of_devices_is_told_apart() {
        let card = "/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0";
        for action in ["add", "remove", "bind", "unbind", "change"] {
            check(
                &format!(
                    "{action}@{card}|ACTION={action}|DEVPATH={card}|SUBSYSTEM=pci|PCI_ID=10DE:20B5|SEQNUM=4711|"
                ),
                Some(true),
            );
        }
        check(&format!("move@{card}/net/eth0|SUBSYSTEM=net|INTERFACE=eth0|"), Some(true));
        check("add@/devices/virtual/net/tap7|SUBSYSTEM=net|INTERFACE=tap7|", Some(false));
        check("add@/devices/pci0000:00/0000:00:1f.2/ata1/block/sda|SUBSYSTEM=block|", Some(false));
        check("add@/module/vfio_pci|SUBSYSTEM=module|", Some(true));
        check("add@/module/loop|SUBSYSTEM=module|", Some(false));
        check("add@/devices/virtual/misc/vfio|SUBSYSTEM=misc|", Some(true));
        check("add@/devices/virtual/misc/tun|SUBSYSTEM=misc|", Some(false));
        check("add@/x|", Some(false));
        check("libudev|SUBSYSTEM=pci|", None);
        check("", None);
        assert_eq!(uevent(&[0xff; 9000]), None);
    }

    #[test]
    fn a_burst_is_one_look_and_an_endless_one_does_not_put_it_off() {
        let mut burst = Burst::default();
        assert_eq!(burst.due_ms(), None);
        burst.note(1000);
        assert_eq!(burst.due_ms(), Some(1200));
        burst.note(1100);
        assert_eq!(burst.due_ms(), Some(1300));
        (1101..9000).for_each(|now_ms| burst.note(now_ms));
        assert_eq!(burst.due_ms(), Some(3000));
        burst.clear();
        assert_eq!(burst.due_ms(), None);
    }
}
