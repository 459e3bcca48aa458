//! `dev`: servers and agents of this machine as child processes of one terminal.

mod child;
mod guests;
mod layout;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::agent::Accelerator;
use crate::client::{Client, cluster};
use crate::failure::Failure;
use crate::output::{emit, emit_line, table};
use crate::progress::Progress;
use bulkhead_proto::v1;
use child::Child;
pub(crate) use child::end_with_parent;
use layout::Layout;

/// How long the servers may take until one leads.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const READY_POLL: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// How many servers; fixed once there is data
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    servers: u16,
    /// How many agents
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=64))]
    agents: u16,
    /// Where everything is kept
    #[arg(long, default_value = "bulkhead-dev", value_name = "DIR")]
    data_dir: PathBuf,
    /// Where the guests' kernel package is installed or unpacked [default: /]
    #[arg(long, value_name = "DIR")]
    kernel_dir: Option<PathBuf>,
    /// The program that runs as the guests' init
    #[arg(long, value_name = "FILE")]
    guest: Option<PathBuf>,
    /// How guests are run
    #[arg(long, value_enum, default_value_t)]
    accel: Accelerator,
    /// The QEMU to use
    #[arg(long, value_name = "FILE")]
    qemu: Option<PathBuf>,
    /// Processor time that each agent offers, such as 2
    #[arg(long)]
    cpu: Option<String>,
    /// Memory that each agent offers, such as 2Gi
    #[arg(long)]
    memory: Option<String>,
    /// End guests too when everything ends; else they go on, and the next start adopts them
    #[arg(long)]
    end_guests: bool,
    /// Registries that are asked over plain HTTP
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,...")]
    insecure_registry: Vec<String>,
    /// Where traces are sent (OTLP over gRPC)
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
}

pub(crate) async fn run(args: DevArgs) -> Result<(), Failure> {
    let layout = Layout::open(&args.data_dir, args.servers, args.agents)?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut children = start(&args, &layout).await?;
    print_children(&children, &layout)?;
    let servers = layout.servers();
    let outcome = tokio::select! {
        outcome = live(&mut children, &servers) => outcome,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    eprintln!("ending all children");
    // Agents first: they report how their pods ended while there are servers to hear it.
    for child in children.iter_mut().rev() {
        child.end().await;
    }
    guests::settle(&layout.root, args.end_guests);
    outcome
}

/// Starts all children; when one cannot be started, the others end.
async fn start(args: &DevArgs, layout: &Layout) -> Result<Vec<Child>, Failure> {
    let mut commands = Vec::new();
    for server in &layout.state.servers {
        commands.push((
            format!("server-{}", server.id),
            server.address.clone(),
            layout.server_arguments(server, args),
        ));
    }
    for agent in &layout.state.agents {
        commands.push((agent.name.clone(), agent.address.clone(), layout.agent_arguments(agent, args)));
    }
    let mut children: Vec<Child> = Vec::new();
    for (name, address, arguments) in commands {
        match Child::start(name, address, &arguments, &args.data_dir) {
            Ok(child) => children.push(child),
            Err(error) => {
                for child in children.iter_mut().rev() {
                    child.end().await;
                }
                return Err(error.into());
            }
        }
    }
    Ok(children)
}

fn print_children(children: &[Child], layout: &Layout) -> Result<(), Failure> {
    let rows: Vec<Vec<String>> = children
        .iter()
        .map(|c| vec![c.name.clone(), c.address.clone(), c.pid().to_string(), c.log.display().to_string()])
        .collect();
    emit(&table::render(&["NAME", "ADDRESS", "PID", "LOG"], &rows))?;
    emit_line(&format!("export BULKHEAD_SERVER={}", layout.servers().join(",")))
}

/// Says when the cluster is ready, then reports children that end by themselves; returns when none is left.
async fn live(children: &mut [Child], servers: &[String]) -> Result<(), Failure> {
    let mut ready = std::pin::pin!(wait_ready(servers));
    let mut is_ready = false;
    let total = children.len();
    let mut ended = 0;
    loop {
        let exits = futures::future::select_all(children.iter_mut().map(|c| Box::pin(c.exited())));
        tokio::select! {
            outcome = &mut ready, if !is_ready => {
                outcome?;
                is_ready = true;
                emit_line("ready; Ctrl-C ends everything")?;
            }
            (message, _, _) = exits => {
                eprintln!("{message}");
                ended += 1;
                if ended == total {
                    return Err(Failure::failed("all children have ended"));
                }
            }
        }
    }
}

/// Waits until some server knows a leader.
async fn wait_ready(servers: &[String]) -> Result<(), Failure> {
    let client = Client::new(servers, READY_TIMEOUT, String::new())?;
    let progress = Progress::start("waiting for a leader");
    let found = async {
        loop {
            for (_, channel) in client.endpoints() {
                let status = cluster(channel.clone()).status(v1::StatusRequest {}).await;
                match status.map(tonic::Response::into_inner) {
                    Ok(status) if status.leader > 0 => return,
                    Ok(status) => progress.set(format!("waiting for a leader, term {}", status.term)),
                    Err(_) => {}
                }
            }
            tokio::time::sleep(READY_POLL).await;
        }
    };
    tokio::time::timeout(READY_TIMEOUT, found).await.map_err(|_| {
        Failure::failed(format!("no leader within {READY_TIMEOUT:?}: the logs of the servers say why"))
    })
}
