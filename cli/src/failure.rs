//! Why a command did not do what it was asked, and the exit code that says so.

use std::fmt::Write as _;
use std::process::ExitCode;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// What kind of failure; the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Nobody reads the output any more: nothing to complain about.
    Quiet = 0,
    /// Refused, or failed on this machine.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// No server answered, or what was waited for did not come in time.
    Unavailable = 4,
    /// Somebody else changed it, or the name is taken.
    Conflict = 5,
}

/// A failure in words.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) class: Class,
    pub(crate) message: String,
    /// The server's machine-readable reason, such as `NOT_ALLOWED`; empty when it gave none.
    pub(crate) reason: String,
    /// The exit code of a command that ran elsewhere, in the place of the class's.
    code: Option<u8>,
}

impl Failure {
    pub(crate) fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), reason: String::new(), code: None }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Class::Failed, message)
    }

    /// For what the exit code alone says.
    pub(crate) fn silent(class: Class) -> Self {
        Self::new(class, "")
    }

    /// A command that ran elsewhere ended with this code.
    pub(crate) fn exited(code: i32) -> Self {
        let message = format!("command terminated with exit code {code}");
        // Codes have eight bits; one that has none is a failure all the same.
        Self { code: Some(u8::try_from(code & 0xff).unwrap_or(1).max(1)), ..Self::failed(message) }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Class::Usage, message)
    }

    pub(crate) fn report(&self) {
        if self.class != Class::Quiet && !self.message.is_empty() {
            eprintln!("error: {}", self.message);
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code.unwrap_or(self.class as u8))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(format!("{error:#}"))
    }
}

impl From<bulkhead_proto::ConvertError> for Failure {
    fn from(error: bulkhead_proto::ConvertError) -> Self {
        Self::failed(format!(
            "the server's answer cannot be read: {error}; is this client older than the server?"
        ))
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let class = match status.code() {
            Code::NotFound => Class::NotFound,
            Code::Unavailable | Code::DeadlineExceeded => Class::Unavailable,
            Code::Aborted | Code::AlreadyExists => Class::Conflict,
            _ => Class::Failed,
        };
        let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        Self { reason, ..Self::new(class, describe(&status)) }
    }
}

/// The status's message, and below it what its google.rpc details add.
pub(crate) fn describe(status: &Status) -> String {
    let mut text = match status.message() {
        "" => format!("{:?}", status.code()),
        message => message.to_owned(),
    };
    let details = status.get_error_details();
    let mut line = |subject: &str, reason: &str| {
        let joint = if subject.is_empty() { "" } else { ": " };
        // What the message says already is not repeated.
        if !reason.is_empty() && !text.contains(reason) {
            let _ = write!(text, "\n  {subject}{joint}{reason}");
        }
    };
    for violation in details.bad_request().iter().flat_map(|d| &d.field_violations) {
        line(&violation.field, &violation.description);
    }
    for violation in details.precondition_failure().iter().flat_map(|d| &d.violations) {
        line(&violation.subject, &violation.description);
    }
    for violation in details.quota_failure().iter().flat_map(|d| &d.violations) {
        line(&violation.subject, &violation.description);
    }
    if let Some(remedy) = details.error_info().and_then(|info| info.metadata.get("remedy")) {
        line("", remedy);
    }
    for link in details.help().iter().flat_map(|d| &d.links) {
        line(&link.description, &link.url);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn details_are_shown_below_the_message() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("spec.replicas", "must be at most 1000000");
        details.add_precondition_failure_violation("REVISION", "Deployment default/web", "is at revision 9");
        details.set_error_info("INVALID", "bulkhead.io", [("remedy".to_owned(), "read it again".to_owned())]);
        let status = Status::with_error_details(Code::Aborted, "refused", details);
        let failure = Failure::from(status);
        assert_eq!(failure.class, Class::Conflict);
        assert_eq!(
            failure.message,
            "refused\n  spec.replicas: must be at most 1000000\n  Deployment default/web: is at revision 9\n  read it again"
        );
    }

    #[test]
    fn exit_codes_tell_failures_apart() {
        let check = |code, class| assert_eq!(Failure::from(Status::new(code, "x")).class, class, "{code:?}");
        check(Code::NotFound, Class::NotFound);
        check(Code::Unavailable, Class::Unavailable);
        check(Code::DeadlineExceeded, Class::Unavailable);
        check(Code::Aborted, Class::Conflict);
        check(Code::AlreadyExists, Class::Conflict);
        check(Code::InvalidArgument, Class::Failed);
        check(Code::FailedPrecondition, Class::Failed);
    }
}
