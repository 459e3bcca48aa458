//! Reconcilers and scheduler over a real machine, with agents that do as they are told.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod autoscalers;
mod budgets;
mod claims;
mod cron_autoscalers;
mod cron_jobs;
mod daemon_laws;
mod daemon_sets;
mod deliveries;
mod delivery_laws;
mod fencing;
mod job_kit;
mod job_laws;
mod jobs;
mod kit;
mod laws;
mod managers;
mod nodes;
mod profiles;
mod rollouts;
mod scheduling;
mod sets;
mod stateful_laws;
mod stateful_sets;
