//! Channels to other servers.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often an idle connection is tried, so that a dead one is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// A channel to `host:port` that connects when it is first used, and again when it breaks.
pub(crate) fn connect(address: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    Ok(endpoint.connect_lazy())
}
