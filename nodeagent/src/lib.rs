//! Crate.

pub mod boot;
