//! The kinds of objects, and one type that holds any of them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Deployment, Name, Node, ObjectMeta, Pod, ReplicaSet};

/// What kinds of objects there are. Numbers are those of the wire and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A tenant's room for names.
    Namespace = 1,
    /// A machine that runs pods.
    Node = 2,
    /// One guest VM and its containers.
    Pod = 3,
    /// A number of equal pods.
    ReplicaSet = 4,
    /// ReplicaSets over time: a rollout.
    Deployment = 5,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Namespace, Self::Node, Self::Pod, Self::ReplicaSet, Self::Deployment];

    /// The name as in `kind:` of a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::ReplicaSet => "ReplicaSet",
            Self::Deployment => "Deployment",
        }
    }

    /// The `apiVersion` of the kind in a manifest.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Namespace | Self::Node | Self::Pod => "v1",
            Self::ReplicaSet | Self::Deployment => "apps/v1",
        }
    }

    /// Whether objects of this kind live in a namespace.
    #[must_use]
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node)
    }

    /// Reads a kind as a user types it: `pod`, `pods`, `po`, `Deployment`, `deploy`, `rs`, `ns`, `no`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        Some(match lower.as_str() {
            "namespace" | "namespaces" | "ns" => Self::Namespace,
            "node" | "nodes" | "no" => Self::Node,
            "pod" | "pods" | "po" => Self::Pod,
            "replicaset" | "replicasets" | "rs" => Self::ReplicaSet,
            "deployment" | "deployments" | "deploy" => Self::Deployment,
            _ => return None,
        })
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An object by kind and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; `None` for cluster-scoped kinds.
    pub namespace: Option<Name>,
    /// Its name.
    pub name: Name,
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// A room for names, owned by one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Namespace {
    /// Standard metadata.
    pub meta: ObjectMeta,
}

/// Any object. Cloning is cheap: the content is shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Object {
    /// See [`Namespace`].
    Namespace(Arc<Namespace>),
    /// See [`Node`].
    Node(Arc<Node>),
    /// See [`Pod`].
    Pod(Arc<Pod>),
    /// See [`ReplicaSet`].
    ReplicaSet(Arc<ReplicaSet>),
    /// See [`Deployment`].
    Deployment(Arc<Deployment>),
}

impl Object {
    /// The object's kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Namespace(_) => Kind::Namespace,
            Self::Node(_) => Kind::Node,
            Self::Pod(_) => Kind::Pod,
            Self::ReplicaSet(_) => Kind::ReplicaSet,
            Self::Deployment(_) => Kind::Deployment,
        }
    }

    /// The object's metadata.
    #[must_use]
    pub fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Namespace(o) => &o.meta,
            Self::Node(o) => &o.meta,
            Self::Pod(o) => &o.meta,
            Self::ReplicaSet(o) => &o.meta,
            Self::Deployment(o) => &o.meta,
        }
    }

    /// The object's metadata, to change; the content is copied when it is shared.
    #[must_use]
    pub fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Namespace(o) => &mut Arc::make_mut(o).meta,
            Self::Node(o) => &mut Arc::make_mut(o).meta,
            Self::Pod(o) => &mut Arc::make_mut(o).meta,
            Self::ReplicaSet(o) => &mut Arc::make_mut(o).meta,
            Self::Deployment(o) => &mut Arc::make_mut(o).meta,
        }
    }

    /// Kind, namespace and name.
    #[must_use]
    pub fn object_ref(&self) -> ObjectRef {
        let meta = self.meta();
        ObjectRef { kind: self.kind(), namespace: meta.namespace.clone(), name: meta.name.clone() }
    }
}
