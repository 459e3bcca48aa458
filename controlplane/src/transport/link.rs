//! One direction of one pair of members: a stream of messages that is made anew when it breaks.

use std::io::ErrorKind;
use std::time::Duration;

use bulkhead_controlplane_core::server::Input;
use bulkhead_proto::v1;
use bulkhead_types::MemberId;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use v1::peers_client::PeersClient;

use super::{Addresses, Identity, connect};
use crate::error::is_disowned;
use crate::handle::Handle;

/// How long to wait before a broken link is tried again, when the peer is not known to be down.
const RETRY: Duration = Duration::from_millis(100);
/// How long to wait after the peer refused this member.
const RETRY_REFUSED: Duration = Duration::from_secs(2);
/// When a peer is asked whether it still listens, each time since the last: the connections of a process that ends may
/// be closed some time before the socket on which it listens.
const PROBES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(5),
    Duration::from_millis(15),
    Duration::from_millis(30),
    Duration::from_millis(50),
];
/// How long the answer to such an attempt is waited for.
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);
/// Most messages between the queue and the socket.
const STREAM_MAX: usize = 64;

/// What every link needs.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) identity: Identity,
    pub(crate) addresses: Addresses,
    pub(crate) handle: Handle,
}

/// Keeps the link to one member up until the queue's sender is gone.
pub(super) async fn run(context: Context, to: MemberId, mut queue: mpsc::Receiver<v1::PeerFrame>) {
    // The first message is the reason why the link is made; it is not lost while the link is.
    while let Some(first) = queue.recv().await {
        let pause = match stream(&context, to, first, &mut queue).await {
            Ok(()) => RETRY,
            Err(status) if is_disowned(&status) => {
                tracing::error!(member = %to, error = status.message(), "the peer knows another life of this member");
                // When the node thread has ended there is nobody to stop.
                let _ = context.handle.tell(Input::Disowned).await;
                return;
            }
            Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                tracing::warn!(member = %to, error = status.message(), "the peer refuses this member");
                RETRY_REFUSED
            }
            Err(status) => {
                tracing::debug!(member = %to, error = status.message(), "the link broke");
                RETRY
            }
        };
        if context.handle.tell(Input::PeerUnreachable { member: to }).await.is_err() {
            return;
        }
        // The other followers of a dead leader find out in the same time: none of them waits for a message to send.
        if goes_down(&context, to).await && context.handle.tell(Input::PeerDown { member: to }).await.is_err()
        {
            return;
        }
        tokio::time::sleep(pause).await;
        // What piled up meanwhile is stale: raft sends what still matters.
        while queue.try_recv().is_ok() {}
    }
}

/// Whether a peer's process has ended, or does so now.
async fn goes_down(context: &Context, to: MemberId) -> bool {
    for pause in PROBES {
        tokio::time::sleep(pause).await;
        if is_down(context, to).await {
            return true;
        }
    }
    false
}

/// Whether a peer's machine says that nobody listens there: its process has ended. A machine that does not
/// answer says nothing.
async fn is_down(context: &Context, to: MemberId) -> bool {
    let Some(address) = context.addresses.of(to) else { return false };
    let connected = tokio::time::timeout(PROBE_TIMEOUT, TcpStream::connect(address.as_str())).await;
    matches!(connected, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused)
}

/// Sends from the queue until the stream breaks.
async fn stream(
    context: &Context,
    to: MemberId,
    first: v1::PeerFrame,
    queue: &mut mpsc::Receiver<v1::PeerFrame>,
) -> Result<(), tonic::Status> {
    let Some(address) = context.addresses.of(to) else {
        return Err(tonic::Status::unavailable("its address is not known"));
    };
    let channel = connect(&address).map_err(|e| tonic::Status::unavailable(e.to_string()))?;
    let (sender, receiver) = mpsc::channel(STREAM_MAX);
    let hello = v1::PeerFrame { frame: Some(v1::peer_frame::Frame::Hello(context.identity.hello(to))) };
    let full = |_| tonic::Status::unavailable("the stream ended");
    sender.send(hello).await.map_err(full)?;
    sender.send(first).await.map_err(full)?;
    let mut acks = PeersClient::new(channel).raft(ReceiverStream::new(receiver)).await?.into_inner();
    loop {
        tokio::select! {
            frame = queue.recv() => match frame {
                Some(frame) => sender.send(frame).await.map_err(full)?,
                None => return Ok(()),
            },
            // The peer answers the hello and then ends the stream only to refuse, or when it goes away.
            ack = acks.message() => if ack?.is_none() {
                return Ok(());
            },
        }
        if context.addresses.of(to).is_some_and(|now| now != address) {
            return Ok(());
        }
    }
}
