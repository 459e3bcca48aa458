//! The guests' network on one node, as values: which addresses there are and who gets which, what links are called, what the
//! packet filter is told, and which name servers guests ask.
//!
//! ```text
//!  guest ── virtio-net ── tap ──┐                      ┌─ other guests of the node
//!                               ├─ bridge (gateway) ───┤
//!  guest ── virtio-net ── tap ──┘                      └─ routed and masqueraded: everybody else
//! ```
//!
//! Nothing here looks at the host: `nodeagent/src/network` does what these say.

mod batch;
mod forwarding;
mod names;
mod range;
mod rates;
mod resolver;
mod rules;

pub use batch::{BATCH_MAX, Touched, together};
pub use forwarding::{IP_FORWARD, switch_forwarding_on};
pub use names::{LinkNames, mac_of};
pub use range::{Ipv4Network, NetworkError, PodRange};
pub use rates::{BURST_BYTES, UNLIMITED_BYTES_PER_SECOND};
pub use resolver::{PodResolver, Resolver};
pub use rules::{Ruleset, TapAddress};
