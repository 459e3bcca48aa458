//! A guest that was booted once, and of which others are copies (`--memory-sharing template`).
//!
//! ```text
//!  template:  boot ─► first word ─► stop ─► its memory: a file without a name, sealed     its devices' state: another one
//!  copy:      QEMU -incoming ◄── the memory, copy-on-write ◄── the state ─► cont ─► first word ─► made one of its own (Reseed)
//! ```
//!
//! The memory that a template had when it had booted (its kernel, what was its initramfs, its init) is there once for all of its copies.
//! Both files are memory of the kernel's (memfd_create(2)) and end with the agent: nothing on a disk can be outdated or be changed by
//! anybody. They are sealed: nobody writes to them any more, whatever rights somebody has; QEMU 7.2 insists on opening its memory for
//! writing, and may, but what it maps is its own copy.
//!
//! A copy has disks and a network card added as guests of the pool have. Before it is anybody's, it gets randomness of the host and
//! the time. What it keeps in common with its siblings is in `ARCHITECTURE.md`.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use bulkhead_guest_protocol::host::{ENTROPY_LENGTH_MIN, Reseed};
use bulkhead_nodeagent_core::GuestSize;
use bulkhead_nodeagent_core::qemu::{Ram, TemplateMemory};
use rustix::fs::{MemfdFlags, SealFlags};
use serde_json::json;

use crate::boot::BootAssets;
use crate::clock;
use crate::confinement::resolve;
use crate::error::chain;
use crate::host::Host;
use crate::qmp::{Qmp, QmpError};
use crate::steps::{Step, passed};

/// Where the kernel's randomness is had (random(4)).
const RANDOM: &str = "/dev/urandom";
/// QEMU's name of a descriptor that it is given.
const STATE: &str = "state";

/// What a template was made of: copies of one of anything else would not run, or be of an earlier version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MadeOf {
    /// Of kernel and initramfs.
    digest: String,
    /// QEMU's file: device, number, length and last change.
    qemu: (u64, u64, u64, i64),
    pub(crate) size: GuestSize,
}

