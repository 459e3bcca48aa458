//! What may be typed.

use std::time::Duration;

use bulkhead_types::Name;
use clap::{Args, Parser, Subcommand};

use crate::commands;
use crate::time::parse_duration;

/// Pods in guest VMs on a fleet of ordinary servers.
///
/// Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 not found; 4 no server answered, or what was waited
/// for did not come in time; 5 conflict with another change. `exec` ends with the code of the command that it ran.
#[derive(Debug, Parser)]
#[command(name = "bulkhead", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Verb,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Servers to ask, in turn
    #[arg(
        long,
        global = true,
        env = "BULKHEAD_SERVER",
        default_value = "127.0.0.1:7400",
        value_delimiter = ',',
        value_name = "HOST:PORT,...",
        help_heading = "Global options"
    )]
    pub(crate) server: Vec<String>,
    /// The namespace
    #[arg(
        long,
        short,
        global = true,
        env = "BULKHEAD_NAMESPACE",
        default_value = "default",
        value_parser = |text: &str| Name::new(text),
        help_heading = "Global options"
    )]
    pub(crate) namespace: Name,
    /// How long to try, such as 90s; commands that wait for something to happen wait for ever without it
    /// [default: 30s for an answer]
    #[arg(long, global = true, value_parser = parse_duration, value_name = "DURATION", help_heading = "Global options")]
    pub(crate) timeout: Option<Duration>,
    /// Who asks, as the log records it [default: user:$USER]
    #[arg(
        long = "as",
        global = true,
        env = "BULKHEAD_ACTOR",
        value_name = "ACTOR",
        help_heading = "Global options"
    )]
    pub(crate) actor: Option<String>,
    /// Show the trace's id and other details on standard error
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub(crate) verbose: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a server: one replica of the control plane
    Server(Box<commands::server::ServerArgs>),
    /// Run the agent of this machine: it starts the guest VMs
    Agent(Box<commands::agent::AgentArgs>),
    /// Run servers and agents on this machine as child processes, until Ctrl-C
    Dev(commands::dev::DevArgs),
    /// Create or change objects from manifests
    Apply(commands::apply::ApplyArgs),
    /// Show what an apply would change; exit code 1 when that is something, above when it cannot be told
    Diff(commands::diff::DiffArgs),
    /// Put whole objects in the place of what is there
    Replace(commands::replace::ReplaceArgs),
    /// Change part of an object
    Patch(commands::patch::PatchArgs),
    /// Change an object in an editor
    Edit(commands::edit::EditArgs),
    /// Change one concern of workloads: image, resources, env, strategy, scheduling
    #[command(subcommand)]
    Set(commands::set::SetVerb),
    /// Create a job from a CronJob
    #[command(subcommand)]
    Create(commands::create::CreateVerb),
    /// Show objects
    Get(commands::get::GetArgs),
    /// Show one object with everything around it
    Describe(commands::describe::DescribeArgs),
    /// Delete objects
    Delete(commands::delete::DeleteArgs),
    /// Wait until objects have a condition, or are gone
    Wait(commands::wait_for::WaitArgs),
    /// Print the output of a pod's container
    Logs(commands::logs::LogsArgs),
    /// Run a command in a pod's container; its exit code becomes this one's
    Exec(commands::exec::ExecArgs),
    /// Print what a pod's container prints from now on
    Attach(commands::attach::AttachArgs),
    /// Lead ports of this machine into a pod
    PortForward(commands::port_forward::PortForwardArgs),
    /// Copy files and folders into and out of a pod's container
    Cp(commands::cp::CpArgs),
    /// Set the wanted number of replicas
    Scale(commands::scale::ScaleArgs),
    /// Give a container of a running pod other amounts of cpu and memory, without a restart where that goes
    Resize(commands::resize::ResizeArgs),
    /// Let a workload's size follow what its pods use
    Autoscale(commands::autoscale::AutoscaleArgs),
    /// Stop all pods of Deployments; their number stays and cannot be scaled until they are started
    Stop(commands::life::LifeArgs),
    /// Let stopped Deployments run again
    Start(commands::life::LifeArgs),
    /// Replace all pods by new ones of the same template, as `rollout restart` does
    Redeploy(commands::life::LifeArgs),
    /// Hold back the pods of Jobs and the runs of CronJobs
    Suspend(commands::suspend::SuspendArgs),
    /// Let Jobs and CronJobs go on
    Resume(commands::suspend::SuspendArgs),
    /// Follow, undo, hold back and restart rollouts
    #[command(subcommand)]
    Rollout(commands::rollout::RolloutVerb),
    /// Show what pods and nodes use now
    #[command(subcommand)]
    Top(commands::top::TopVerb),
    /// Show what quotas allow, what is used and what is left, at every level
    Quota(commands::quota::QuotaArgs),
    /// Show what would happen: nodes drained, nodes added, files applied
    WhatIf(commands::what_if::WhatIfArgs),
    /// Show which pool of nodes to grow for what waits, and which nodes could go
    Advise(commands::advise::AdviseArgs),
    /// Show why something is as it is: the decisions about it, with their figures
    #[command(subcommand)]
    Explain(commands::explain::ExplainVerb),
    /// Show what happened, who asked, and when
    Events(commands::events::EventsArgs),
    /// Place nothing new on nodes
    Cordon(commands::cordon::CordonArgs),
    /// Let nodes have new pods again
    Uncordon(commands::cordon::CordonArgs),
    /// Show devices of nodes, and keep some from pods
    #[command(subcommand)]
    Device(commands::device::DeviceVerb),
    /// Say how nodes shall be used
    #[command(subcommand)]
    Node(commands::device::NodeVerb),
    /// Pause, resume and cancel operations on many nodes
    #[command(subcommand)]
    NodeOperation(commands::node_pool::NodeOperationVerb),
    /// Cordon a node and move its pods away
    Drain(commands::drain::DrainArgs),
    /// Set and remove labels
    Label(commands::label::LabelArgs),
    /// Set and remove annotations
    Annotate(commands::label::LabelArgs),
    /// Set and remove taints of nodes
    Taint(commands::taint::TaintArgs),
    /// Show and change which servers the cluster has
    #[command(subcommand)]
    Member(commands::member::MemberVerb),
    /// Show and change what is true of the cluster as a whole
    #[command(subcommand)]
    Cluster(commands::cluster::ClusterVerb),
    /// Save the whole cluster to a file, check such a file, make a new cluster from it
    #[command(subcommand)]
    Snapshot(commands::snapshot::SnapshotVerb),
    /// Last resort when a majority of the servers is lost for good: a new cluster of one from what one server has
    Recover(commands::recover::RecoverArgs),
    /// Put images onto this machine without a registry
    #[command(subcommand)]
    Image(commands::image::ImageVerb),
    /// Check whether this machine can run guests, and which devices it has for them
    Preflight(commands::preflight::PreflightArgs),
    /// Measure, beside etcd where there is something to compare with
    #[command(subcommand)]
    Bench(commands::bench::BenchVerb),
    /// Look inside
    #[command(subcommand)]
    Debug(commands::debug::DebugVerb),
    /// Print a completion script for a shell
    Completion(commands::completion::CompletionArgs),
    /// Show the client's and the servers' versions
    Version,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
