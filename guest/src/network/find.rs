//! Which interface is meant: by the root port that its device is behind, or by its MAC address.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bulkhead_guest_protocol::host::InterfaceConfig;

use crate::setup::DeviceEvents;

/// How long a driver may take to show its interface: those of large NICs talk to their firmware first.
const WAIT: Duration = Duration::from_secs(20);

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its number.
    pub(super) index: u32,
    /// Its address, as the kernel writes it.
    pub(super) mac: String,
}

/// What the kernel says of devices, heard from before the first look on.
pub(super) struct Waiting {
    events: DeviceEvents,
    until: Instant,
}

impl Waiting {
    pub(super) fn begin() -> Result<Self> {
        Ok(Self { events: DeviceEvents::open()?, until: Instant::now() + WAIT })
    }

    /// Waits until an interface is there.
    pub(super) fn find(&self, sysfs: &Path, config: &InterfaceConfig) -> Result<Found> {
        loop {
            let missing = match find(sysfs, config) {
                Ok(found) => return Ok(found),
                Err(missing) => missing,
            };
            if !self.events.heard(self.until)? {
                bail!("{missing}");
            }
        }
    }
}

/// Finds an interface that is there.
///
/// # Errors
/// What is missing.
pub(super) fn find(sysfs: &Path, config: &InterfaceConfig) -> Result<Found, String> {
    if config.pci_port.is_empty() { by_mac(sysfs, &config.mac) } else { by_port(sysfs, &config.pci_port) }
}

fn by_mac(sysfs: &Path, mac: &str) -> Result<Found, String> {
    let interfaces = names(&sysfs.join("class/net")).into_iter();
    let mut found = interfaces.filter_map(|name| read(&sysfs.join("class/net").join(name)));
    found.find(|one| one.mac.eq_ignore_ascii_case(mac)).ok_or_else(|| {
        "no device with this MAC address; is its driver's module loaded and the device in QEMU's arguments?".to_owned()
    })
}

fn by_port(sysfs: &Path, port: &str) -> Result<Found, String> {
    let dir = sysfs.join("bus/pci/devices").join(port);
    let functions = names(&dir).into_iter().filter(|name| is_pci_address(name));
    let device = functions.map(|name| dir.join(name)).next();
    let device = device.ok_or_else(|| format!("no device is behind the root port {port}"))?;
    // A virtio device has its interface below the virtio function.
    let virtio =
        names(&device).into_iter().filter(|name| name.starts_with("virtio")).map(|name| device.join(name));
    for place in std::iter::once(device.clone()).chain(virtio) {
        let net = place.join("net");
        if let Some(found) = names(&net).into_iter().find_map(|name| read(&net.join(name))) {
            return Ok(found);
        }
    }
    let id = |file| text(&device.join(file)).trim_start_matches("0x").to_owned();
    let ids = format!("{}:{}", id("vendor"), id("device"));
    match fs::read_link(device.join("driver")) {
        Err(_) => Err(format!("no driver for {ids} in the guest's kernel")),
        Ok(driver) => {
            let driver = driver.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Err(format!("the driver {driver} of {ids} shows no network interface; see the guest's console"))
        }
    }
}

/// The names in a folder, in order; none where there is no folder.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn read(interface: &Path) -> Option<Found> {
    let index = text(&interface.join("ifindex")).parse().ok()?;
    Some(Found { index, mac: text(&interface.join("address")) })
}

/// `0000:01:00.0`.
fn is_pci_address(name: &str) -> bool {
    let hex =
        |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut parts = name.split([':', '.']);
    let lengths = [4, 2, 2, 1];
    lengths.iter().all(|length| parts.next().is_some_and(|part| hex(part, *length))) && parts.next().is_none()
}

/// Reads `02:00:00:00:00:01`.
pub(super) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
    bytes?.try_into().ok()
}
