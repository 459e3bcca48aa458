//! Messages to frames and back.

use crate::guest::GuestFrame;
use crate::host::HostFrame;
use crate::{DecodeError, FrameError, GuestMessage, HostMessage, append_frame};
use prost::Message as _;

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::HostMessage {}
    impl Sealed for crate::GuestMessage {}
}

/// A message of one of the two directions.
pub trait Wire: Sized + sealed::Sealed {
    /// The payload of a frame.
    fn to_payload(&self) -> Vec<u8>;

    /// Reads and checks a payload.
    ///
    /// # Errors
    /// [`DecodeError`] when it is malformed, unknown or out of bounds.
    fn from_payload(payload: &[u8]) -> Result<Self, DecodeError>;
}

impl Wire for HostMessage {
    fn to_payload(&self) -> Vec<u8> {
        HostFrame { message: Some(self.clone()) }.encode_to_vec()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, DecodeError> {
        let message = HostFrame::decode(payload)?.message.ok_or(DecodeError::Unknown)?;
        message.validate()?;
        Ok(message)
    }
}

impl Wire for GuestMessage {
    fn to_payload(&self) -> Vec<u8> {
        GuestFrame { message: Some(self.clone()) }.encode_to_vec()
    }

    fn from_payload(payload: &[u8]) -> Result<Self, DecodeError> {
        let message = GuestFrame::decode(payload)?.message.ok_or(DecodeError::Unknown)?;
        message.validate()?;
        Ok(message)
    }
}

/// Appends the message as one frame to `out`.
///
/// # Errors
/// [`FrameError::TooLong`] if the message does not fit in a frame; nothing is appended then.
pub fn encode<M: Wire>(message: &M, out: &mut Vec<u8>) -> Result<(), FrameError> {
    append_frame(&message.to_payload(), out)
}

/// Reads a message from the payload of a frame and checks every bound.
///
/// # Errors
/// [`DecodeError`] when it is malformed, unknown or out of bounds.
pub fn decode<M: Wire>(payload: &[u8]) -> Result<M, DecodeError> {
    M::from_payload(payload)
}

/// Refuses `value` if it is longer than `limit` bytes.
pub(crate) fn check_length(
    field: &'static str,
    value: impl AsRef<[u8]>,
    limit: usize,
) -> Result<(), DecodeError> {
    let length = value.as_ref().len();
    if length > limit {
        return Err(DecodeError::Invalid { field, reason: format!("{length} bytes, the limit is {limit}") });
    }
    Ok(())
}

/// Refuses a number that is none of an enumeration's values.
pub(crate) fn check_enum<E: TryFrom<i32>>(field: &'static str, value: i32) -> Result<(), DecodeError> {
    match E::try_from(value) {
        Ok(_) => Ok(()),
        Err(_) => Err(DecodeError::Invalid { field, reason: format!("unknown value {value}") }),
    }
}
