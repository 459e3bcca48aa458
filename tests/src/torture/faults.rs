//! What goes wrong, drawn from the seed.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::disk::Disk;
use super::fleet::Fleet;
use super::rng::Rng;

/// A kind of fault. Those up to [`Trickle`](Self::Trickle) last until everything is healed; the others run to their
/// end at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// SIGKILL of the leader.
    KillLeader,
    /// SIGKILL of any server.
    Kill,
    /// SIGKILL of all servers at once.
    KillAll,
    /// SIGSTOP of a server, SIGCONT later.
    Pause,
    /// A server's link is down: no peers, no clients.
    LinkDown,
    /// A server and its peers do not reach each other; clients reach all.
    Partition,
    /// What one server sends to another vanishes, the other way works.
    OneWay,
    /// A server's disk is full.
    FullDisk,
    /// A server's disk hangs.
    StalledDisk,
    /// A server's disk hangs again and again.
    SlowDisk,
    /// What a server sends goes through at 256 kbit/s.
    Trickle,
    /// SIGTERM and a new start of one server after the other.
    RollingRestart,
    /// One server after the other to the other build: from the previous one to this one, or back.
    RollingUpgrade,
    /// One server to the other build, so that the next faults meet a mixed cluster.
    Upgrade,
    /// A server and its disk are lost, and a new member takes the place.
    ReplaceMember,
    /// A byte of a server's database changes while it is down; it is replaced then.
    Corrupt,
    /// Power fails on one host, or on all of them: nothing survives there but what was synced.
    PowerLoss,
    /// Another server is made the leader.
    TransferLeader,
    /// Every server writes a snapshot now.
    Snapshot,
    /// Agents' clocks jump.
    ClockJump,
    /// SIGKILL of an agent.
    KillAgent,
}

impl Fault {
    const ALL: [Self; 21] = [
        Self::KillLeader,
        Self::Kill,
        Self::KillAll,
        Self::Pause,
        Self::LinkDown,
        Self::Partition,
        Self::OneWay,
        Self::FullDisk,
        Self::StalledDisk,
        Self::SlowDisk,
        Self::Trickle,
        Self::RollingRestart,
        Self::RollingUpgrade,
        Self::Upgrade,
        Self::ReplaceMember,
        Self::Corrupt,
        Self::PowerLoss,
        Self::TransferLeader,
        Self::Snapshot,
        Self::ClockJump,
        Self::KillAgent,
    ];

    /// What this machine can do.
    pub(crate) fn available(fleet: &Fleet) -> Vec<Self> {
        let works = |fault: &Self| match fault {
            Self::LinkDown | Self::Partition | Self::OneWay | Self::Trickle => fleet.network.is_isolated(),
            Self::FullDisk | Self::StalledDisk | Self::SlowDisk | Self::PowerLoss => {
                fleet.disks.iter().all(Disk::is_mounted)
            }
            _ => true,
        };
        Self::ALL.into_iter().filter(works).collect()
    }

    /// Whether it lasts until it is healed, so that another one may come on top.
    fn lasts(self) -> bool {
        self <= Self::Trickle
    }
}

/// Shortest and longest life of a fault, and of the quiet after it, in milliseconds.
const FAULT_MS: (u64, u64) = (500, 3500);
const QUIET_MS: (u64, u64) = (300, 1800);
/// Longest time that a killed agent is down, in milliseconds.
const AGENT_DOWN_MS_MAX: u64 = 2000;
/// A slow disk: how long it hangs, and how long it works.
const STALL: Duration = Duration::from_millis(250);
const WORK: Duration = Duration::from_millis(60);

/// Draws faults: first each kind once in a random order, then any.
pub(crate) struct Nemesis {
    rng: Rng,
    kinds: Vec<Fault>,
    coming: Vec<Fault>,
    pub(crate) counts: BTreeMap<Fault, u64>,
}

impl Nemesis {
    pub(crate) fn new(mut rng: Rng, fleet: &Fleet) -> Self {
        let kinds = Fault::available(fleet);
        let mut coming = kinds.clone();
        rng.shuffle(&mut coming);
        Self { rng, kinds, coming, counts: BTreeMap::new() }
    }

    pub(crate) fn kinds(&self) -> &[Fault] {
        &self.kinds
    }

    fn draw(&mut self) -> Fault {
        self.coming.pop().unwrap_or_else(|| self.rng.pick(&self.kinds))
    }

    /// One fault, or two at once, and their end. Says what was done.
    pub(crate) fn strike(&mut self, fleet: &mut Fleet) -> Result<String, String> {
        let first = self.draw();
        let mut done = self.begin(first, fleet)?;
        if first.lasts() {
            if self.rng.below(3) == 0 {
                let lasting: Vec<Fault> = self.kinds.iter().copied().filter(|kind| kind.lasts()).collect();
                let second = self.rng.pick(&lasting);
                done = format!("{done}; {}", self.begin(second, fleet)?);
            }
            std::thread::sleep(self.rng.millis(FAULT_MS.0, FAULT_MS.1));
        }
        fleet.heal();
        Ok(done)
    }

