//! What the guest says to the host. No message holds a list; see the crate's description.

pub use crate::check::{AskHost, HostTask};
use crate::message::{check_enum, check_length};
pub use crate::reseed::Reseeded;
pub use crate::resize::Resized;
pub use crate::stream::{StreamClosed, StreamCredit, StreamData, StreamEnd, StreamOpened, StreamPart};
pub use crate::volume::{VolumeFrozen, VolumeGrown};
use crate::{DecodeError, LOG_DATA_LENGTH_MAX, NAME_LENGTH_MAX, TEXT_LENGTH_MAX};

/// Envelope of every frame from guest to host.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GuestFrame {
    #[prost(oneof = "GuestMessage", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 30, 31, 36, 38")]
    pub(crate) message: Option<GuestMessage>,
}

/// A message from the guest.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum GuestMessage {
    /// Answers the host's Hello.
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// A container changed, or its state is told again after a Hello.
    #[prost(message, tag = "2")]
    ContainerState(ContainerState),
    /// The pod changed, or the list of states after a Hello ends.
    #[prost(message, tag = "3")]
    PodState(PodState),
    /// Output of a container.
    #[prost(message, tag = "4")]
    LogChunk(LogChunk),
    /// Output that was dropped because it was not acknowledged in time.
    #[prost(message, tag = "5")]
    LogGap(LogGap),
    /// CPU and memory in use.
    #[prost(message, tag = "6")]
    Usage(Usage),
    /// Answers a Ping.
    #[prost(message, tag = "7")]
    Pong(Pong),
    /// The last message before power-off.
    #[prost(message, tag = "8")]
    Stopping(Stopping),
    /// A stream that the host asked for has begun.
    #[prost(message, tag = "9")]
    StreamOpened(StreamOpened),
    /// Bytes of a stream.
    #[prost(message, tag = "10")]
    StreamData(StreamData),
    /// Room for more bytes of a stream.
    #[prost(message, tag = "11")]
    StreamCredit(StreamCredit),
    /// A stream is over.
    #[prost(message, tag = "12")]
    StreamClosed(StreamClosed),
    /// What came of a GrowVolume.
    #[prost(message, tag = "30")]
    VolumeGrown(VolumeGrown),
    /// What came of a Resize.
    #[prost(message, tag = "13")]
    Resized(Resized),
    /// What came of a Reseed.
    #[prost(message, tag = "38")]
    Reseeded(Reseeded),
    /// Ask a container by HTTPS; answered with a HostAnswer. Only where the host's Hello says that it does.
    #[prost(message, tag = "31")]
    AskHost(AskHost),
    /// What came of a FreezeVolume.
    #[prost(message, tag = "36")]
    VolumeFrozen(VolumeFrozen),
}

/// Answers the host's Hello.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// [`crate::PROTOCOL_VERSION`] of the guest. If it is not the host's, nothing else can be understood.
    #[prost(uint32, tag = "1")]
    pub protocol_version: u32,
    /// From the start of the kernel to the first instruction of the init process, in milliseconds.
    #[prost(uint64, tag = "2")]
    pub boot_ms: u64,
    /// `uname -r`.
    #[prost(string, tag = "3")]
    pub kernel_release: String,
    /// A Configure was accepted earlier; states follow.
    #[prost(bool, tag = "4")]
    pub configured: bool,
    /// As in [`crate::host::PodConfig`]; empty before Configure.
    #[prost(string, tag = "5")]
    pub sandbox_id: String,
    /// As in [`crate::host::PodConfig`]; empty before Configure.
    #[prost(string, tag = "6")]
    pub trace_context: String,
    /// How many ContainerState messages follow.
    #[prost(uint32, tag = "7")]
    pub container_count: u32,
    /// It knows streams; guests of earlier versions do not.
    #[prost(bool, tag = "8")]
    pub streams: bool,
    /// What the guest's clock shows now: from the start of the kernel to this message, in milliseconds. 0 in guests of earlier
    /// versions.
    #[prost(uint64, tag = "90")]
    pub uptime_ms: u64,
    /// It knows how to attach, and to read log files; guests of earlier versions do not.
    #[prost(bool, tag = "80")]
    pub attach: bool,
    /// It sets huge pages aside and mounts volumes of them; guests of earlier versions do not.
    #[prost(bool, tag = "93")]
    pub huge_pages: bool,
    /// It knows GrowVolume; guests of earlier versions do not.
    #[prost(bool, tag = "70")]
    pub grows_volumes: bool,
    /// It knows Resize; guests of earlier versions do not.
    #[prost(bool, tag = "91")]
    pub resizes: bool,
    /// It knows Reseed; guests of earlier versions do not.
    #[prost(bool, tag = "95")]
    pub reseeds: bool,
    /// It hands HTTPS probes and hooks over; guests of earlier versions do not.
    #[prost(bool, tag = "92")]
    pub hands_over_https: bool,
    /// It knows FreezeVolume; guests of earlier versions do not.
    #[prost(bool, tag = "94")]
    pub freezes_volumes: bool,
}

