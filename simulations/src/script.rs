//! What was decided in a run, as data: which faults happened when, and what clients asked for.
//!
//! ```text
//!   seed ─► nemesis, workload ─┬─► World          a run makes its decisions and can write them down …
//!                              ▼
//!                            Script ─► file ─► World     … and another one is told them: bit for bit the same run,
//!                              │                          or a shorter one that fails in the same way
//!                              └─► shrink
//! ```
//!
//! A file holds one JSON value a line: a [`Header`], then the [`Decision`]s by time. Everything else (latencies,
//! lost messages, what a torn write leaves) follows from the seed, from a stream of its own for each place, so
//! that a decision less changes little elsewhere.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_types::{MemberId, ObjectId, Stamped};
use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::disk::{Damage, Loss};
use crate::network::{Cut, Host};
use crate::operator::Change;
use crate::options::Options;
use crate::registers::Wish;
use crate::timeline::Wanted;

/// The version of the file's form.
pub const VERSION: u32 = 2;

/// What a run begins with, besides its decisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the file's form.
    pub version: u32,
    /// The options, as they were drawn: a later build may draw others from the same seed.
    pub options: Options,
    /// When the faults end, microseconds.
    pub calm_at_us: Micros,
    /// Stands for everything that happened; unset when these decisions were never run as they are.
    pub trace_hash: Option<String>,
}

/// All decisions of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// What it begins with.
    pub header: Header,
    /// By time.
    pub decisions: Vec<Decision>,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// When, microseconds.
    pub at_us: Micros,
    /// What.
    pub what: What,
}

/// What is decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Something goes wrong.
    Fault(Fault),
    /// A client asks for something, as soon as it waits for nothing else.
    Operation {
        /// Which client.
        client: u32,
        /// What; a read when unset.
        submission: Option<Box<Stamped>>,
    },
    /// A client wants something of a register, as soon as it waits for nothing else.
    Register {
        /// Which, among those with registers.
        client: u32,
        /// What.
        wish: Wish,
    },
    /// A watcher begins.
    Watch {
        /// Which, among the watchers.
        watcher: u32,
        /// What it wants to know of.
        wanted: Box<Wanted>,
    },
}

/// Something that goes wrong, with everything that there is to know about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields say what they are: who, how long, how much")]
pub enum Fault {
    /// Power failure of a server.
    ServerCrash { member: MemberId, loss: Loss, down_us: Micros },
    /// A server's process stands still; its clocks go on.
    ServerPause { member: MemberId, for_us: Micros },
    /// A server's disk fails for one operation.
    DiskError { member: MemberId, operation: u8, skip: u64 },
    /// A server's disk has no room.
    DiskFull { member: MemberId, for_us: Micros },
    /// A server's disk takes longer for each flush.
    DiskSlow { member: MemberId, extra_us: Micros, for_us: Micros },
    /// A server's disk is gone; another member takes its place.
    DiskLost { member: MemberId, joins: MemberId },
    /// A server's power fails, and one of its durable records is not what it was.
    DiskDamage { member: MemberId, record: usize, damage: Damage, down_us: Micros },
    /// Hosts cannot reach each other.
    Partition { cut: Cut, for_us: Micros },
    /// One host after the other becomes unreachable, and one after the other comes back, in another order.
    Swizzle { clogs: Vec<(Host, Micros, Micros)> },
    /// An operator moves the leadership.
    LeaderTransfer { to: Option<MemberId> },
    /// An operator changes the members.
    MemberChange { change: Change },
    /// An operator wants a snapshot.
    TakeSnapshot { member: MemberId },
    /// A host's wall clock is set.
    ClockJump { host: Host, by_ms: i64 },
    /// A host's clocks run at another speed.
    ClockDrift { host: Host, drift_ppm: i64 },
    /// An agent's process dies.
    AgentCrash { agent: u32, down_us: Micros },
    /// A node loses power.
    NodeReboot { agent: u32, down_us: Micros },
    /// A node is cut off for long; its agent may be dead meanwhile.
    NodeLost { agent: u32, agent_dies: bool, for_us: Micros },
    /// A guest's process dies.
    VmCrash { agent: u32, pod: ObjectId, instance: u32 },
    /// A card of a node fails, or is gone, for a while.
    DeviceFailure { agent: u32, index: u32, gone: bool, for_us: Micros },
}

impl Fault {
    /// What kind it is, for counts.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ServerCrash { .. } => "server crash",
            Self::ServerPause { .. } => "server pause",
            Self::DiskError { .. } => "disk error",
            Self::DiskFull { .. } => "disk full",
            Self::DiskSlow { .. } => "disk slow",
            Self::DiskLost { .. } => "disk lost",
            Self::DiskDamage { damage: Damage::Flip { .. }, .. } => "bit flip",
            Self::DiskDamage { damage: Damage::Misdirected { .. }, .. } => "misdirected write",
            Self::DiskDamage { damage: Damage::Cut { .. }, .. } => "torn record",
            Self::Partition { cut: Cut::Isolate { mute, deaf, .. }, .. } if mute != deaf => {
                "one-way partition"
            }
            Self::Partition { .. } => "partition",
            Self::Swizzle { .. } => "swizzle",
            Self::LeaderTransfer { .. } => "leader transfer",
            Self::MemberChange { .. } => "member change",
            Self::TakeSnapshot { .. } => "snapshot",
            Self::ClockJump { .. } => "clock jump",
            Self::ClockDrift { .. } => "clock drift",
            Self::AgentCrash { .. } => "agent crash",
            Self::NodeReboot { .. } => "node reboot",
            Self::NodeLost { .. } => "node lost",
            Self::VmCrash { .. } => "guest crash",
            Self::DeviceFailure { .. } => "device failure",
        }
    }
}