    /// Lets the cluster work.
    pub(crate) fn rest(&mut self) {
        std::thread::sleep(self.rng.millis(QUIET_MS.0, QUIET_MS.1));
    }

    fn begin(&mut self, fault: Fault, fleet: &mut Fleet) -> Result<String, String> {
        *self.counts.entry(fault).or_default() += 1;
        let host = self.rng.pick(&fleet.hosts());
        let others: Vec<usize> = fleet.hosts().into_iter().filter(|other| *other != host).collect();
        let other = self.rng.pick(&others);
        let mut on = format!("host {host}");
        match fault {
            Fault::Kill => fleet.signal(host, Signal::SIGKILL),
            Fault::KillLeader => {
                let leader = fleet.leader().unwrap_or(host);
                on = format!("host {leader}");
                fleet.signal(leader, Signal::SIGKILL);
            }
            Fault::KillAll => {
                on = "all".to_owned();
                fleet.hosts().into_iter().for_each(|host| fleet.signal(host, Signal::SIGKILL));
            }
            Fault::Pause => fleet.signal(host, Signal::SIGSTOP),
            Fault::LinkDown => fleet.network.set_link(host, false)?,
            Fault::Partition => {
                let both =
                    |other| fleet.network.cut(host, other).and_then(|()| fleet.network.cut(other, host));
                others.into_iter().try_for_each(both)?;
            }
            Fault::OneWay => {
                on = format!("host {host} to {other}");
                fleet.network.cut(host, other)?;
            }
            Fault::Trickle => fleet.network.squeeze(host)?,
            Fault::FullDisk => fleet.fill_disk(host)?,
            Fault::StalledDisk => fleet.disks[host - 1].freeze()?,
            Fault::SlowDisk => self.slow_disk(&fleet.disks[host - 1])?,
            Fault::RollingRestart => {
                on = "all".to_owned();
                rolling_restart(fleet, false)?;
            }
            Fault::RollingUpgrade => {
                on = "all".to_owned();
                rolling_restart(fleet, true)?;
            }
            Fault::Upgrade => restart(fleet, host, true)?,
            Fault::PowerLoss => {
                let hosts = if self.rng.below(2) == 0 { vec![host] } else { fleet.hosts() };
                on = format!("hosts {hosts:?}");
                fleet.lose_power(&hosts)?;
            }
            Fault::ReplaceMember => fleet.replace(host)?,
            Fault::Corrupt => {
                let noticed = fleet.corrupt(host, |bytes| self.rng.below(bytes))?;
                on = format!("host {host}, {noticed}");
            }
            Fault::TransferLeader => {
                // It may be refused: nobody leads for a moment, or everybody is behind.
                let _ = fleet.cli().run(&["--timeout", "3s", "member", "transfer"]);
            }
            Fault::Snapshot => {
                on = "all".to_owned();
                fleet.snapshot_all();
            }
            Fault::ClockJump => {
                on = "the agents".to_owned();
                self.jump_clocks(fleet)?;
            }
            Fault::KillAgent => {
                let agent = self.rng.pick(&fleet.agents());
                let kept = fleet.kill_agent(agent, self.rng.millis(0, AGENT_DOWN_MS_MAX))?;
                on = format!("agent {agent}, {kept} guests go on");
            }
        }
        Ok(format!("{fault:?} ({on})"))
    }

    fn slow_disk(&mut self, disk: &Disk) -> Result<(), String> {
        for _ in 0..5 + self.rng.below(10) {
            disk.freeze()?;
            std::thread::sleep(STALL);
            disk.thaw();
            std::thread::sleep(WORK);
        }
        Ok(())
    }

    /// Up to two days forward since boot, up to ten days of the calendar either way.
    fn jump_clocks(&mut self, fleet: &Fleet) -> Result<(), String> {
        for agent in fleet.agents() {
            let hours = self.rng.next() % 48;
            let days = i64::try_from(self.rng.next() % (10 * 86_400_000)).expect("small");
            let unix_ms = if self.rng.below(2) == 0 { days } else { -days };
            fleet.jump_clock(agent, hours * 3_600_000, unix_ms)?;
        }
        Ok(())
    }
}

/// One server after the other ends in order and starts again, of the same build or of the other one.
fn rolling_restart(fleet: &mut Fleet, changes_build: bool) -> Result<(), String> {
    fleet.hosts().into_iter().try_for_each(|host| restart(fleet, host, changes_build))
}

fn restart(fleet: &mut Fleet, host: usize, changes_build: bool) -> Result<(), String> {
    if changes_build {
        fleet.change_build(host);
    }
    fleet.restart(host, Signal::SIGTERM);
    fleet.await_caught_up(host)
}
