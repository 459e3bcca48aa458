//! Names behind keys: objects know their node and owner by key only.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_manifest::Names;
use bulkhead_proto::v1;
use bulkhead_types::{Kind, Name, Object, ObjectId, Pod};
use uuid::Uuid;

use crate::client::{Client, Filter, cluster};
use crate::failure::Failure;

/// What some objects refer to.
#[derive(Default)]
pub(crate) struct Directory {
    cluster_id: Option<Uuid>,
    names: BTreeMap<(Kind, ObjectId), Name>,
}

impl Directory {
    /// The nodes of these pods, and those where room is kept for them.
    pub(crate) async fn of_nodes(client: &Client, objects: &[Object]) -> Result<Self, Failure> {
        let mut directory = Self::default();
        let has_node = |pod: &Pod| pod.node.is_some() || pod.status.nominated_node.get().is_some();
        if objects.iter().any(|o| matches!(o, Object::Pod(pod) if has_node(pod))) {
            directory.add_all(client, Kind::Node, &Filter::default()).await?;
        }
        Ok(directory)
    }

    /// Everything that these objects refer to, and the cluster's identity.
    pub(crate) async fn complete(client: &Client, objects: &[Object]) -> Result<Self, Failure> {
        let mut directory = Self::of_nodes(client, objects).await?;
        let kinds = |object: &Object| {
            let meta = object.meta();
            // A pod of another namespace is nobody's business here: it stays a number.
            let preempted = meta.deletion.as_ref().is_some_and(|deletion| deletion.preemptor.is_some());
            let of_owner = meta.owner.map(|owner| owner.kind);
            let kinds = of_owner.into_iter().chain(preempted.then_some(Kind::Pod));
            kinds.map(|kind| (kind, meta.namespace.clone())).collect::<Vec<_>>()
        };
        let owners: BTreeSet<(Kind, Option<Name>)> = objects.iter().flat_map(kinds).collect();
        for (kind, namespace) in owners {
            directory.add_all(client, kind, &Filter { namespace, ..Filter::default() }).await?;
        }
        let members = client
            .call(|channel| {
                let request = v1::MembersRequest { consistency: v1::Consistency::Stale.into() };
                let request = client.request(request);
                async move { cluster(channel).members(request).await }
            })
            .await?;
        directory.cluster_id = Uuid::parse_str(&members.cluster_id).ok();
        Ok(directory)
    }

    async fn add_all(&mut self, client: &Client, kind: Kind, filter: &Filter) -> Result<(), Failure> {
        let (objects, _) = client.list(kind, filter).await?;
        self.names.extend(objects.iter().map(|o| ((kind, o.meta().id), o.meta().name.clone())));
        Ok(())
    }

    /// Whether a pod runs on a node that came after this was read.
    pub(crate) fn lacks_node_of(&self, object: &Object) -> bool {
        matches!(object, Object::Pod(pod) if pod.node.is_some_and(|id| self.name_of(Kind::Node, id).is_none()))
    }

    pub(crate) fn name_of(&self, kind: Kind, id: ObjectId) -> Option<Name> {
        self.names.get(&(kind, id)).cloned()
    }

    /// An object as `get` shows it; who manages which fields only when that is asked for.
    pub(crate) fn to_value(&self, object: &Object, managed_fields: bool) -> serde_json::Value {
        let name_of = |kind, id| self.name_of(kind, id);
        let names = Names { cluster_id: self.cluster_id, name_of: &name_of };
        let mut value = bulkhead_manifest::to_value(object, names);
        if !managed_fields && let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        value
    }
}
