//! Kinds, references, metadata, selectors, refusals.

use bulkhead_types::{
    Deletion, FieldManager, FieldSet, HugePages, Kind, LabelOperator, LabelRequirement, LabelSelector,
    MANAGERS_MAX, ManagerOperation, Managers, ObjectId, ObjectMeta, ObjectRef, Outcome, OwnerRef, Rejection,
    RejectionCode, Resources,
};

use super::{ConvertError, Field, read, unknown_variant};
use super::{wire_enum, wire_field, wire_field_or_default, wire_struct};
use crate::v1;

wire_enum! {
    Kind {
        Namespace, Node, Pod, ReplicaSet, Deployment, StatefulSet, DaemonSet, Job, CronJob, ConfigMap, Secret,
        ControllerRevision, HorizontalPodAutoscaler, CronHorizontalPodAutoscaler, PodDisruptionBudget,
        VerticalPodAutoscaler, ElasticWorkload, PriorityClass, Profile, PersistentVolumeClaim,
        ResourceQuota, LimitRange, Department, Project, PodGroup, Queue,
        DeviceClass, ResourceSlice,
        SriovNetworkNodePolicy, SriovNetwork, SriovIBNetwork, SriovNetworkNodeState,
        NodePool, NodeOperation, DeschedulerPolicy,
        ElasticQuotaTree, VolumeSnapshot, StorageClass, PersistentVolume,
    }
    LabelOperator { In, NotIn, Exists, DoesNotExist }
    ManagerOperation { Apply, Update }
    RejectionCode { Invalid, NotFound, AlreadyExists, Conflict, NotAllowed, StaleIncarnation }
}

wire_struct!(ObjectRef => v1::ObjectRef { kind, namespace, name });
wire_struct!(ObjectMeta => v1::ObjectMeta {
    name, namespace, id, revision, generation, created_at_ms, deletion, labels, annotations, owner,
    trace_context, managers,
});
wire_struct!(Managers => v1::Managers { managers (MANAGERS_MAX) });
wire_struct!(Deletion => v1::Deletion { requested_at_ms, grace_ms, by_job, preemptor });
wire_struct!(OwnerRef => v1::OwnerRef { kind, id });
wire_struct!(Resources => v1::Resources { cpu_millis, memory_bytes, ephemeral_storage_bytes, huge_pages, pinned_memory_bytes });
wire_struct!(HugePages => v1::HugePages { two_mib_bytes, one_gib_bytes });
wire_struct!(LabelSelector => v1::LabelSelector { match_labels, match_expressions });
wire_struct!(LabelRequirement => v1::LabelRequirement { key, operator, values });
wire_struct!(Rejection => v1::Rejection { code, field, reason, remedy });

wire_field! {
    ObjectRef => v1::ObjectRef,
    ObjectMeta => v1::ObjectMeta,
    Deletion => v1::Deletion,
    Managers => v1::Managers,
    OwnerRef => v1::OwnerRef,
    LabelSelector => v1::LabelSelector,
    LabelRequirement => v1::LabelRequirement,
    Rejection => v1::Rejection,
}
wire_field_or_default!(Resources => v1::Resources, HugePages => v1::HugePages);

impl Field<v1::FieldManager> for FieldManager {
    fn to_wire(&self) -> v1::FieldManager {
        let Self { manager, operation, fields } = self;
        v1::FieldManager {
            manager: manager.to_wire(),
            operation: operation.to_wire(),
            fields: fields.to_wire(),
        }
    }
    fn from_wire(wire: v1::FieldManager) -> Result<Self, ConvertError> {
        if FieldSet::parse(&wire.fields).is_none_or(|set| set.is_empty()) {
            return Err(ConvertError::new("is not a set of fields").within("fields"));
        }
        Ok(Self {
            manager: read(wire.manager, "manager")?,
            operation: read(wire.operation, "operation")?,
            fields: read(wire.fields, "fields")?,
        })
    }
}

impl Field<v1::ObjectKey> for (Kind, ObjectId) {
    fn to_wire(&self) -> v1::ObjectKey {
        v1::ObjectKey { kind: self.0.to_wire(), id: self.1.to_wire() }
    }
    fn from_wire(wire: v1::ObjectKey) -> Result<Self, ConvertError> {
        Ok((read(wire.kind, "kind")?, read(wire.id, "id")?))
    }
}

impl Field<Option<v1::Outcome>> for Outcome {
    fn to_wire(&self) -> Option<v1::Outcome> {
        let result = match self {
            Ok(revision) => v1::outcome::Result::Revision(*revision),
            Err(rejection) => v1::outcome::Result::Rejection(rejection.into()),
        };
        Some(v1::Outcome { result: Some(result) })
    }
    fn from_wire(wire: Option<v1::Outcome>) -> Result<Self, ConvertError> {
        match wire.and_then(|w| w.result).ok_or_else(unknown_variant)? {
            v1::outcome::Result::Revision(revision) => Ok(Ok(revision)),
            v1::outcome::Result::Rejection(rejection) => read(rejection, "rejection").map(Err),
        }
    }
}