/// Where a run writes its decisions down. Clones share it: what was decided before a panic is still there.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    decisions: Vec<Decision>,
    calm_at_us: Option<Micros>,
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, decision: Decision) {
        self.lock().decisions.push(decision);
    }

    pub(crate) fn note_calm(&self, at_us: Micros) {
        self.lock().calm_at_us = Some(at_us);
    }

    /// Everything that was decided, as a script with these options. A run that ended with its faults still going on
    /// is given the time for them that it should have had.
    #[must_use]
    pub fn script(&self, options: Options, trace_hash: Option<u128>) -> Script {
        let recorded = self.lock();
        let last_us = recorded.decisions.last().map_or(0, |d| d.at_us);
        let usual_us = (options.safety_ms * 1000).max(last_us + 1);
        let calm_at_us = recorded.calm_at_us.unwrap_or(usual_us);
        let decisions = recorded.decisions.clone();
        let trace_hash = trace_hash.map(|hash| format!("{hash:032x}"));
        let header = Header { version: VERSION, options, calm_at_us, trace_hash };
        Script { header, decisions }
    }
}

/// Why a file is no script.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// A line cannot be read.
    #[error("line {line}: {reason}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// Another build wrote it.
    #[error("the file has version {found}, this build reads version {VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
    /// Nothing in it.
    #[error("the file is empty")]
    Empty,
}

impl Script {
    /// The text of its file.
    ///
    /// # Panics
    /// Never: all of it can be written as JSON.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string(&self.header).expect("headers are plain data");
        for decision in &self.decisions {
            text.push('\n');
            text.push_str(&serde_json::to_string(decision).expect("decisions are plain data"));
        }
        text.push('\n');
        text
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// With the first line that cannot be read.
    pub fn from_text(text: &str) -> Result<Self, ScriptError> {
        let mut lines = text.lines().enumerate().map(|(n, line)| (n + 1, line));
        let wrong = |line: usize, e: &serde_json::Error| ScriptError::Line { line, reason: e.to_string() };
        let (_, first) = lines.next().ok_or(ScriptError::Empty)?;
        let header: Header = serde_json::from_str(first).map_err(|e| wrong(1, &e))?;
        if header.version != VERSION {
            return Err(ScriptError::Version { found: header.version });
        }
        let read = |(n, line)| serde_json::from_str(line).map_err(|e| wrong(n, &e));
        let decisions =
            lines.filter(|(_, line)| !line.trim().is_empty()).map(read).collect::<Result<_, _>>()?;
        Ok(Self { header, decisions })
    }
}

impl std::fmt::Display for Decision {
    /// One short line, for people.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>13.6} ", self.at_us as f64 / 1e6)?;
        match &self.what {
            What::Fault(fault) => write!(f, "{fault:?}"),
            What::Operation { client, submission: None } => write!(f, "client-{client} reads"),
            What::Register { client, wish } => {
                write!(f, "register client {client}: {:?} of register {}", wish.how, wish.object)
            }
            What::Watch { watcher, wanted } => write!(f, "watcher {watcher} begins: {wanted:?}"),
            What::Operation { client, submission: Some(stamped) } => {
                write!(f, "client-{client} submits")?;
                stamped
                    .commands
                    .iter()
                    .try_for_each(|command| write!(f, " {}", short(&format!("{command:?}"))))
            }
        }
    }
}

/// The longest text of a command in a line for people.
const SHORT_MAX: usize = 120;

fn short(text: &str) -> String {
    match text.char_indices().nth(SHORT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registers::How;
    use bulkhead_types::Kind;
    use uuid::Uuid;

    fn script() -> Script {
        let fault = |fault| What::Fault(fault);
        let whats = vec![
            fault(Fault::ServerCrash { member: MemberId(1), loss: Loss::Torn(3, 17), down_us: 5 }),
            fault(Fault::Swizzle { clogs: vec![(Host::Agent(3), 1, 2)] }),
            fault(Fault::Partition { cut: Cut::Split { side: vec![Host::Client(0)] }, for_us: 9 }),
            What::Operation { client: 2, submission: None },
            What::Register {
                client: 1,
                wish: Wish { object: 2, how: How::CompareAndSet, request_id: Uuid::from_u128(9) },
            },
            What::Watch {
                watcher: 0,
                wanted: Box::new(Wanted { kind: Some(Kind::Pod), ..Wanted::default() }),
            },
        ];
        let decisions =
            whats.into_iter().enumerate().map(|(n, what)| Decision { at_us: n as u64, what }).collect();
        let header = Header {
            version: VERSION,
            options: Options::draw(5),
            calm_at_us: 99,
            trace_hash: Some("ab".to_owned()),
        };
        Script { header, decisions }
    }

    #[test]
    fn files_are_read_as_they_were_written() {
        let text = script().to_text();
        assert_eq!(Script::from_text(&text).expect("sound"), script());
    }

    #[test]
    fn damaged_files_are_refused_with_their_line() {
        let mut lines: Vec<String> = script().to_text().lines().map(str::to_owned).collect();
        lines[3] = lines[3].replace("partition", "party");
        let text = lines.join("\n");
        let error = Script::from_text(&text).expect_err("damaged").to_string();
        assert!(error.starts_with("line 4:"), "{error}");
        assert!(Script::from_text("").is_err());
        let text = script().to_text().replace("\"version\":2", "\"version\":9");
        assert!(Script::from_text(&text).is_err());
    }
}
