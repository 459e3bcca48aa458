//! Refusals as gRPC statuses, with details that programs can read.

use std::time::Duration;

use bulkhead_proto::ConvertError;
use bulkhead_types::{MemberId, Rejection, RejectionCode};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of machine-readable reasons.
const DOMAIN: &str = "bulkhead.io";
/// How long a client should wait before it tries again, when nothing better is known.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(200);

/// A refusal as a status: code, text, the field, and a reason that programs can match.
pub(crate) fn rejection_status(rejection: &Rejection) -> Status {
    let (code, reason) = match rejection.code {
        RejectionCode::Invalid => (Code::InvalidArgument, "INVALID"),
        RejectionCode::NotFound => (Code::NotFound, "NOT_FOUND"),
        RejectionCode::AlreadyExists => (Code::AlreadyExists, "ALREADY_EXISTS"),
        RejectionCode::Conflict => (Code::Aborted, "CONFLICT"),
        RejectionCode::NotAllowed => (Code::FailedPrecondition, "NOT_ALLOWED"),
        RejectionCode::StaleIncarnation => (Code::FailedPrecondition, "STALE_INCARNATION"),
    };
    let mut details = ErrorDetails::new();
    details.set_error_info(
        reason,
        DOMAIN,
        [("field".to_owned(), rejection.field.clone()), ("remedy".to_owned(), rejection.remedy.clone())],
    );
    match rejection.code {
        RejectionCode::Invalid => {
            details.add_bad_request_violation(&rejection.field, &rejection.reason);
        }
        RejectionCode::NotAllowed | RejectionCode::StaleIncarnation | RejectionCode::Conflict => {
            details.add_precondition_failure_violation(reason, &rejection.field, &rejection.reason);
        }
        RejectionCode::NotFound | RejectionCode::AlreadyExists => {}
    }
    Status::with_error_details(code, rejection.to_string(), details)
}

/// A message that could not be read as a status.
pub(crate) fn convert_status(error: &ConvertError) -> Status {
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation(&error.path, &error.reason);
    Status::with_error_details(Code::InvalidArgument, error.to_string(), details)
}

/// One bad field as a status.
pub(crate) fn invalid(field: &str, reason: impl Into<String>) -> Status {
    convert_status(&ConvertError::new(reason).within(field))
}

/// Nobody can do it now; trying again with the same request id is safe.
pub(crate) fn unavailable(reason: impl Into<String>) -> Status {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(RETRY_AFTER));
    let text = format!("{}; try again with the same request id: it is never applied twice", reason.into());
    Status::with_error_details(Code::Unavailable, text, details)
}

/// Too much waits already, or there is no room.
pub(crate) fn exhausted(reason: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::ResourceExhausted, reason, details)
}

/// What to do about a full disk.
pub(crate) const DISK_FULL: &str = "disk full: writes are refused until there is room; \
    remedy: free space on the file system of the server's data directory, or enlarge it; service resumes by itself";

/// The disk takes no writes, and no server with room leads.
pub(crate) fn disk_full() -> Status {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(RETRY_AFTER));
    details.set_error_info("DISK_FULL", DOMAIN, std::collections::HashMap::<String, String>::new());
    Status::with_error_details(Code::ResourceExhausted, DISK_FULL, details)
}

/// The machine-readable reason of [`disowned`].
const SECOND_LIFE: &str = "SECOND_LIFE";

/// A member comes with another data directory than it had.
pub(crate) fn disowned(member: MemberId) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(SECOND_LIFE, DOMAIN, std::collections::HashMap::<String, String>::new());
    let text = format!(
        "member {member} is known by another data directory: what it voted for and acknowledged is lost; \
         remove it and add it under a new id"
    );
    Status::with_error_details(Code::FailedPrecondition, text, details)
}

/// Whether a peer said [`disowned`].
pub(crate) fn is_disowned(status: &Status) -> bool {
    status.get_details_error_info().is_some_and(|info| info.reason == SECOND_LIFE)
}

/// A watch from before what is kept.
pub(crate) fn compacted(oldest: u64) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("COMPACTED", DOMAIN, [("oldest_revision".to_owned(), oldest.to_string())]);
    let text = format!(
        "history before revision {oldest} is compacted; list again and watch from the list's revision"
    );
    Status::with_error_details(Code::OutOfRange, text, details)
}
