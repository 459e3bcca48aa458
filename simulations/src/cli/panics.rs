//! A panic in a core is a finding like any other: it is told with its seed.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use simulations::{Report, RunConfig, run};

/// Where a run panicked, and with which words.
#[derive(Clone, Debug)]
pub(crate) struct Panic {
    pub(crate) place: String,
    pub(crate) text: String,
}

thread_local! {
    static LAST: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Lets panics be remembered instead of printed.
pub(crate) fn remember() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, ToString::to_string);
        LAST.with(|last| *last.borrow_mut() = Some(Panic { place, text: info.to_string() }));
    }));
}

/// Runs a cluster; a panic in it comes back as an error.
pub(crate) fn guarded(config: &RunConfig) -> Result<Report, Panic> {
    catch_unwind(AssertUnwindSafe(|| run(config))).map_err(|_| {
        let unknown = Panic { place: String::new(), text: "without a word".to_owned() };
        LAST.with(|last| last.borrow_mut().take()).unwrap_or(unknown)
    })
}
