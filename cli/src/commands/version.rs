//! `version`: of this program and of the servers.

use super::Context;
use super::member::status_of;
use crate::failure::Failure;
use crate::output::emit_line;

pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    emit_line(&format!("client {}", env!("CARGO_PKG_VERSION")))?;
    for (address, channel) in context.client.endpoints() {
        match status_of(context, channel.clone()).await {
            Ok(status) => emit_line(&format!("server {address} {}", status.version))?,
            Err(status) => emit_line(&format!("server {address} does not answer: {}", status.message()))?,
        }
    }
    Ok(())
}
