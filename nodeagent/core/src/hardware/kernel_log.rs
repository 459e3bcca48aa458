//! What the kernel says of devices in its log (`/dev/kmsg`): faults of NVIDIA's driver, and errors of PCI Express.
//!
//! A card that a guest has is known to no driver of the host but vfio-pci: what goes wrong with it is seen here or nowhere.
//!
//! Source: "Documentation/ABI/testing/dev-kmsg" and `drivers/pci/pcie/aer.c`, `err.c` of Linux; NVIDIA's "XID Errors". Lines are
//! taken only where they begin as the kernel's own do: names of processes and devices, which strangers choose, come behind that.

use super::Bdf;

/// Longest record that is looked at, in bytes: the kernel cuts its own at about this.
pub const RECORD_BYTES_MAX: usize = 8192;
/// Facility of the kernel itself: what programs write to `/dev/kmsg` has another.
const FACILITY_KERNEL: u32 = 0;

/// How bad an error of PCI Express is (PCI Express Base Specification 5.0, section 6.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AerSeverity {
    /// The link mended it.
    Corrected,
    /// Something was lost, the link holds.
    NonFatal,
    /// The link cannot be relied on.
    Fatal,
}

/// Something that the kernel said of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelEvent {
    /// NVIDIA's driver had a fault.
    Xid {
        /// The card's first function.
        card: Bdf,
        /// Its number.
        code: u32,
    },
    /// An error of PCI Express.
    Aer {
        /// The function that had it.
        function: Bdf,
        /// How bad it is.
        severity: AerSeverity,
    },
    /// The kernel tried to mend what is behind a port after such an error.
    Recovery {
        /// The port.
        port: Bdf,
        /// Whether that worked.
        succeeded: bool,
    },
    /// The kernel cannot reach a function any more.
    Inaccessible {
        /// Which.
        function: Bdf,
    },
}

/// One record of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelRecord {
    /// Its number: counts from the boot.
    pub sequence: u64,
    /// What it says of a device, if it does.
    pub event: Option<KernelEvent>,
}

/// Reads a record as `/dev/kmsg` gives it; `None` for what is none. It may hold anything.
#[must_use]
pub fn kernel_record(record: &[u8]) -> Option<KernelRecord> {
    let record = &record[..record.len().min(RECORD_BYTES_MAX)];
    // The first line; what follows are the kernel's own words on it.
    let line = record.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let (head, text) = line.split_once(';')?;
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let sequence = fields.next()?.parse().ok()?;
    let event = if priority >> 3 == FACILITY_KERNEL { event(text) } else { None };
    Some(KernelRecord { sequence, event })
}

fn event(text: &str) -> Option<KernelEvent> {
    match text.strip_prefix("NVRM: Xid (") {
        Some(rest) => xid(rest),
        None => of_function(text),
    }
}

/// `PCI:0000:41:00): 79, pid=…`; of a partition `PCI:0000:41:00 GPU-I:05): 43, …`.
fn xid(text: &str) -> Option<KernelEvent> {
    let (place, rest) = text.split_once("): ")?;
    let place = place.split(' ').next()?;
    let place = place.strip_prefix("PCI:").unwrap_or(place);
    let card = place.parse().or_else(|_| format!("{place}.0").parse()).ok()?;
    let end = rest.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    Some(KernelEvent::Xid { card, code: rest[..end].parse().ok()? })
}

/// `driver 0000:41:00.0: …`
fn of_function(text: &str) -> Option<KernelEvent> {
    let (_, rest) = text.split_once(' ')?;
    let (address, rest) = rest.split_once(": ")?;
    let function: Bdf = address.parse().ok()?;
    if let Some(rest) = rest.strip_prefix("PCIe Bus Error: severity=") {
        return Some(KernelEvent::Aer { function, severity: severity(rest)?.0 });
    }
    if rest.starts_with("Unable to change power state from D3cold")
        || (rest.starts_with("not ready ") && rest.ends_with("; giving up"))
    {
        return Some(KernelEvent::Inaccessible { function });
    }
    let rest = rest.strip_prefix("AER: ")?;
    if let Some(outcome) = rest.strip_prefix("device recovery ") {
        return match outcome {
            "successful" => Some(KernelEvent::Recovery { port: function, succeeded: true }),
            "failed" => Some(KernelEvent::Recovery { port: function, succeeded: false }),
            _ => None,
        };
    }
    let (severity, rest) = severity(rest.strip_prefix("Multiple ").unwrap_or(rest))?;
    // Linux 6.10 and later, and those before.
    let rest = rest.strip_prefix(" error message received from ");
    let rest = rest.or_else(|| text.split_once(" error received: ").map(|(_, rest)| rest))?;
    let function = rest.split(' ').next()?.parse().ok()?;
    Some(KernelEvent::Aer { function, severity })
}

