//! One request to the kernel, and its answer.

use std::os::fd::AsRawFd as _;

use bulkhead_nodeagent_core::vf_settings::VfLinkError;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

/// Room for an answer, in bytes: an attribute has at most 64 KiB, and the functions of a NIC are in one.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// How long the kernel may take, in seconds: a driver that asks its firmware takes some.
const ANSWER_WITHIN_S: i64 = 30;
/// `NLMSG_ERROR`, also an acknowledgement.
const NLMSG_ERROR: u16 = 2;

fn failed(errno: Errno) -> VfLinkError {
    VfLinkError { errno: errno as i32, message: errno.desc().to_owned() }
}

/// Sends a request; the answer, or nothing for what is only acknowledged.
///
/// # Errors
/// What the kernel says, or why it was not asked.
pub(super) fn request(request: &[u8]) -> Result<Vec<u8>, VfLinkError> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
            .map_err(failed)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_WITHIN_S, 0)).map_err(failed)?;
    sendto(socket.as_raw_fd(), request, &NetlinkAddr::new(0, 0), MsgFlags::empty()).map_err(failed)?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    let length = loop {
        match recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()) {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let message = format!("the kernel did not answer within {ANSWER_WITHIN_S} s");
                return Err(VfLinkError { errno: 0, message });
            }
            length => break length.map_err(failed)?,
        }
    };
    answer.truncate(length);
    take(answer)
}

/// The first message of an answer: there is one.
fn take(mut answer: Vec<u8>) -> Result<Vec<u8>, VfLinkError> {
    let cut = || VfLinkError { errno: 0, message: "the kernel's answer is cut off".to_owned() };
    let part = |at: usize| answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    let length = part(0).map(u32::from_ne_bytes).and_then(|length| usize::try_from(length).ok());
    let kind = part(4).map(|[a, b, _, _]| u16::from_ne_bytes([a, b]));
    let error = part(16).map(i32::from_ne_bytes);
    match (length, kind, error) {
        (Some(length), Some(_), _) if length > answer.len() => Err(cut()),
        (Some(_), Some(NLMSG_ERROR), Some(0)) => Ok(Vec::new()),
        (Some(_), Some(NLMSG_ERROR), Some(error)) => Err(failed(Errno::from_raw(error.saturating_neg()))),
        (Some(length), Some(_), Some(_)) => {
            answer.truncate(length);
            Ok(answer)
        }
        _ => Err(cut()),
    }
}
