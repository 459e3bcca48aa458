//! `agent`: runs the guest VMs of this machine.

use std::net::SocketAddr;
use std::path::PathBuf;

use bulkhead_types::{Name, parse_millis, parse_units};
use clap::{Args, ValueEnum};

use crate::failure::Failure;

/// How guests are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accelerator {
    /// KVM when a guest really runs with it, else TCG.
    #[default]
    Auto,
    /// Emulation.
    Tcg,
    /// The processor's virtualisation.
    Kvm,
}

#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// The node's name
    #[arg(long, value_parser = |text: &str| Name::new(text))]
    pub(crate) name: Name,
    /// Where images, disks and the state of guests are kept
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Where the agent's own services listen
    #[arg(long, default_value = "0.0.0.0:7500", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
    /// The guests' kernel [default: the newest below the data directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// The kernel's modules
    #[arg(long, value_name = "DIR", conflicts_with = "kernel_dir")]
    pub(crate) modules_dir: Option<PathBuf>,
    /// An unpacked kernel package, with boot/ and lib/modules/
    #[arg(long, value_name = "DIR", conflicts_with = "kernel")]
    pub(crate) kernel_dir: Option<PathBuf>,
    /// The program that runs as the guests' init
    #[arg(long, value_name = "FILE")]
    pub(crate) guest: Option<PathBuf>,
    /// How guests are run
    #[arg(long, value_enum, default_value_t)]
    pub(crate) accel: Accelerator,
    /// The QEMU to use
    #[arg(long, default_value = "qemu-system-x86_64", value_name = "FILE")]
    pub(crate) qemu: PathBuf,
    /// Processor time that pods may reserve, such as 8 or 1500m [default: what the machine has, less a reserve]
    #[arg(long, value_parser = |text: &str| parse_millis(text))]
    pub(crate) cpu: Option<u64>,
    /// Memory that pods may reserve, such as 16Gi [default: what the machine has, less a reserve]
    #[arg(long, value_parser = |text: &str| parse_units(text))]
    pub(crate) memory: Option<u64>,
    /// Where traces are sent (OTLP over gRPC), such as http://127.0.0.1:4317
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
    /// Registries that are asked over plain HTTP
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,...")]
    pub(crate) insecure_registry: Vec<String>,
    /// End when the process that started this one ends
    #[arg(long, hide = true)]
    pub(crate) end_with_parent: bool,
}

pub(crate) async fn run(args: AgentArgs, servers: &[String]) -> Result<(), Failure> {
    if args.end_with_parent {
        super::dev::end_with_parent()?;
    }
    Err(Failure::failed(format!(
        "cannot start agent {} of {}: this build holds no agent",
        args.name,
        servers.join(", ")
    )))
}
