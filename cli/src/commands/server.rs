//! `server`: one replica of the control plane.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;

/// A member of the first configuration, `1=host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InitialMember {
    pub(crate) id: u64,
    pub(crate) address: String,
}

#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// This server's id: 1 or more, never used before in this cluster
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) id: u64,
    /// Where its log and state are kept
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Where it listens for clients, agents and other servers
    #[arg(long, default_value = "0.0.0.0:7400", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
    /// How others reach it [default: what it listens on]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    /// Start a new cluster of these members: 1=host:port,2=host:port,3=host:port. The same on all of them;
    /// ignored once there is data
    #[arg(long, value_delimiter = ',', value_parser = parse_member, value_name = "ID=HOST:PORT,...", conflicts_with = "join")]
    pub(crate) initial_cluster: Vec<InitialMember>,
    /// Join the cluster of these servers, which were told with `member add`
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,...")]
    pub(crate) join: Vec<String>,
    /// Where Prometheus metrics are served over HTTP; nowhere when not given
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Where traces are sent (OTLP over gRPC), such as http://127.0.0.1:4317
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
    /// One tick of the consensus clock
    #[arg(long, default_value_t = 100, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) tick_ms: u64,
    /// Ticks without a leader until an election; up to twice as many, at random
    #[arg(long, default_value_t = 10, value_name = "TICKS", value_parser = clap::value_parser!(u64).range(3..=1000))]
    pub(crate) election_ticks: u64,
    /// How long a node's lease runs
    #[arg(long, default_value_t = 10_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub(crate) lease_ms: u64,
    /// End when the process that started this one ends
    #[arg(long, hide = true)]
    pub(crate) end_with_parent: bool,
}

fn parse_member(text: &str) -> Result<InitialMember, String> {
    let expected = || format!("{text:?}: expected ID=HOST:PORT, such as 1=10.0.0.1:7400");
    let (id, address) = text.split_once('=').ok_or_else(expected)?;
    let id = id.parse().ok().filter(|id| *id > 0).ok_or_else(expected)?;
    let (host, port) = address.rsplit_once(':').ok_or_else(expected)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(expected());
    }
    Ok(InitialMember { id, address: address.to_owned() })
}

pub(crate) async fn run(args: ServerArgs) -> Result<(), Failure> {
    if args.end_with_parent {
        super::dev::end_with_parent()?;
    }
    Err(Failure::failed(format!("cannot start server {}: this build holds no server", args.id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_members_are_id_and_address() {
        let member = |id, address: &str| Ok(InitialMember { id, address: address.to_owned() });
        assert_eq!(parse_member("1=10.0.0.1:7400"), member(1, "10.0.0.1:7400"));
        assert_eq!(parse_member("2=[::1]:7400"), member(2, "[::1]:7400"));
        for bad in ["", "1", "0=a:1", "a=b:1", "1=b", "1=:5", "1=b:x"] {
            assert!(parse_member(bad).is_err(), "{bad}");
        }
    }
}
