//! Ports of the node that lead into a pod: a listener each, and a stream into the guest for every connection.
//!
//! ```text
//!  client ─► hostIP:hostPort (this process) ─ forward ─► GuestStreams ─► guest ─► 127.0.0.1:containerPort
//! ```
//! They exist as long as their owner holds them. TCP only: the guest has no network card of its own.

use std::future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bulkhead_types::PodSpec;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::podio::forward;
use crate::streams::GuestStreams;

/// Most connections through one port of the node at a time; further ones wait to be accepted.
pub const PORT_CONNECTIONS_MAX: usize = 32;

/// A port of the node, and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    /// Where it listens; unspecified: everywhere.
    pub host_ip: IpAddr,
    /// The port of the node.
    pub host_port: u16,
    /// The port in the pod.
    pub container_port: u16,
}

/// One that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("host port {}:{}: {source}", port.host_ip, port.host_port)]
pub struct BindError {
    /// Which.
    pub port: HostPort,
    /// Why.
    pub source: io::Error,
}

/// The open ports of one pod.
#[derive(Debug)]
pub struct HostPorts {
    /// Where they listen.
    pub addresses: Vec<SocketAddr>,
    _listeners: Vec<AbortOnDropHandle<()>>,
}

/// Ports of the node that nobody else gets any more, and that do not lead anywhere yet: clients wait.
#[derive(Debug)]
pub struct BoundPorts(Vec<(SocketAddr, TcpListener, u16)>);

/// The ports of the node that a pod publishes, in the order of its containers.
#[must_use]
pub fn published(spec: &PodSpec) -> Vec<HostPort> {
    let containers = spec.init_containers.iter().chain(&spec.containers);
    let ports = containers.flat_map(|container| &container.ports);
    let published = ports.filter_map(|port| {
        let host = port.published()?;
        Some(HostPort { host_ip: host.ip, host_port: host.port, container_port: port.container_port })
    });
    published.collect()
}

/// Leads ports into a guest as long as it is awaited. Those of a guest that was found are bound here: until that can be, it is
/// tried again, and told.
pub(crate) async fn keep(streams: GuestStreams, ports: Vec<HostPort>, mut bound: Option<BoundPorts>) {
    if ports.is_empty() {
        return;
    }
    let mut is_told = false;
    while bound.is_none() {
        match BoundPorts::bind(&ports).await {
            Ok(ports) => bound = Some(ports),
            Err(error) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(%error, "a port of the node leads to no pod; it is tried again");
                }
                tokio::time::sleep(BIND_PAUSE).await;
            }
        }
    }
    let _open = bound.map(|bound| bound.serve(&streams));
    future::pending::<()>().await;
}

/// Between two tries to bind the ports of a guest that was found.
const BIND_PAUSE: Duration = Duration::from_secs(1);

impl BoundPorts {
    /// Binds all of them, or none.
    ///
    /// # Errors
    /// [`BindError`] of the first that is taken or not allowed.
    pub async fn bind(ports: &[HostPort]) -> Result<Self, BindError> {
        let mut bound = Vec::new();
        for port in ports {
            let failed = |source| BindError { port: *port, source };
            let listener = TcpListener::bind((port.host_ip, port.host_port)).await.map_err(failed)?;
            bound.push((listener.local_addr().map_err(failed)?, listener, port.container_port));
        }
        Ok(Self(bound))
    }

    /// Leads them into the guest that has these streams.
    #[must_use]
    pub fn serve(self, streams: &GuestStreams) -> HostPorts {
        let addresses = self.0.iter().map(|(address, ..)| *address).collect();
        let serve = |(address, listener, port)| {
            AbortOnDropHandle::new(tokio::spawn(serve(streams.clone(), address, listener, port)))
        };
        HostPorts { addresses, _listeners: self.0.into_iter().map(serve).collect() }
    }
}

/// Accepts for ever. What was accepted ends with it.
async fn serve(streams: GuestStreams, address: SocketAddr, listener: TcpListener, port: u16) {
    let room = Arc::new(Semaphore::new(PORT_CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
        let accepted = loop {
            tokio::select! {
                accepted = listener.accept() => break accepted,
                Some(_) = connections.join_next() => {}
            }
        };
        let (socket, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%address, %error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let streams = streams.clone();
        connections.spawn(async move {
            let _permit = permit;
            let _ = socket.set_nodelay(true);
            if let Err(status) = forward(&streams, port, socket).await {
                tracing::debug!(%address, %client, port, error = status.message(), "a connection to a host port failed");
            }
        });
    }
}

/// After an error that concerns this process rather than a client: there are no descriptors left, for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
