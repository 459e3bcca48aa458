//! What a pod may tell its containers about itself: the downward API.
//!
//! Source: "Downward API" in the Kubernetes documentation.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// A field of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PodField {
    /// `metadata.name`.
    Name,
    /// `metadata.namespace`.
    Namespace,
    /// `metadata.uid`.
    Uid,
    /// `spec.nodeName`.
    NodeName,
    /// `status.podIP`. In variables only. Needs [`crate::POD_NETWORK_LEVEL`].
    PodIp,
    /// `status.podIPs`, with commas. In variables only.
    PodIps,
    /// `status.hostIP`. In variables only.
    HostIp,
    /// `status.hostIPs`, with commas. In variables only.
    HostIps,
    /// `metadata.labels['key']`; empty when there is none.
    Label(SmolStr),
    /// `metadata.annotations['key']`; empty when there is none.
    Annotation(SmolStr),
    /// `metadata.labels`: all, a line each. In files only.
    Labels,
    /// `metadata.annotations`: all, a line each. In files only.
    Annotations,
}

/// A field path that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PodFieldError(String);

impl PodField {
    /// Reads a `fieldPath`.
    ///
    /// # Errors
    /// When it names nothing that a pod tells; the text says what is possible.
    pub fn parse(path: &str) -> Result<Self, PodFieldError> {
        let within = |map: &str| path.strip_prefix(map)?.strip_prefix("['")?.strip_suffix("']");
        if let Some(key) = within("metadata.labels") {
            return Ok(Self::Label(key.into()));
        }
        if let Some(key) = within("metadata.annotations") {
            return Ok(Self::Annotation(key.into()));
        }
        Ok(match path {
            "metadata.name" => Self::Name,
            "metadata.namespace" => Self::Namespace,
            "metadata.uid" => Self::Uid,
            "metadata.labels" => Self::Labels,
            "metadata.annotations" => Self::Annotations,
            "spec.nodeName" => Self::NodeName,
            "status.podIP" => Self::PodIp,
            "status.podIPs" => Self::PodIps,
            "status.hostIP" => Self::HostIp,
            "status.hostIPs" => Self::HostIps,
            other => {
                let other: String = other.chars().take(80).collect();
                return Err(PodFieldError(format!(
                    "{other:?} is no field that a pod tells: use metadata.name, metadata.namespace, metadata.uid, \
                     metadata.labels['KEY'], metadata.annotations['KEY'], spec.nodeName, status.podIP or status.hostIP"
                )));
            }
        })
    }

    /// Whether it is an address, which only the pod's node knows: in variables, as in Kubernetes, and not in files.
    #[must_use]
    pub fn is_address(&self) -> bool {
        matches!(self, Self::PodIp | Self::PodIps | Self::HostIp | Self::HostIps)
    }

    /// Whether it follows from labels or annotations, which may change while the pod runs.
    #[must_use]
    pub fn may_change(&self) -> bool {
        matches!(self, Self::Label(_) | Self::Annotation(_) | Self::Labels | Self::Annotations)
    }
}

/// As in a manifest.
impl std::fmt::Display for PodField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name => f.write_str("metadata.name"),
            Self::Namespace => f.write_str("metadata.namespace"),
            Self::Uid => f.write_str("metadata.uid"),
            Self::NodeName => f.write_str("spec.nodeName"),
            Self::PodIp => f.write_str("status.podIP"),
            Self::PodIps => f.write_str("status.podIPs"),
            Self::HostIp => f.write_str("status.hostIP"),
            Self::HostIps => f.write_str("status.hostIPs"),
            Self::Label(key) => write!(f, "metadata.labels['{key}']"),
            Self::Annotation(key) => write!(f, "metadata.annotations['{key}']"),
            Self::Labels => f.write_str("metadata.labels"),
            Self::Annotations => f.write_str("metadata.annotations"),
        }
    }
}

/// A resource of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ContainerResource {
    /// `requests.cpu`.
    RequestsCpu = 1,
    /// `limits.cpu`; the node's when the container has no limit.
    LimitsCpu = 2,
    /// `requests.memory`.
    RequestsMemory = 3,
    /// `limits.memory`; the node's when the container has no limit.
    LimitsMemory = 4,
    /// `requests.ephemeral-storage`.
    RequestsEphemeralStorage = 5,
    /// `limits.ephemeral-storage`; the node's when the container has no limit.
    LimitsEphemeralStorage = 6,
}

impl ContainerResource {
    /// Every resource.
    pub const ALL: [Self; 6] = [
        Self::RequestsCpu,
        Self::LimitsCpu,
        Self::RequestsMemory,
        Self::LimitsMemory,
        Self::RequestsEphemeralStorage,
        Self::LimitsEphemeralStorage,
    ];

    /// As in `resource:` of a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestsCpu => "requests.cpu",
            Self::LimitsCpu => "limits.cpu",
            Self::RequestsMemory => "requests.memory",
            Self::LimitsMemory => "limits.memory",
            Self::RequestsEphemeralStorage => "requests.ephemeral-storage",
            Self::LimitsEphemeralStorage => "limits.ephemeral-storage",
        }
    }

    /// Whether it is counted in thousandths of a core; bytes otherwise.
    #[must_use]
    pub fn is_cpu(self) -> bool {
        matches!(self, Self::RequestsCpu | Self::LimitsCpu)
    }
}

/// A container's resource, divided.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResourceField {
    /// Whose; in an environment variable the container's own when unset.
    pub container_name: Option<SmolStr>,
    /// Which.
    pub resource: ContainerResource,
    /// The value is divided by this and rounded up: thousandths of a core, or bytes. At least 1.
    pub divisor: u64,
}

impl ResourceField {
    /// One core: the divisor of cpu where none is given.
    pub const CORE: u64 = 1000;
}

/// What is told of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DownwardSource {
    /// A field of it.
    Field(PodField),
    /// A container's resource.
    Resource(ResourceField),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_paths() {
        for field in [
            PodField::Name,
            PodField::Namespace,
            PodField::Uid,
            PodField::NodeName,
            PodField::PodIp,
            PodField::PodIps,
            PodField::HostIp,
            PodField::HostIps,
            PodField::Label("a/b".into()),
            PodField::Annotation("x".into()),
            PodField::Labels,
            PodField::Annotations,
        ] {
            assert_eq!(PodField::parse(&field.to_string()), Ok(field));
        }
        let refused = |path: &str| PodField::parse(path).map_err(|e| e.to_string()).expect_err("no field");
        assert!(refused("status.podIp").contains("status.podIP"));
        assert!(refused("metadata.labels[x]").contains("metadata.labels['KEY']"));
    }
}
