//! A guest that began as a copy of another one becomes one of its own: its kernel's generator of randomness is keyed anew, and its
//! clock is set.
//!
//! The two have had the same memory, so all randomness that either drew before this may be known to the other: nothing of a pod
//! happens before it. What was drawn before and stays is the kernel's place in memory and what keeps its stacks
//! (`ARCHITECTURE.md` says what follows from that).

use std::fs::OpenOptions;

use anyhow::{Context as _, Result, bail, ensure};
use bulkhead_guest_protocol::host::Reseed;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use crate::sys;

const RANDOM: &str = "/dev/random";

/// Does what the host asks for; only while there is no pod.
pub(crate) fn reseed(reseed: &Reseed, has_pod: bool) -> Result<()> {
    if has_pod {
        bail!("the pod runs already");
    }
    let random = OpenOptions::new().write(true).open(RANDOM).with_context(|| format!("open {RANDOM}"))?;
    sys::add_entropy(&random, &reseed.entropy).context("add to the kernel's randomness")?;
    sys::key_randomness_anew(&random).context("key the kernel's randomness anew")?;
    clock_settime(ClockId::CLOCK_REALTIME, time_of(reseed.unix_ms)?).context("set the clock")
}

fn time_of(unix_ms: u64) -> Result<TimeSpec> {
    ensure!(unix_ms > 0, "the host does not tell the time");
    let (seconds, millis) = (i64::try_from(unix_ms / 1000)?, i64::try_from(unix_ms % 1000)?);
    Ok(TimeSpec::new(seconds, millis * 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_guest_without_a_pod_is_made_another_one() {
        let order = Reseed { entropy: vec![0; 32], unix_ms: 1 };
        let refused = reseed(&order, true).expect_err("it would break what containers rely on");
        assert_eq!(refused.to_string(), "the pod runs already");
    }

    #[test]
    fn times_are_whole_and_none_is_refused() {
        let time = time_of(1_700_000_000_123).expect("a time");
        assert_eq!((time.tv_sec(), time.tv_nsec()), (1_700_000_000, 123_000_000));
        assert!(time_of(0).is_err());
        assert!(time_of(u64::MAX).is_ok(), "the kernel refuses what it cannot show");
    }
}
