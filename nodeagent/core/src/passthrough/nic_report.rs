//! How far the work on a NIC is, and what is told of it.

use std::collections::BTreeMap;

use bulkhead_types::{DEVICE_TEXT_BYTES_MAX, ObjectId};
use smol_str::SmolStr;

use crate::hardware::Bdf;

/// How far a NIC is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is what it shall be.
    Settled,
    /// The machine takes its time: look again soon.
    Waiting,
    /// It waits for who has functions of it; what it can be without those it is.
    Blocked {
        /// Pods of this node.
        pods: Vec<ObjectId>,
        /// Functions that somebody else on the host uses, each with who does, for people.
        foreign: BTreeMap<Bdf, String>,
    },
    /// A step failed, and the NIC is as it was before, as far as that was possible.
    Failed {
        /// Which step.
        step: &'static str,
        /// Why.
        reason: String,
    },
}

/// The step of a NIC that waits for who has functions of it; the control plane calls such a NIC blocked.
const DRAINING: &str = "Draining";

/// What is reported of a NIC: the step, and why it failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NicReport {
    /// What is done now, or was done last when that failed; empty for nothing.
    pub step: SmolStr,
    /// Why it failed, or who else on the host has functions for which it waits; empty for neither.
    pub sync_error: SmolStr,
}

impl From<&Progress> for NicReport {
    fn from(progress: &Progress) -> Self {
        let report = |step, why: &str| Self { step: SmolStr::new_static(step), sync_error: cut(why) };
        match progress {
            Progress::Settled => Self::default(),
            Progress::Waiting => report("WaitForFunctions", ""),
            Progress::Blocked { foreign, .. } => report(DRAINING, &users_text(foreign)),
            Progress::Failed { step, reason } => report(step, &format!("{step}: {reason}")),
        }
    }
}

/// The first function that somebody uses, by whom, and how many more there are; empty for none.
fn users_text(foreign: &BTreeMap<Bdf, String>) -> String {
    let Some((address, owner)) = foreign.first_key_value() else { return String::new() };
    let more = match foreign.len() - 1 {
        0 => String::new(),
        1 => ", and 1 more".to_owned(),
        more => format!(", and {more} more"),
    };
    format!("{address}: {owner}{more}")
}

fn cut(text: &str) -> SmolStr {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = end.take_while(|end| *end <= DEVICE_TEXT_BYTES_MAX).last();
    SmolStr::new(&text[..end.unwrap_or_default()])
}