/// How bad, as the kernel writes it, and what follows.
fn severity(text: &str) -> Option<(AerSeverity, &str)> {
    const WORDS: [(&str, AerSeverity); 6] = [
        ("Uncorrectable (Non-Fatal)", AerSeverity::NonFatal),
        ("Uncorrected (Non-Fatal)", AerSeverity::NonFatal),
        ("Uncorrectable (Fatal)", AerSeverity::Fatal),
        ("Uncorrected (Fatal)", AerSeverity::Fatal),
        ("Correctable", AerSeverity::Corrected),
        ("Corrected", AerSeverity::Corrected),
    ];
    WORDS.iter().find_map(|(word, severity)| Some((*severity, text.strip_prefix(word)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(record: &str, expected: &str) {
        let event = kernel_record(record.as_bytes()).map(|record| record.event);
        let shown = match event {
            None => "no record".to_owned(),
            Some(None) => "nothing".to_owned(),
            Some(Some(KernelEvent::Xid { card, code })) => format!("{card} xid {code}"),
            Some(Some(KernelEvent::Aer { function, severity })) => format!("{function} {severity:?}"),
            Some(Some(KernelEvent::Recovery { port, succeeded })) => format!("{port} recovery {succeeded}"),
            Some(Some(KernelEvent::Inaccessible { function })) => format!("{function} inaccessible"),
        };
        assert_eq!(shown, expected, "{record:?}");
    }

    #[test]
    fn faults_of_the_driver_are_read() {
        let gone = "4,1203,78234112,-;NVRM: Xid (PCI:0000:41:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n SUBSYSTEM=pci\n DEVICE=+pci:0000:41:00.0\n";
        check(gone, "0000:41:00.0 xid 79");
        assert_eq!(kernel_record(gone.as_bytes()).map(|record| record.sequence), Some(1203));
        check("4,1,2,-;NVRM: Xid (PCI:0000:c1:00 GPU-I:05): 43, pid=7, Ch 00000008", "0000:c1:00.0 xid 43");
        check("4,1,2,-;NVRM: Xid (0000:41:00): 31, Ch 00000010, engmask 00000101", "0000:41:00.0 xid 31");
        check("4,1,2,-;NVRM: Xid (PCI:0000:41:00.0): 48, DBE (double bit error)", "0000:41:00.0 xid 48");
        check("4,1,2,-;NVRM: Xid (PCI:10000:01:00): 13", "10000:01:00.0 xid 13");
    }

    #[test]
    fn errors_of_the_bus_are_read_of_old_kernels_and_new_ones() {
        let port = "3,1,2,-;pcieport 0000:40:01.1: AER: ";
        check(
            &format!("{port}Uncorrectable (Fatal) error message received from 0000:41:00.0"),
            "0000:41:00.0 Fatal",
        );
        check(
            &format!("{port}Multiple Correctable error message received from 0000:41:00.0"),
            "0000:41:00.0 Corrected",
        );
        check(
            &format!("{port}Uncorrected (Non-Fatal) error received: 0000:41:00.1"),
            "0000:41:00.1 NonFatal",
        );
        check(
            &format!("{port}Multiple Corrected error received: 0000:41:00.0 (no details found)"),
            "0000:41:00.0 Corrected",
        );
        check(&format!("{port}Uncorrected (Fatal) error received: id=4100"), "nothing");
        check(&format!("{port}device recovery successful"), "0000:40:01.1 recovery true");
        check(&format!("{port}device recovery failed"), "0000:40:01.1 recovery false");
        check(
            "3,1,2,-;vfio-pci 0000:41:00.0: PCIe Bus Error: severity=Uncorrected (Fatal), type=Transaction Layer, (Requester ID)",
            "0000:41:00.0 Fatal",
        );
        check(
            "3,1,2,-;vfio-pci 0000:41:00.0: Unable to change power state from D3cold to D0, device inaccessible",
            "0000:41:00.0 inaccessible",
        );
        check(
            "4,1,2,-;vfio-pci 0000:41:00.0: not ready 65535ms after FLR; giving up",
            "0000:41:00.0 inaccessible",
        );
        check("4,1,2,-;vfio-pci 0000:41:00.0: not ready 1023ms after FLR; waiting", "nothing");
    }

    #[test]
    fn what_strangers_say_is_not_the_kernels_word() {
        // A program's own line has its facility.
        check("12,1,2,-;NVRM: Xid (PCI:0000:41:00): 79, pid=1", "nothing");
        // A name that somebody chose stands inside a line, and line breaks in it are escaped.
        check("6,1,2,-;x[12]: segfault at NVRM: Xid (PCI:0000:41:00): 79, ip 0", "nothing");
        check("6,1,2,-;usb 1-1: Product: \\x0aNVRM: Xid (PCI:0000:41:00): 79", "nothing");
        for broken in ["", ";", "4", "4,1", "a,b,c;d", "-4,1,2,-;x", "99999999999,1,2,-;x"] {
            check(broken, "no record");
        }
        for odd in [
            "",
            "NVRM: Xid (",
            "NVRM: Xid (PCI:41): 1",
            "NVRM: Xid (PCI:0000:41:00): 99999999999",
            "NVRM: Xid (PCI:0000:41:00): x",
        ] {
            check(&format!("4,1,2,-;{odd}"), "nothing");
        }
        assert!(kernel_record(&[0xff; 70_000]).is_none());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]
        #[test]
        fn any_bytes_are_read(head in "[0-9]{1,3},[0-9]{1,20},1,-;", tail in "(NVRM: Xid \\(|pcieport 0000:00:01.0: AER: )?[ -~é]{0,60}") {
            let _ = kernel_record(format!("{head}{tail}").as_bytes());
        }
    }
}
