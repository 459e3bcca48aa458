//! `port-forward`: ports of this machine that lead into a pod.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bulkhead_proto::v1;
use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use super::Context;
use super::logs::find_pod;
use crate::client::pod_io;
use crate::failure::Failure;
use crate::output::emit_line;

/// Most connections at a time; further ones wait to be accepted. A pod has about twice as many.
const CONNECTIONS_MAX: usize = 32;
/// Bytes of one message.
const PIECE_LENGTH: usize = 16 << 10;
/// Messages that wait to be sent.
const REQUESTS_MAX: usize = 4;

#[derive(Debug, Args)]
pub(crate) struct PortForwardArgs {
    /// POD, pod/POD, or deployment/NAME, statefulset/NAME, daemonset/NAME, job/NAME for one of its pods
    #[arg(value_name = "POD")]
    pod: String,
    /// Ports: 8080:80 leads from 8080 here to 80 there, 80 from 80 to 80, :80 from any free one
    #[arg(value_name = "[LOCAL:]REMOTE", required = true, value_parser = parse_ports)]
    ports: Vec<Ports>,
    /// Where to listen
    #[arg(long, value_delimiter = ',', default_value = "localhost", value_parser = parse_address)]
    address: Vec<Vec<IpAddr>>,
}

/// One port here, and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ports {
    local: u16,
    remote: u16,
}

fn parse_ports(text: &str) -> Result<Ports, String> {
    let number = |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} is no port"));
    let (local, remote) = match text.split_once(':') {
        Some(("", remote)) => (0, number(remote)?),
        Some((local, remote)) => (number(local)?, number(remote)?),
        None => (number(text)?, number(text)?),
    };
    if remote == 0 { Err("port 0 is no port of a pod".to_owned()) } else { Ok(Ports { local, remote }) }
}

/// `localhost` is both of its addresses, as kubectl has it.
fn parse_address(text: &str) -> Result<Vec<IpAddr>, String> {
    match text {
        "localhost" => Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]),
        _ => text
            .parse()
            .map(|ip| vec![ip])
            .map_err(|_| format!("{text:?} is neither localhost nor an IP address")),
    }
}

/// Listens until it is interrupted.
pub(crate) async fn run(args: PortForwardArgs, context: &Context) -> Result<(), Failure> {
    let pod = find_pod(&args.pod, context).await?.meta.name.to_string();
    let mut listeners = Vec::new();
    for ports in &args.ports {
        for (listener, address) in bind(*ports, &args.address.concat()).await? {
            emit_line(&format!("Forwarding from {address} -> {}", ports.remote))?;
            listeners.push((listener, ports.remote));
        }
    }
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (accepted, mut connections) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    for (listener, remote) in listeners {
        tasks.spawn(accept(listener, remote, Arc::clone(&room), accepted.clone()));
    }
    drop(accepted);
    let mut serving = futures::stream::FuturesUnordered::new();
    loop {
        tokio::select! {
            Some((socket, client, remote, permit)) = connections.recv() => {
                let (pod, context) = (pod.as_str(), &context);
                serving.push(async move {
                    let _permit = permit;
                    if let Err(failure) = serve(socket, pod, remote, context).await {
                        eprintln!("connection of {client} to port {remote}: {}", failure.message);
                    }
                });
            }
            Some(()) = futures::StreamExt::next(&mut serving), if !serving.is_empty() => {}
            Some(ended) = tasks.join_next() => {
                let message = ended.map_or_else(|error| error.to_string(), |error| error.to_string());
                return Err(Failure::failed(format!("no more connections can be accepted: {message}")));
            }
        }
    }
}

/// Listens on every address that there is on this machine; at least one must be.
async fn bind(ports: Ports, addresses: &[IpAddr]) -> Result<Vec<(TcpListener, SocketAddr)>, Failure> {
    let (mut bound, mut port, mut failure) = (Vec::new(), ports.local, None);
    for ip in addresses {
        match TcpListener::bind((*ip, port)).await.and_then(|l| Ok((l.local_addr()?, l))) {
            Ok((address, listener)) => {
                // A free port is the same on all of them.
                port = address.port();
                bound.push((listener, address));
            }
            Err(error) => failure = Some(format!("cannot listen on {ip} port {port}: {error}")),
        }
    }
    match failure {
        Some(why) if bound.is_empty() => Err(Failure::failed(why)),
        _ => Ok(bound),
    }
}

type Accepted = (TcpStream, SocketAddr, u16, tokio::sync::OwnedSemaphorePermit);

/// Accepts until that fails.
async fn accept(
    listener: TcpListener,
    remote: u16,
    room: Arc<Semaphore>,
    accepted: mpsc::Sender<Accepted>,
) -> std::io::Error {
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
        match listener.accept().await {
            Ok((socket, client)) => {
                let _ = socket.set_nodelay(true);
                if accepted.send((socket, client, remote, permit)).await.is_err() {
                    return std::io::Error::other("the command ends");
                }
            }
            Err(error) => return error,
        }
    }
}

/// One connection, both directions, each of which ends by itself.
async fn serve(socket: TcpStream, pod: &str, remote: u16, context: &Context) -> Result<(), Failure> {
    use v1::port_forward_response::Message as Answer;
    let start = v1::PortForwardStart {
        namespace: context.namespace.to_string(),
        pod: pod.to_owned(),
        port: remote.into(),
    };
    let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
    let message = Some(v1::port_forward_request::Message::Start(start));
    requests.try_send(v1::PortForwardRequest { message }).expect("there is room in a new queue");
    let request = context.client.request(ReceiverStream::new(receiver));
    let mut responses = context
        .client
        .call_once(|channel| async move { pod_io(channel).port_forward(request).await })
        .await?;
    let (mut reader, mut writer) = socket.into_split();
    let input = async move {
        let mut buffer = vec![0; PIECE_LENGTH];
        loop {
            match reader.read(&mut buffer).await {
                // The end of the requests is the end of this direction.
                Ok(0) => break,
                Ok(length) => {
                    let data = buffer[..length].to_vec().into();
                    let message = Some(v1::port_forward_request::Message::Data(data));
                    if requests.send(v1::PortForwardRequest { message }).await.is_err() {
                        break;
                    }
                }
                // The local end is gone.
                Err(_) => return,
            }
        }
        drop(requests);
        std::future::pending::<()>().await;
    };
    let output = async move {
        while let Some(response) = responses.message().await? {
            let written = match response.message {
                Some(Answer::Data(data)) => writer.write_all(&data).await,
                Some(Answer::End(_)) => writer.shutdown().await,
                None => Ok(()),
            };
            if written.is_err() {
                break;
            }
        }
        Ok(())
    };
    tokio::select! {
        () = input => Ok(()),
        result = output => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_kubectl_reads_them() {
        let check = |text: &str, expected: Option<(u16, u16)>| {
            let found = parse_ports(text).ok().map(|ports| (ports.local, ports.remote));
            assert_eq!(found, expected, "{text}");
        };
        check("80", Some((80, 80)));
        check("8080:80", Some((8080, 80)));
        check(":80", Some((0, 80)));
        check("0:80", Some((0, 80)));
        for wrong in ["", ":", "80:", "0", "65536", "web", "1:2:3", "-1"] {
            check(wrong, None);
        }
    }
}
