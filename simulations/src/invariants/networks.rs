//! No address has two holders among the guests that really live, on whatever nodes.
//!
//! Judged from guests alone. That the log gives none twice, and that none is lost when pods end, is in the State's own check,
//! which counts the addresses of pods afresh.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bulkhead_types::ObjectId;

use super::{Verdict, ensure};

/// Checks what all living guests have.
///
/// # Errors
/// With an address that two pods have.
pub fn held(held: &[(ObjectId, IpAddr)]) -> Verdict {
    let mut holders = BTreeMap::new();
    for (pod, address) in held {
        let former = *holders.entry(address).or_insert(pod);
        ensure(former == pod, "networks", || {
            format!("pods {former} and {pod} live and both have address {address}")
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_two_holders_are_noticed() {
        let one = |pod, address: &str| (ObjectId(pod), address.parse().expect("an address"));
        assert!(held(&[one(1, "10.0.0.1"), one(2, "10.0.0.2"), one(1, "10.0.0.3")]).is_ok());
        assert!(held(&[one(1, "10.0.0.1"), one(2, "10.0.0.1")]).is_err());
    }
}
