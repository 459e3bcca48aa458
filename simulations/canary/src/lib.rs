//! Planted bugs: the one way in which they are written and switched on.
//!
//! ```text
//!   core:        if planted!("canary_vote_not_persisted") { hard_state.vote = 0 }
//!                           │ false, and gone, unless the crate has the feature of that name
//!   simulations: feature canary_x ──► the core's canary_x ──► bulkhead-canary/armed
//!                feature canaries ──► all of them, and switchable: switch_on(name) chooses one per thread
//!   products:    bulkhead_canary::unarmed!();   does not compile when any is in
//! ```
//!
//! Entry points: [`planted!`], [`switch_on`]. The table of all canaries is `simulations::canaries`.
//!
//! It never decides anything in a build without features: [`planted!`] is the constant `false` there.

/// Whether a planted bug is in this build and switched on. The name is that of a feature of the calling crate.
#[macro_export]
macro_rules! planted {
    ($feature:tt) => {
        cfg!(feature = $feature) && $crate::is_on($feature)
    };
}

/// Whether a planted bug is in this build.
pub const ARMED: bool = cfg!(feature = "armed");

/// For products: does not compile when a planted bug is in the build.
#[macro_export]
macro_rules! unarmed {
    () => {
        const _: () = assert!(
            !$crate::ARMED,
            "a feature canary_* is on: planted bugs are for the simulator only, build without it"
        );
    };
}

#[cfg(feature = "switchable")]
mod switch {
    use std::cell::Cell;

    thread_local! {
        static ON: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    /// Switches one planted bug on for this thread, or all of them off.
    pub fn switch_on(name: Option<&'static str>) {
        ON.set(name);
    }

    #[doc(hidden)]
    #[must_use]
    pub fn is_on(name: &str) -> bool {
        ON.get() == Some(name)
    }
}

#[cfg(not(feature = "switchable"))]
mod switch {
    /// Does nothing in this build: whatever is compiled in is on.
    pub fn switch_on(_: Option<&'static str>) {}

    #[doc(hidden)]
    #[must_use]
    pub const fn is_on(_: &str) -> bool {
        true
    }
}

#[doc(hidden)]
pub use switch::is_on;
pub use switch::switch_on;

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_is_planted_without_its_feature() {
        let planted = planted!("armed") && cfg!(not(feature = "switchable"));
        assert_eq!(planted, super::ARMED && cfg!(not(feature = "switchable")));
    }
}
