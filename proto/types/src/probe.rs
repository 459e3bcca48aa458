//! What is asked of containers while they run: probes, and the hooks around their lives.
//!
//! Source: "Probe v1 core", "Lifecycle v1 core" and "Pod Lifecycle" in the Kubernetes documentation.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{Container, PodSpec, Rare};

/// Time between two probes where nothing else is said, in milliseconds (Kubernetes' default).
pub const PROBE_PERIOD_MS_DEFAULT: u64 = 10_000;
/// Longest time of one probe where nothing else is said, in milliseconds (Kubernetes' default).
pub const PROBE_TIMEOUT_MS_DEFAULT: u64 = 1_000;
/// Successes in a row that count where nothing else is said (Kubernetes' default).
pub const PROBE_SUCCESS_THRESHOLD_DEFAULT: u32 = 1;
/// Failures in a row that count where nothing else is said (Kubernetes' default).
pub const PROBE_FAILURE_THRESHOLD_DEFAULT: u32 = 3;

/// What a probe or hook may name as its host, beside nothing: the loopback of the pod's guest.
pub const LOOPBACK_HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];

/// A port of the container that is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PortRef {
    /// 1 to 65535.
    Number(u16),
    /// The name of one of the container's ports.
    Name(SmolStr),
}

impl PortRef {
    /// The number, if the container has such a port.
    #[must_use]
    pub fn resolve(&self, container: &Container) -> Option<u16> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Name(name) => {
                let named = container.ports.iter().find(|port| port.name.as_ref() == Some(name));
                named.map(|port| port.container_port)
            }
        }
    }
}

/// A command in the container: 0 is success.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExecAction {
    /// Its words; no shell, nothing is replaced.
    pub command: Vec<String>,
}

/// A header of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HttpHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A GET request to the pod itself: a status from 200 to 399 is success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpGet {
    /// Path and query.
    pub path: String,
    /// Which port.
    pub port: PortRef,
    /// Further headers.
    pub headers: Vec<HttpHeader>,
    /// By TLS (`scheme: HTTPS`); whose certificate it is does not matter. Needs [`crate::HTTPS_PROBE_LEVEL`].
    #[serde(default)]
    pub https: bool,
    /// One of [`LOOPBACK_HOSTS`]; the pod's own address when unset. Needs [`crate::PROBE_HOST_LEVEL`].
    #[serde(default)]
    pub host: Rare<String>,
}

/// What was before there were HTTPS and hosts keeps its digest, so that no template is taken for changed.
impl Hash for HttpGet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.path, &self.port, &self.headers).hash(state);
        if self.https {
            Rare::some(true).hash(state);
        }
        self.host.hash(state);
    }
}

/// How a container is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProbeHandler {
    /// A command.
    Exec(ExecAction),
    /// A request.
    HttpGet(HttpGet),
    /// A connection: that it is accepted is success.
    TcpSocket {
        /// Which port.
        port: PortRef,
        /// As in [`HttpGet`].
        #[serde(default)]
        host: Rare<String>,
    },
    /// gRPC's health service: SERVING is success.
    Grpc {
        /// 1 to 65535.
        port: u16,
        /// Of which service; empty for the whole server.
        service: String,
    },
}

/// A question that is asked again and again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Probe {
    /// How.
    pub handler: ProbeHandler,
    /// From the container's start to the first time, in milliseconds.
    pub initial_delay_ms: u64,
    /// From one time to the next, in milliseconds.
    pub period_ms: u64,
    /// How long an answer may take, in milliseconds.
    pub timeout_ms: u64,
    /// Successes in a row that make it succeed; 1 but for readiness.
    pub success_threshold: u32,
    /// Failures in a row that make it fail.
    pub failure_threshold: u32,
    /// Grace when its failure ends the container, in milliseconds; the pod's when unset. Not for readiness.
    pub termination_grace_ms: Option<u64>,
}

/// What is done after a container's start, or before its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Hook {
    /// A command.
    Exec(ExecAction),
    /// A request.
    HttpGet(HttpGet),
    /// Nothing, for a while.
    Sleep {
        /// In milliseconds.
        sleep_ms: u64,
    },
}

/// The hooks around a container's life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lifecycle {
    /// After its start, before it counts as running; its failure ends the container.
    pub post_start: Option<Hook>,
    /// Before SIGTERM, within the grace.
    pub pre_stop: Option<Hook>,
}

impl Container {
    /// The requests of its probes and hooks.
    fn http_gets(&self) -> impl Iterator<Item = &HttpGet> {
        let hooks = [self.post_start(), self.pre_stop()].into_iter().flatten();
        let of_hooks = hooks.filter_map(|hook| if let Hook::HttpGet(get) = hook { Some(get) } else { None });
        let of_probes = self.probes().filter_map(|(_, probe)| match &probe.handler {
            ProbeHandler::HttpGet(get) => Some(get),
            _ => None,
        });
        of_probes.chain(of_hooks)
    }

    /// Whether a probe or hook asks by HTTPS.
    #[must_use]
    pub fn asks_by_https(&self) -> bool {
        self.http_gets().any(|get| get.https)
    }

    /// Whether a probe or hook names the host that it asks.
    #[must_use]
    pub fn names_hosts(&self) -> bool {
        let by_tcp = |probe: &Probe| matches!(&probe.handler, ProbeHandler::TcpSocket { host, .. } if host.get().is_some());
        self.http_gets().any(|get| get.host.get().is_some()) || self.probes().any(|(_, probe)| by_tcp(probe))
    }

    /// Holds back the other probes until it succeeds; its failure ends the container.
    #[must_use]
    pub fn startup_probe(&self) -> Option<&Probe> {
        self.options.get()?.startup_probe.get()
    }

    /// Whether the container serves.
    #[must_use]
    pub fn readiness_probe(&self) -> Option<&Probe> {
        self.options.get()?.readiness_probe.get()
    }

    /// Its failure ends the container.
    #[must_use]
    pub fn liveness_probe(&self) -> Option<&Probe> {
        self.options.get()?.liveness_probe.get()
    }

    /// Its hook after the start.
    #[must_use]
    pub fn post_start(&self) -> Option<&Hook> {
        self.options.get()?.lifecycle.get()?.post_start.as_ref()
    }

    /// Its hook before the end.
    #[must_use]
    pub fn pre_stop(&self) -> Option<&Hook> {
        self.options.get()?.lifecycle.get()?.pre_stop.as_ref()
    }

    /// Whether it is an init container that runs beside the others from its start on (`restartPolicy: Always`).
    #[must_use]
    pub fn is_sidecar(&self) -> bool {
        self.options.get().is_some_and(|options| options.sidecar)
    }

    /// Its probes with the names of their fields.
    pub fn probes(&self) -> impl Iterator<Item = (&'static str, &Probe)> {
        let options = self.options.get();
        let probe =
            |name, of: fn(&crate::ContainerOptions) -> &Rare<Probe>| Some((name, of(options?).get()?));
        [
            probe("startupProbe", |o| &o.startup_probe),
            probe("readinessProbe", |o| &o.readiness_probe),
            probe("livenessProbe", |o| &o.liveness_probe),
        ]
        .into_iter()
        .flatten()
    }
}

impl PodSpec {
    /// Init containers that run beside the others.
    pub fn sidecars(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().filter(|container| container.is_sidecar())
    }
}