impl MadeOf {
    /// What guests of this size are made of now.
    pub(crate) fn now(host: &Host, boot: &BootAssets, size: GuestSize) -> io::Result<Self> {
        let program = resolve(&host.qemu).ok_or(io::ErrorKind::NotFound)?;
        let meta = fs::metadata(program)?;
        let qemu = (meta.dev(), meta.ino(), meta.len(), meta.mtime());
        Ok(Self { digest: boot.digest.clone(), qemu, size })
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Template {
    memory: OwnedFd,
    state: OwnedFd,
    made_of: MadeOf,
}

/// The memory and state of a template that is being made.
pub(crate) struct Blank {
    memory: OwnedFd,
    state: OwnedFd,
    made_of: MadeOf,
}

impl Blank {
    pub(crate) fn new(made_of: MadeOf) -> io::Result<Self> {
        let make =
            |name: &str| rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
        let (memory, state) = (make("bulkhead-memory")?, make("bulkhead-state")?);
        rustix::fs::ftruncate(&memory, made_of.size.memory_bytes.next_multiple_of(1 << 20))?;
        Ok(Self { memory, state, made_of })
    }

    /// Where the memory of the guest is that becomes the template.
    pub(crate) fn ram(&self) -> Ram {
        ram(&self.memory, self.made_of.size, false)
    }

    /// Stops the guest and takes down the state of its devices. Its memory is where it is.
    pub(crate) async fn take_down(&self, qmp: &mut Qmp) -> Result<(), QmpError> {
        qmp.execute("stop", json!({})).await?;
        passed(Step::TemplateStopped);
        prepare(qmp).await?;
        qmp.name_file(STATE, &File::from(self.state.try_clone()?)).await?;
        qmp.execute("migrate", json!({ "uri": format!("fd:{STATE}") })).await?;
        migrated(qmp).await?;
        passed(Step::TemplateTakenDown);
        Ok(())
    }

    /// Nobody writes to it from now on. Its guest must have ended.
    pub(crate) fn seal(self) -> io::Result<Template> {
        let Self { memory, state, made_of } = self;
        for file in [&memory, &state] {
            let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
            rustix::fs::fcntl_add_seals(file, seals)?;
        }
        passed(Step::TemplateSealed);
        Ok(Template { memory, state, made_of })
    }
}

impl Template {
    pub(crate) fn is_of(&self, made_of: &MadeOf) -> bool {
        self.made_of == *made_of
    }

    /// Where the memory of a copy is.
    pub(crate) fn ram(&self) -> Ram {
        ram(&self.memory, self.made_of.size, true)
    }

    /// What it takes of the host's memory, in bytes.
    pub(crate) fn held_bytes(&self) -> u64 {
        let held =
            |file: &OwnedFd| rustix::fs::fstat(file).map_or(0, |stat| stat.st_blocks.unsigned_abs() * 512);
        held(&self.memory) + held(&self.state)
    }

    /// Gives a machine that waits for it the state of the template, and lets it go on from there.
    pub(crate) async fn restore(&self, qmp: &mut Qmp) -> Result<(), QmpError> {
        prepare(qmp).await?;
        // A descriptor of its own: others read the file as well, each from its beginning.
        let state = File::open(format!("/proc/self/fd/{}", self.state.as_raw_fd()))?;
        qmp.name_file(STATE, &state).await?;
        qmp.execute("migrate-incoming", json!({ "uri": format!("fd:{STATE}") })).await?;
        migrated(qmp).await?;
        passed(Step::CopyRestored);
        qmp.execute("cont", json!({})).await?;
        passed(Step::CopyResumed);
        Ok(())
    }
}

fn ram(memory: &OwnedFd, size: GuestSize, copy_on_write: bool) -> Ram {
    Ram::Template(TemplateMemory { fd: memory.as_raw_fd(), size_bytes: size.memory_bytes, copy_on_write })
}

/// Memory in a file stays there, and what becomes of the rest is told by events.
async fn prepare(qmp: &mut Qmp) -> Result<(), QmpError> {
    let on = |name: &str| json!({ "capability": name, "state": true });
    let both = json!({ "capabilities": [on("x-ignore-shared"), on("events")] });
    qmp.execute("migrate-set-capabilities", both).await.map(drop)
}

/// Waits until the state has been written, or read, as a whole.
async fn migrated(qmp: &mut Qmp) -> Result<(), QmpError> {
    loop {
        let event = qmp.next_event().await?;
        match event.data.get("status").and_then(|status| status.as_str()) {
            Some("completed") if event.event == "MIGRATION" => return Ok(()),
            Some("failed") if event.event == "MIGRATION" => {
                let said = qmp.execute("query-migrate", json!({})).await?;
                let reason =
                    said.get("error-desc").and_then(|text| text.as_str()).unwrap_or("it does not say why");
                return Err(QmpError::Refused { command: "migrate".to_owned(), reason: reason.to_owned() });
            }
            _ => {}
        }
    }
}

/// What makes a copy a guest of its own.
pub(crate) fn seed() -> Result<Reseed, String> {
    let mut entropy = vec![0; 2 * ENTROPY_LENGTH_MIN];
    let read = File::open(RANDOM).and_then(|mut random| random.read_exact(&mut entropy));
    read.map_err(|error| format!("{RANDOM}: {}", chain(&error)))?;
    Ok(Reseed { entropy, unix_ms: clock::unix_ms() })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn blank() -> Blank {
        let size = GuestSize { cpus: 1, memory_bytes: 1 << 20 };
        Blank::new(MadeOf { digest: "d".to_owned(), qemu: (1, 2, 3, 4), size }).expect("made")
    }

    #[test]
    fn nobody_changes_what_copies_began_with() {
        let blank = blank();
        rustix::io::pwrite(&blank.memory, b"kernel", 4096).expect("the template's guest has it");
        let template = blank.seal().expect("nobody has it mapped");
        let path = format!("/proc/self/fd/{}", template.memory.as_raw_fd());
        // QEMU opens it like this, and there is no other way to make it.
        let mut opened = fs::OpenOptions::new().read(true).write(true).open(path).expect("opened");
        let refused = opened.write(b"planted").expect_err("sealed");
        assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::PERM.raw_os_error()));
        assert!(opened.set_len(0).is_err() && opened.set_len(2 << 20).is_err());
        assert!(rustix::fs::fcntl_add_seals(&template.memory, SealFlags::FUTURE_WRITE).is_err(), "for good");
        let mut read = [0; 6];
        rustix::io::pread(&template.memory, &mut read, 4096).expect("read");
        assert_eq!(&read, b"kernel");
        assert!((4096..1 << 20).contains(&template.held_bytes()), "what was never touched takes nothing");
    }

    #[test]
    fn a_template_of_anything_else_is_none() {
        let template = blank().seal().expect("sealed");
        let made_of = template.made_of.clone();
        assert!(template.is_of(&made_of));
        let check = |change: &dyn Fn(&mut MadeOf)| {
            let mut other = made_of.clone();
            change(&mut other);
            assert!(!template.is_of(&other), "{other:?}");
        };
        check(&|made_of| made_of.digest.push('e'));
        check(&|made_of| made_of.qemu.3 += 1);
        check(&|made_of| made_of.size.cpus += 1);
    }

    #[test]
    fn no_two_copies_get_the_same_randomness() {
        let (one, other) = (seed().expect("read"), seed().expect("read"));
        assert_eq!(one.entropy.len(), 64);
        assert_ne!(one.entropy, other.entropy);
        assert!(one.unix_ms > 1_700_000_000_000);
    }
}
