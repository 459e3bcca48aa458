//! After the faults everything satisfiable runs, and nothing else does.

use bulkhead_controlplane_core::State;
use bulkhead_types::MemberId;

use super::{Verdict, Violation, ensure};

fn violation(text: String) -> Verdict {
    Err(Violation::new("convergence", text))
}

/// Every server runs, and all have applied the same log to the same State.
///
/// # Errors
/// With the first server that does not.
pub fn servers(positions: &[(MemberId, Option<(u64, u128)>)]) -> Verdict {
    let first = positions.first().and_then(|(_, position)| *position);
    for (member, position) in positions {
        match position {
            None => return violation(format!("server {member} does not run")),
            Some(_) if *position != first => {
                return violation(format!("server {member} is at {position:?}, the first at {first:?}"));
            }
            Some(_) => {}
        }
    }
    ensure(first.is_some(), "convergence", || "there is no server".to_owned())
}

/// The cluster exists, and nothing in it waits for anything.
///
/// # Errors
/// With the first thing that is not as it should be.
pub fn state(state: &State) -> Verdict {
    ensure(state.cluster_id().is_some(), "convergence", || "the cluster has no identity".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_lags_or_is_down_is_noticed() {
        let at = |member, index| (MemberId(member), Some((index, 7)));
        assert!(servers(&[at(1, 5), at(2, 5)]).is_ok());
        assert!(servers(&[at(1, 5), at(2, 6)]).is_err());
        assert!(servers(&[at(1, 5), (MemberId(2), None)]).is_err());
        assert!(servers(&[]).is_err());
    }
}
