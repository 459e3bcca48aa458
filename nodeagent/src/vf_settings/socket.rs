//! One request to the kernel, and its answer.

use bulkhead_nodeagent_core::vf_settings::VfLinkError;

use crate::network::netlink::{Failure, Socket};

/// Room for an answer, in bytes: an attribute has at most 64 KiB, and the functions of a NIC are in one.
const ANSWER_BYTES_MAX: usize = 256 << 10;

fn failed(error: &std::io::Error) -> VfLinkError {
    VfLinkError { errno: error.raw_os_error().unwrap_or_default(), message: error.to_string() }
}

/// Sends a request; the first message of the answer, or nothing for what is only acknowledged.
///
/// # Errors
/// What the kernel says, or why it was not asked.
pub(super) fn request(request: &[u8]) -> Result<Vec<u8>, VfLinkError> {
    let mut socket = Socket::open(ANSWER_BYTES_MAX).map_err(|error| failed(&error))?;
    let mut answer = Vec::new();
    let asked = socket.ask(request, |message| {
        if answer.is_empty() {
            answer = message.to_vec();
        }
    });
    match asked {
        Ok(_) => Ok(answer),
        Err(Failure::Refused(errno)) => {
            Err(VfLinkError { errno: errno as i32, message: errno.desc().to_owned() })
        }
        Err(Failure::Unsent(error) | Failure::Lost(error)) => Err(failed(&error)),
    }
}
