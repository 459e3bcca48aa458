//! Reconcilers and scheduler over a real machine, with agents that do as they are told.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod fencing;
mod kit;
mod laws;
mod nodes;
mod rollouts;
mod scheduling;
