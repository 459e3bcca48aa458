//! Waits with a bound and a name, for what cannot be awaited as an event (a process, a file, a command's answer).

use std::thread;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks until `look` finds something.
///
/// # Panics
/// After `seconds` without, with `what` and what `otherwise` says.
pub fn until_or<T>(
    what: &str,
    seconds: u64,
    mut look: impl FnMut() -> Option<T>,
    otherwise: impl FnOnce() -> String,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = look() {
            return found;
        }
        if Instant::now() >= deadline {
            panic!("{what} did not come within {seconds} s{}", otherwise());
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// As [`until_or`], with nothing more to say.
///
/// # Panics
/// After `seconds` without.
pub fn until<T>(what: &str, seconds: u64, look: impl FnMut() -> Option<T>) -> T {
    until_or(what, seconds, look, String::new)
}

/// Looks until `look` is true.
///
/// # Panics
/// After `seconds` without.
pub fn until_true(what: &str, seconds: u64, mut look: impl FnMut() -> bool) {
    until(what, seconds, || look().then_some(()));
}