/// Kubernetes' three container states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ContainerStateKind {
    /// Not yet started, or waiting for its back-off to pass.
    Waiting = 0,
    /// Its process runs.
    Running = 1,
    /// It ended and will not start again, or its next start is decided at once.
    Terminated = 2,
}

/// State of one container. The fields of the last run (exit code to finish) stay while it waits for its next start.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerState {
    /// Name of the container.
    #[prost(string, tag = "1")]
    pub container: String,
    /// Which of the three states.
    #[prost(enumeration = "ContainerStateKind", tag = "2")]
    pub kind: i32,
    /// How often it was started again.
    #[prost(uint32, tag = "3")]
    pub restart_count: u32,
    /// Of the last run that ended; absent if none did. 128 + signal for a signal.
    #[prost(int32, optional, tag = "4")]
    pub exit_code: Option<i32>,
    /// The signal that ended it, else 0.
    #[prost(int32, tag = "5")]
    pub signal: i32,
    /// One CamelCase word: Completed, Error, OOMKilled, ContainerCannotRun, CrashLoopBackOff, PodInitializing,
    /// ContainerCreating.
    #[prost(string, tag = "6")]
    pub reason: String,
    /// A sentence for people, may be empty.
    #[prost(string, tag = "7")]
    pub message: String,
    /// Start of the current or last run, Unix time in milliseconds by the guest's clock; 0 if never.
    #[prost(uint64, tag = "8")]
    pub started_at_ms: u64,
    /// End of the last run, Unix time in milliseconds by the guest's clock; 0 if none ended.
    #[prost(uint64, tag = "9")]
    pub finished_at_ms: u64,
    /// Start of the current or last run, milliseconds since the guest's boot.
    #[prost(uint64, tag = "10")]
    pub started_monotonic_ms: u64,
    /// End of the last run, milliseconds since the guest's boot.
    #[prost(uint64, tag = "11")]
    pub finished_monotonic_ms: u64,
    /// An init container.
    #[prost(bool, tag = "12")]
    pub init: bool,
    /// Why the last run ended (Completed, Error, OOMKilled, ContainerCannotRun) when `reason` tells why it waits.
    #[prost(string, tag = "13")]
    pub last_reason: String,
    /// It runs, but does not serve, as its probes say; guests of earlier versions have no probes.
    #[prost(bool, tag = "14")]
    pub unready: bool,
    /// What the last run's end was about when `message` tells something else; may be empty.
    #[prost(string, tag = "15")]
    pub last_message: String,
}

/// Phases of a pod inside its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum PodPhase {
    /// Init containers are not yet done.
    Initializing = 0,
    /// All containers were started.
    Running = 1,
    /// All ended with 0 and none starts again. The guest powers off.
    Succeeded = 2,
    /// All ended, at least one with an error, and none starts again. The guest powers off.
    Failed = 3,
}

/// State of the whole pod.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodState {
    /// The phase.
    #[prost(enumeration = "PodPhase", tag = "1")]
    pub phase: i32,
    /// One CamelCase word, may be empty.
    #[prost(string, tag = "2")]
    pub reason: String,
    /// A sentence for people, may be empty.
    #[prost(string, tag = "3")]
    pub message: String,
}

/// Which output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum LogStream {
    /// Standard output.
    Stdout = 0,
    /// Standard error.
    Stderr = 1,
}

/// Output of a container, as read from its pipe; not cut at line ends.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LogChunk {
    /// Name of the container.
    #[prost(string, tag = "1")]
    pub container: String,
    /// Instance that wrote it: the restart count at that time.
    #[prost(uint32, tag = "2")]
    pub restart: u32,
    /// Which output.
    #[prost(enumeration = "LogStream", tag = "3")]
    pub stream: i32,
    /// Offset of the first byte. One count for both streams and all instances of the container, from 0.
    #[prost(uint64, tag = "4")]
    pub offset: u64,
    /// When it was read, Unix time in milliseconds by the guest's clock.
    #[prost(uint64, tag = "5")]
    pub time_ms: u64,
    /// At most [`LOG_DATA_LENGTH_MAX`] bytes.
    #[prost(bytes = "vec", tag = "6")]
    pub data: Vec<u8>,
}

