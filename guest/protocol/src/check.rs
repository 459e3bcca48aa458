//! What is asked of containers while they run: probes, and the hooks around their lives.

use std::net::{IpAddr, Ipv4Addr};

use crate::message::{check_enum, check_length};
use crate::{DecodeError, NAME_LENGTH_MAX, TEXT_LENGTH_MAX};

/// What a check goes to that does not go to the pod's own address.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A question that is asked again and again.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProbeConfig {
    /// How.
    #[prost(message, optional, tag = "1")]
    pub check: Option<CheckConfig>,
    /// From the container's start to the first time, in milliseconds.
    #[prost(uint64, tag = "2")]
    pub initial_delay_ms: u64,
    /// From one time to the next, in milliseconds; not 0.
    #[prost(uint64, tag = "3")]
    pub period_ms: u64,
    /// How long an answer may take, in milliseconds; not 0.
    #[prost(uint64, tag = "4")]
    pub timeout_ms: u64,
    /// Successes in a row that make it succeed; not 0.
    #[prost(uint32, tag = "5")]
    pub success_threshold: u32,
    /// Failures in a row that make it fail; not 0.
    #[prost(uint32, tag = "6")]
    pub failure_threshold: u32,
    /// Grace when its failure ends the container, in milliseconds; absent means the pod's.
    #[prost(uint64, optional, tag = "7")]
    pub grace_ms: Option<u64>,
}

/// One thing to do with a container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckConfig {
    /// Which.
    #[prost(oneof = "Check", tags = "1, 2, 3, 4, 5, 6")]
    pub kind: Option<Check>,
    /// A question to the guest itself goes to the pod's own address ([`crate::host::PodConfig::own_address`]), where it has one;
    /// otherwise, and from hosts of earlier versions, to the loopback.
    #[prost(bool, tag = "88")]
    pub own_address: bool,
}

/// One thing to do with a container: what is a success.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Check {
    /// A command in the container that ends with 0.
    #[prost(message, tag = "1")]
    Exec(ExecCheck),
    /// A GET request to the guest itself that is answered with a status from 200 to 399.
    #[prost(message, tag = "2")]
    Http(HttpCheck),
    /// A connection to the guest itself that is accepted.
    #[prost(message, tag = "3")]
    Tcp(TcpCheck),
    /// gRPC's health service in the guest itself that says SERVING.
    #[prost(message, tag = "4")]
    Grpc(GrpcCheck),
    /// Time that passes.
    #[prost(message, tag = "5")]
    Sleep(SleepCheck),
    /// As [`Check::Http`], by TLS, which the host speaks for the guest; the certificate does not matter. Only where the guest's Hello says that
    /// it hands it over.
    #[prost(message, tag = "6")]
    Https(HttpCheck),
}

/// A command in the container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExecCheck {
    /// Its words; not empty.
    #[prost(string, repeated, tag = "1")]
    pub argv: Vec<String>,
}

/// A GET request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpCheck {
    /// The port.
    #[prost(uint32, tag = "1")]
    pub port: u32,
    /// Path and query, with `/` at its beginning.
    #[prost(string, tag = "2")]
    pub path: String,
    /// Further headers.
    #[prost(message, repeated, tag = "3")]
    pub headers: Vec<HttpHeader>,
}

/// A header of a request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpHeader {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A connection.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct TcpCheck {
    /// The port.
    #[prost(uint32, tag = "1")]
    pub port: u32,
}

/// A question to gRPC's health service.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GrpcCheck {
    /// The port.
    #[prost(uint32, tag = "1")]
    pub port: u32,
    /// Of which service; empty for the whole server.
    #[prost(string, tag = "2")]
    pub service: String,
}

/// Time that passes.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct SleepCheck {
    /// How much, in milliseconds.
    #[prost(uint64, tag = "1")]
    pub sleep_ms: u64,
}

/// Which of a container's probes and hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum HostTask {
    /// The startup probe.
    Startup = 0,
    /// The readiness probe.
    Readiness = 1,
    /// The liveness probe.
    Liveness = 2,
    /// The hook after the start.
    PostStart = 3,
    /// The hook before the end.
    PreStop = 4,
}

