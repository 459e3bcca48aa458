//! A server that is started on a full disk: it answers everybody with that, and goes on once there is room.

use bulkhead_controlplane_disk::DiskError;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

use crate::bootstrap::{Booted, boot};
use crate::config::ServerOptions;
use crate::error::disk_full;
use crate::persist::SPACE_POLL;
use crate::run::{DRAIN_TIMEOUT, RunError};

/// Opens the data directory as [`boot`] does. While its disk is full, every call is refused with the reason and the
/// remedy, and the disk is asked again now and then.
pub(crate) async fn boot_with_room(options: &ServerOptions) -> Result<Booted, RunError> {
    let first = match boot(options).await {
        Err(error) if is_full(&error) => error,
        booted => return booted,
    };
    tracing::error!(error = %first, "the disk is full: this server refuses everything until there is room");
    let listen = |source| RunError::Listen { address: options.listen, source };
    let listener = TcpListener::bind(options.listen).await.map_err(listen)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let routes =
        Routes::from(axum::Router::new().fallback(|| async { disk_full().into_http::<axum::body::Body>() }));
    let refusing = tonic::transport::Server::builder().add_routes(routes).serve_with_incoming_shutdown(
        TcpIncoming::from(listener),
        async {
            // The sender's end is the signal, too.
            let _ = stopped.await;
        },
    );
    let mut refusing = tokio::spawn(refusing);
    let booted = loop {
        sleep(SPACE_POLL).await;
        match boot(options).await {
            Err(error) if is_full(&error) => {}
            booted => break booted,
        }
    };
    // Clients connect anew, and find the server that serves.
    drop(stop);
    if timeout(DRAIN_TIMEOUT, &mut refusing).await.is_err() {
        refusing.abort();
    }
    if booted.is_ok() {
        tracing::info!("the disk has room again");
    }
    booted
}

fn is_full(error: &RunError) -> bool {
    match error {
        RunError::Storage(error) | RunError::Disk(DiskError::Storage(error)) => error.is_full(),
        _ => false,
    }
}
