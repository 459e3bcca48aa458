//! Ports of the node that lead into a pod: a listener each, and a stream into the guest for every connection.
//!
//! ```text
//!  client ─► hostIP:hostPort (this process) ─ forward ─► GuestStreams ─► guest ─► 127.0.0.1:containerPort
//! ```
//! They exist as long as their owner holds them. TCP only: the guest has no network card of its own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::podio::forward;
use crate::streams::GuestStreams;

/// Most connections through one port of the node at a time; further ones wait to be accepted.
pub const PORT_CONNECTIONS_MAX: usize = 32;

/// A port of the node, and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

impl HostPorts {
    /// Opens all of a pod's ports whose guest has these streams, or none of them.
    ///
    /// # Errors
    /// [`BindError`] of the first that is taken or not allowed.
    pub async fn open(streams: &GuestStreams, ports: &[HostPort]) -> Result<Self, BindError> {
        let mut bound = Vec::new();
        for port in ports {
            let failed = |source| BindError { port: *port, source };
            let listener = TcpListener::bind((port.host_ip, port.host_port)).await.map_err(failed)?;
            bound.push((listener.local_addr().map_err(failed)?, listener, port.container_port));
        }
        let addresses = bound.iter().map(|(address, ..)| *address).collect();
        let serve = |(address, listener, port)| {
            AbortOnDropHandle::new(tokio::spawn(serve(streams.clone(), address, listener, port)))
        };
        Ok(Self { addresses, _listeners: bound.into_iter().map(serve).collect() })
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
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
