//! Crate.

pub mod boot;
pub mod image;
