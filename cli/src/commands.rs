//! One file per command.

pub(crate) mod advise;
pub(crate) mod agent;
pub(crate) mod apply;
pub(crate) mod attach;
pub(crate) mod autoscale;
pub(crate) mod bench;
pub(crate) mod change;
pub(crate) mod cluster;
pub(crate) mod completion;
pub(crate) mod cordon;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod debug;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod dev;
pub(crate) mod device;
pub(crate) mod diff;
pub(crate) mod drain;
pub(crate) mod edit;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod explain;
pub(crate) mod get;
pub(crate) mod image;
pub(crate) mod label;
pub(crate) mod life;
pub(crate) mod logs;
pub(crate) mod member;
pub(crate) mod node_pool;
pub(crate) mod patch;
pub(crate) mod port_forward;
pub(crate) mod preflight;
pub(crate) mod quota;
pub(crate) mod recover;
pub(crate) mod replace;
pub(crate) mod resize;
pub(crate) mod rollout;
pub(crate) mod scale;
pub(crate) mod server;
pub(crate) mod set;
pub(crate) mod snapshot;
pub(crate) mod suspend;
pub(crate) mod taint;
pub(crate) mod top;
pub(crate) mod version;
mod wait;
pub(crate) mod wait_for;
pub(crate) mod what_if;

use std::time::Duration;

use bulkhead_types::{Command, Name};

use crate::args::{Cli, Global, Verb};
use crate::client::{Client, TIMEOUT_DEFAULT};
use crate::failure::Failure;
use crate::telemetry;

/// What every command that talks to servers needs.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) namespace: Name,
    /// As typed: how long to wait for something to happen; for ever when unset.
    pub(crate) timeout: Option<Duration>,
    verbose: bool,
}

impl Context {
    fn new(global: Global) -> Result<Self, Failure> {
        telemetry::init_client_logging();
        let actor = global.actor.unwrap_or_else(|| {
            format!("user:{}", std::env::var("USER").unwrap_or_else(|_| "anonymous".to_owned()))
        });
        let client = Client::new(&global.server, global.timeout.unwrap_or(TIMEOUT_DEFAULT), actor)?;
        Ok(Self { client, namespace: global.namespace, timeout: global.timeout, verbose: global.verbose })
    }

    /// Submits one command.
    pub(crate) async fn submit(&self, command: Command) -> Result<u64, Failure> {
        let revision = self.client.submit(vec![command], vec![]).await?;
        self.note_change(revision);
        Ok(revision)
    }

    /// With `-v`: where to find a change again.
    pub(crate) fn note_change(&self, revision: u64) {
        if self.verbose {
            eprintln!("revision {revision}, traceparent {}", self.client.trace());
        }
    }
}

/// Runs what was typed.
pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    let local = match cli.command {
        Verb::Server(args) => return server::run(*args).await,
        Verb::Agent(args) => return agent::run(*args, &cli.global.server).await,
        Verb::Dev(args) => return dev::run(args).await,
        Verb::Image(verb) => return image::run(verb).await,
        Verb::Preflight(args) => return preflight::run(&args),
        Verb::Completion(args) => return completion::run(&args),
        Verb::Recover(args) => return recover::run(args),
        Verb::Snapshot(verb) => match snapshot::run_offline(verb)? {
            None => return Ok(()),
            Some(file) => return snapshot::save(&file, &Context::new(cli.global)?).await,
        },
        verb => verb,
    };
    ask(local, Context::new(cli.global)?).await
}

/// Runs what asks servers.
async fn ask(verb: Verb, context: Context) -> Result<(), Failure> {
    match verb {
        Verb::Apply(args) => apply::run(args, &context).await,
        Verb::Get(args) => get::run(args, &context).await,
        Verb::Describe(args) => describe::run(args, &context).await,
        Verb::Delete(args) => delete::run(args, &context).await,
        Verb::Logs(args) => logs::run(args, &context).await,
        Verb::Exec(args) => exec::run(args, &context).await,
        Verb::Attach(args) => attach::run(args, &context).await,
        Verb::PortForward(args) => port_forward::run(args, &context).await,
        Verb::Cp(args) => cp::run(args, context).await,
        Verb::Scale(args) => scale::run(args, &context).await,
        Verb::Resize(args) => resize::run(args, &context).await,
        Verb::Autoscale(args) => autoscale::run(args, &context).await,
        Verb::Create(verb) => create::run(verb, &context).await,
        Verb::Suspend(args) => suspend::run(args, true, &context).await,
        Verb::Resume(args) => suspend::run(args, false, &context).await,
        Verb::Wait(args) => wait_for::run(args, &context).await,
        Verb::Rollout(verb) => rollout::run(verb, &context).await,
        Verb::Events(args) => events::run(args, &context).await,
        Verb::Explain(verb) => explain::run(verb, &context).await,
        Verb::Cordon(args) => cordon::run(args, true, &context).await,
        Verb::Uncordon(args) => cordon::run(args, false, &context).await,
        Verb::Drain(args) => drain::run(args, &context).await,
        Verb::Device(verb) => device::run(verb, &context).await,
        Verb::Node(verb) => device::run_node(verb, &context).await,
        Verb::NodeOperation(verb) => node_pool::run(verb, &context).await,
        Verb::Label(args) => label::run(args, label::Notes::Labels, &context).await,
        Verb::Annotate(args) => label::run(args, label::Notes::Annotations, &context).await,
        Verb::Patch(args) => patch::run(args, &context).await,
        Verb::Replace(args) => replace::run(args, &context).await,
        Verb::Edit(args) => edit::run(args, &context).await,
        Verb::Diff(args) => diff::run(args, &context).await,
        Verb::Set(verb) => set::run(verb, &context).await,
        Verb::Stop(args) => life::run(args, life::Step::Stop, &context).await,
        Verb::Start(args) => life::run(args, life::Step::Start, &context).await,
        Verb::Redeploy(args) => life::run(args, life::Step::Redeploy, &context).await,
        Verb::Taint(args) => taint::run(args, &context).await,
        Verb::Cluster(verb) => cluster::run(verb, &context).await,
        Verb::Member(verb) => member::run(verb, &context).await,
        Verb::Bench(verb) => bench::run(verb, &context).await,
        Verb::Debug(verb) => debug::run(verb, &context).await,
        Verb::Quota(args) => quota::run(args, &context).await,
        Verb::Advise(args) => advise::run(args, &context).await,
        Verb::WhatIf(args) => what_if::run(args, &context).await,
        Verb::Top(verb) => top::run(verb, &context).await,
        Verb::Version => version::run(&context).await,
        Verb::Server(_)
        | Verb::Agent(_)
        | Verb::Dev(_)
        | Verb::Image(_)
        | Verb::Preflight(_)
        | Verb::Completion(_)
        | Verb::Recover(_)
        | Verb::Snapshot(_) => unreachable!("handled above"),
    }
}