/// Output that is lost.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LogGap {
    /// Name of the container.
    #[prost(string, tag = "1")]
    pub container: String,
    /// First lost offset.
    #[prost(uint64, tag = "2")]
    pub from_offset: u64,
    /// First offset that is there again.
    #[prost(uint64, tag = "3")]
    pub to_offset: u64,
}

/// CPU and memory in use, of the pod or of one container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Usage {
    /// Name of the container; empty for the whole pod.
    #[prost(string, tag = "1")]
    pub container: String,
    /// CPU time since the start, over all instances, in microseconds.
    #[prost(uint64, tag = "2")]
    pub cpu_usec: u64,
    /// Working set: charged memory without the inactive page cache, in bytes.
    #[prost(uint64, tag = "3")]
    pub memory_bytes: u64,
    /// When it was read, Unix time in milliseconds by the guest's clock.
    #[prost(uint64, tag = "4")]
    pub time_ms: u64,
}

/// Answers a Ping.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Pong {
    /// From the Ping.
    #[prost(uint64, tag = "1")]
    pub number: u64,
}

/// The last message before power-off.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stopping {
    /// Why: `Completed` (nothing left to run), `Stopped` (the host asked) or `Fatal`.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// A sentence for people, may be empty.
    #[prost(string, tag = "2")]
    pub message: String,
}

impl GuestMessage {
    /// Checks every bound; [`crate::decode`] does this for each message.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] with the field.
    pub fn validate(&self) -> Result<(), DecodeError> {
        match self {
            Self::Hello(m) => {
                check_length("Hello.kernel_release", &m.kernel_release, TEXT_LENGTH_MAX)?;
                check_length("Hello.sandbox_id", &m.sandbox_id, NAME_LENGTH_MAX)?;
                check_length("Hello.trace_context", &m.trace_context, TEXT_LENGTH_MAX)
            }
            Self::ContainerState(m) => {
                check_length("ContainerState.container", &m.container, NAME_LENGTH_MAX)?;
                check_length("ContainerState.reason", &m.reason, NAME_LENGTH_MAX)?;
                check_length("ContainerState.last_reason", &m.last_reason, NAME_LENGTH_MAX)?;
                check_length("ContainerState.message", &m.message, TEXT_LENGTH_MAX)?;
                check_length("ContainerState.last_message", &m.last_message, TEXT_LENGTH_MAX)?;
                check_enum::<ContainerStateKind>("ContainerState.kind", m.kind)
            }
            Self::PodState(m) => {
                check_length("PodState.reason", &m.reason, NAME_LENGTH_MAX)?;
                check_length("PodState.message", &m.message, TEXT_LENGTH_MAX)?;
                check_enum::<PodPhase>("PodState.phase", m.phase)
            }
            Self::LogChunk(m) => m.validate(),
            Self::LogGap(m) => {
                check_length("LogGap.container", &m.container, NAME_LENGTH_MAX)?;
                if m.from_offset > m.to_offset {
                    let reason = format!("{} is before {}", m.to_offset, m.from_offset);
                    return Err(DecodeError::Invalid { field: "LogGap.to_offset", reason });
                }
                Ok(())
            }
            Self::AskHost(m) => m.validate(),
            Self::Usage(m) => check_length("Usage.container", &m.container, NAME_LENGTH_MAX),
            Self::StreamData(m) => m.validate(),
            Self::StreamClosed(m) => m.validate(),
            Self::VolumeGrown(m) => m.validate(),
            Self::Resized(m) => m.validate(),
            Self::Reseeded(m) => m.validate(),
            Self::VolumeFrozen(m) => m.validate(),
            Self::Pong(_) | Self::StreamOpened(_) | Self::StreamCredit(_) => Ok(()),
            Self::Stopping(m) => {
                check_length("Stopping.reason", &m.reason, NAME_LENGTH_MAX)?;
                check_length("Stopping.message", &m.message, TEXT_LENGTH_MAX)
            }
        }
    }
}

impl LogChunk {
    fn validate(&self) -> Result<(), DecodeError> {
        check_length("LogChunk.container", &self.container, NAME_LENGTH_MAX)?;
        check_length("LogChunk.data", &self.data, LOG_DATA_LENGTH_MAX)?;
        check_enum::<LogStream>("LogChunk.stream", self.stream)?;
        if self.offset.checked_add(self.data.len() as u64).is_none() {
            return Err(DecodeError::Invalid { field: "LogChunk.offset", reason: "is out of range".into() });
        }
        Ok(())
    }
}