/// The guest asks its host to do a probe or hook that needs TLS: the guest's program has none. What is to be asked the host knows from
/// the configuration. One that is asked again before it is answered is begun anew.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AskHost {
    /// Comes back with the answer.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// Name of the container.
    #[prost(string, tag = "2")]
    pub container: String,
    /// Which.
    #[prost(enumeration = "HostTask", tag = "3")]
    pub task: i32,
}

/// What came of an AskHost.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HostAnswer {
    /// Of the AskHost.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// Why it is no success; empty when it is one.
    #[prost(string, tag = "2")]
    pub error: String,
}

impl AskHost {
    pub(crate) fn validate(&self) -> Result<(), DecodeError> {
        check_length("AskHost.container", &self.container, NAME_LENGTH_MAX)?;
        check_enum::<HostTask>("AskHost.task", self.task)
    }
}

impl HostAnswer {
    pub(crate) fn validate(&self) -> Result<(), DecodeError> {
        check_length("HostAnswer.error", &self.error, TEXT_LENGTH_MAX)
    }
}

impl ProbeConfig {
    /// Checks what the guest relies on.
    pub(crate) fn validate(&self) -> Result<(), DecodeError> {
        let numbers =
            [self.period_ms, self.timeout_ms, self.success_threshold.into(), self.failure_threshold.into()];
        if numbers.contains(&0) {
            let reason = "period, timeout or threshold is 0".into();
            return Err(DecodeError::Invalid { field: "ProbeConfig", reason });
        }
        let check = self.check.as_ref().and_then(|check| check.kind.as_ref());
        if matches!(check, Some(Check::Sleep(_))) {
            return Err(DecodeError::Invalid { field: "ProbeConfig.check", reason: "is a sleep".into() });
        }
        self.check.clone().unwrap_or_default().validate()
    }
}

impl CheckConfig {
    /// A check that goes to the loopback, if it goes to an address at all.
    #[must_use]
    pub const fn of(kind: Check) -> Self {
        Self { kind: Some(kind), own_address: false }
    }

    /// The address in the guest that it goes to, in a pod with this address of its own.
    #[must_use]
    pub fn asked(&self, own: Option<IpAddr>) -> IpAddr {
        own.filter(|_| self.own_address).unwrap_or(LOOPBACK)
    }

    /// Checks what the guest relies on.
    pub(crate) fn validate(&self) -> Result<(), DecodeError> {
        let invalid =
            |reason: &str| Err(DecodeError::Invalid { field: "CheckConfig", reason: reason.into() });
        let is_port = |port: u32| (1..=u32::from(u16::MAX)).contains(&port);
        match &self.kind {
            None => invalid("names nothing to do"),
            Some(Check::Exec(exec)) if exec.argv.first().is_none_or(String::is_empty) => {
                invalid("holds no command")
            }
            Some(Check::Exec(exec)) if exec.argv.iter().any(|word| word.contains('\0')) => {
                invalid("holds a NUL byte")
            }
            Some(
                Check::Http(HttpCheck { port, .. })
                | Check::Https(HttpCheck { port, .. })
                | Check::Tcp(TcpCheck { port })
                | Check::Grpc(GrpcCheck { port, .. }),
            ) if !is_port(*port) => invalid("has no port"),
            Some(Check::Http(http) | Check::Https(http)) => {
                check_length("HttpCheck.path", &http.path, TEXT_LENGTH_MAX)?;
                http.headers.iter().try_for_each(|header| {
                    check_length("HttpHeader.name", &header.name, TEXT_LENGTH_MAX)?;
                    check_length("HttpHeader.value", &header.value, TEXT_LENGTH_MAX)
                })
            }
            Some(Check::Grpc(grpc)) => check_length("GrpcCheck.service", &grpc.service, TEXT_LENGTH_MAX),
            Some(Check::Exec(_) | Check::Tcp(_) | Check::Sleep(_)) => Ok(()),
        }
    }
}
