//! `create job`: a CronJob's job, now.

use bulkhead_types::{Command, Kind, Name};
use clap::Subcommand;

use super::Context;
use crate::failure::Failure;
use crate::output::emit_line;
use crate::target;

#[derive(Debug, Subcommand)]
pub(crate) enum CreateVerb {
    /// Run the job of a CronJob now, whatever its schedule says
    Job {
        /// The new job's name
        #[arg(value_parser = |text: &str| Name::new(text))]
        name: Name,
        /// Whose job: cronjob/NAME
        #[arg(long, value_name = "cronjob/NAME")]
        from: String,
    },
}

pub(crate) async fn run(verb: CreateVerb, context: &Context) -> Result<(), Failure> {
    let CreateVerb::Job { name, from } = verb;
    let cron_job = target::parse_one(&[from], &context.namespace, Kind::CronJob)?;
    if cron_job.kind != Kind::CronJob {
        return Err(Failure::usage(format!("{cron_job} has no template of a job: only CronJobs have")));
    }
    context.submit(Command::RunCronJob { cron_job, name: name.clone() }).await?;
    emit_line(&format!("job.batch/{name} created"))
}
