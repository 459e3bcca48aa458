//! What the node agent and the init process of a guest VM say to each other over one virtio-serial port.
//!
//! ```text
//!  node agent (host)                                            bulkhead-guest (/init)
//!  HostMessage ──encode──► frame bytes ──► virtio-serial ──► FrameReader ──decode──► HostMessage
//!  GuestMessage ◄─decode── FrameReader ◄── virtio-serial ◄── frame bytes ◄──encode── GuestMessage
//! ```
//!
//! Entry points: [`encode`], [`decode`] and [`FrameReader`]; the vocabulary is in [`host`] and [`guest`].
//!
//! A conversation:
//! 1. The host opens its end and sends [`host::Hello`], again every second until it is answered.
//! 2. The guest answers [`guest::Hello`]. If it was configured before (the agent restarted), one
//!    [`guest::ContainerState`] for every container follows and then one [`guest::PodState`], which ends the list.
//!    If it was not, the host sends [`host::Configure`].
//! 3. States, logs and usage flow as they happen. Log data stays in the guest, within a bound, until the host
//!    acknowledges it by offset; after a new Hello the guest sends everything unacknowledged again, or what
//!    [`host::ResumeLogs`] asks for.
//! 4. Streams ([`stream`]) are what goes into and comes out of the pod on request: commands, connections, files. A
//!    Hello ends all of them. The host's end is [`HostStreams`].
//! 5. [`guest::Stopping`] is the last message before the guest powers off.
//!
//! The guest trusts the host. The host must treat every byte as hostile: frames and every field are bounded, and no
//! guest message holds a list, so that a small frame cannot decode into a large value.
//!
//! Tags are append-only: a number that was ever used never changes its meaning. This crate does no IO, reads no clock
//! and knows nothing about QEMU.

mod check;
mod error;
mod frame;
pub mod guest;
pub mod host;
mod message;
mod reseed;
mod resize;
pub mod stream;
mod streams;
mod sysctl;
mod volume;

pub use error::{DecodeError, FrameError};
pub use frame::{FRAME_HEADER_LENGTH, FrameReader, append_frame};
pub use guest::GuestMessage;
pub use host::HostMessage;
pub use message::{Wire, decode, encode};
pub use streams::{HostStreams, OpenError, StreamEvent};

/// Version of this protocol. The two ends must agree on it exactly; the agent ships the guest binary with itself.
pub const PROTOCOL_VERSION: u32 = 1;

/// Name of the virtio-serial port (QEMU: `-device virtserialport,name=…`).
pub const PORT_NAME: &str = "org.bulkhead.guest.0";

/// File in the initramfs that lists the kernel modules to load, one absolute path a line, in load order.
pub const MODULES_LIST_PATH: &str = "/lib/modules/bulkhead.list";

/// Files in the initramfs with the drivers of memory that comes and goes while the guest runs; not among those of the list, because
/// most guests never need them.
pub const MEMORY_MODULE_PATHS: [&str; 2] = ["/lib/modules/virtio_mem.ko", "/lib/modules/virtio_balloon.ko"];

/// Longest payload of one frame, in bytes. A longer one is refused by both ends.
pub const FRAME_LENGTH_MAX: usize = 1 << 20;

/// Longest `data` of one [`guest::LogChunk`], in bytes. Small enough that states never wait long behind logs.
pub const LOG_DATA_LENGTH_MAX: usize = 32 * 1024;

/// Bytes of unacknowledged log data that the guest keeps for each container.
pub const LOG_RING_LENGTH_MAX: usize = 1 << 20;

/// Longest container name and sandbox id, in bytes (DNS-1123 label; a UUID fits as well).
pub const NAME_LENGTH_MAX: usize = 63;

/// Longest human-readable text in a message, in bytes.
pub const TEXT_LENGTH_MAX: usize = 4096;

/// Most containers, init containers included, in one pod.
pub const CONTAINERS_MAX: usize = 32;

/// Longest time for which a volume stands still ([`host::FreezeVolume`]), in milliseconds: whoever writes to it waits so long, and the kernel
/// complains of those that wait for two minutes.
pub const FREEZE_MS_MAX: u64 = 60_000;

/// A virtio-blk serial is at most this long (virtio specification, 5.2.6.1: 20 bytes).
pub const DISK_SERIAL_LENGTH_MAX: usize = 20;
