//! Settings of the guest's kernel.

use crate::DecodeError;
use crate::TEXT_LENGTH_MAX;
use crate::message::check_length;
use crate::volume::is_plain;

/// One setting.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SysctlConfig {
    /// As whoever wrote the pod calls it, for messages.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The file below `/proc/sys`.
    #[prost(string, tag = "2")]
    pub path: String,
    /// What is written.
    #[prost(string, tag = "3")]
    pub value: String,
    /// Every container has one of its own, so it is set in each.
    #[prost(bool, tag = "4")]
    pub of_each_container: bool,
}

impl SysctlConfig {
    pub(crate) fn validate(&self) -> Result<(), DecodeError> {
        check_length("SysctlConfig.name", &self.name, TEXT_LENGTH_MAX)?;
        check_length("SysctlConfig.value", &self.value, TEXT_LENGTH_MAX)?;
        if !is_plain(&self.path) {
            return Err(DecodeError::Invalid {
                field: "SysctlConfig.path",
                reason: "is no plain path".into(),
            });
        }
        Ok(())
    }
}
