//! What a node's machine needs for guests, one by one, as its agent finds it: there or not, and what to do.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Most preconditions that an agent tells of.
pub const PRECONDITIONS_MAX: usize = 32;
/// Longest text of one, in bytes.
pub const PRECONDITION_TEXT_BYTES_MAX: usize = 512;

/// Who needs something of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PreconditionNeed {
    /// Limits of guests that the host holds, too.
    Limits = 1,
    /// Shutting guests in.
    Confinement = 2,
    /// Guests that are as fast as they can be.
    Speed = 3,
    /// The attachment of devices.
    Devices = 4,
    /// The attachment of virtual functions.
    VirtualFunctions = 5,
    /// Cards of guests on the node's own network.
    Network = 6,
    /// Volumes where an operator wants them.
    Volumes = 7,
}

impl PreconditionNeed {
    /// Its name for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Limits => "limits",
            Self::Confinement => "confinement",
            Self::Speed => "speed",
            Self::Devices => "devices",
            Self::VirtualFunctions => "virtual functions",
            Self::Network => "network",
            Self::Volumes => "volumes",
        }
    }
}

/// Whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PreconditionOutcome {
    /// It is.
    Met = 1,
    /// It is not.
    Missing = 2,
    /// Nothing on this machine needs it.
    NotNeeded = 3,
    /// Only trying would tell, or whoever looked may not.
    Unknown = 4,
}

impl PreconditionOutcome {
    /// Its name for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Met => "ok",
            Self::Missing => "missing",
            Self::NotNeeded => "not needed",
            Self::Unknown => "unknown",
        }
    }

    /// Whether there is something to do about it.
    #[must_use]
    pub fn wants_remedy(self) -> bool {
        matches!(self, Self::Missing | Self::Unknown)
    }
}

/// One thing that a node's machine needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodePrecondition {
    /// Its name, such as `iommu`.
    pub name: SmolStr,
    /// Who needs it.
    pub need: PreconditionNeed,
    /// Whether it is there.
    pub outcome: PreconditionOutcome,
    /// What was found.
    pub found: SmolStr,
    /// What to do about it; empty when nothing is.
    pub remedy: SmolStr,
}

impl NodePrecondition {
    /// The same with texts as they may be told: no longer than [`PRECONDITION_TEXT_BYTES_MAX`], and without control characters.
    #[must_use]
    pub fn bounded(self) -> Self {
        let Self { name, need, outcome, found, remedy } = self;
        Self { name: bounded(&name), need, outcome, found: bounded(&found), remedy: bounded(&remedy) }
    }
}

fn bounded(text: &str) -> SmolStr {
    let cut = &text[..text.floor_char_boundary(PRECONDITION_TEXT_BYTES_MAX)];
    // A space is no longer than what it stands for.
    cut.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// What an agent tells of them, in the order in which they are best mended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodePreconditions {
    /// Each once; at most [`PRECONDITIONS_MAX`].
    pub preconditions: Vec<NodePrecondition>,
}

impl NodePreconditions {
    /// Checks what an agent says: how much it is, the lengths of its texts, and that each is there once.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        let all = &self.preconditions;
        if all.len() > PRECONDITIONS_MAX {
            return Err(format!("at most {PRECONDITIONS_MAX} preconditions are kept"));
        }
        let mut names: Vec<&SmolStr> = all.iter().map(|one| &one.name).collect();
        names.sort_unstable();
        if names.first().is_some_and(|name| name.is_empty()) || names.windows(2).any(|two| two[0] == two[1]) {
            return Err("a precondition has no name, or the name of another".to_owned());
        }
        let bad =
            |text: &SmolStr| text.len() > PRECONDITION_TEXT_BYTES_MAX || text.chars().any(char::is_control);
        if all.iter().any(|one| [&one.name, &one.found, &one.remedy].into_iter().any(bad)) {
            return Err(format!(
                "a precondition has a text above {PRECONDITION_TEXT_BYTES_MAX} bytes, or one with control characters"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, found: &str) -> NodePrecondition {
        NodePrecondition {
            name: name.into(),
            need: PreconditionNeed::Speed,
            outcome: PreconditionOutcome::Met,
            found: found.into(),
            remedy: SmolStr::default(),
        }
    }

    #[test]
    fn what_an_agent_tells_is_bounded() {
        let check = |preconditions: Vec<NodePrecondition>, expected: &str| {
            let told = NodePreconditions { preconditions }.check();
            assert!(told.as_ref().err().map_or("", String::as_str).contains(expected), "{told:?}");
            assert_eq!(told.is_ok(), expected.is_empty());
        };
        check(vec![one("kvm", "there"), one("iommu", "")], "");
        check(vec![one("kvm", "there"), one("kvm", "")], "name of another");
        check(vec![one("", "")], "no name");
        check(vec![one("kvm", "a\u{7}")], "control characters");
        check((0..33).map(|number| one(&number.to_string(), "")).collect(), "at most 32");
        let long = "ä".repeat(PRECONDITION_TEXT_BYTES_MAX);
        check(vec![one("kvm", &long)], "above 512 bytes");
        let cut = one("kvm", &format!("x\n{long}")).bounded();
        assert!(cut.found.starts_with("x ä") && cut.found.len() <= PRECONDITION_TEXT_BYTES_MAX, "{cut:?}");
        check(vec![cut], "");
    }
}
