//! What workloads own, and what is said of them.

use bulkhead_types::{ObjectStatus, PodEnd, PodStamp};

use super::{wire_enum, wire_field, wire_oneof, wire_struct, wire_variant_message};
use crate::v1;
use crate::v1::object_status;

wire_enum!(PodEnd { Succeeded, Failed, Ignored, FailedIndex, FailedJob, Stopped });
wire_struct!(PodStamp => v1::PodStamp { name, index, node, revision });
wire_field!(PodStamp => v1::PodStamp);

wire_oneof!(ObjectStatus => object_status {
    values { StatefulSet "stateful_set", DaemonSet "daemon_set", Job "job", CronJob "cron_job",
        HorizontalPodAutoscaler "horizontal_pod_autoscaler",
        CronHorizontalPodAutoscaler "cron_horizontal_pod_autoscaler",
        PodDisruptionBudget "pod_disruption_budget", ElasticWorkload "elastic_workload",
        VerticalPodAutoscaler "vertical_pod_autoscaler",
        PersistentVolumeClaim "persistent_volume_claim",
        ResourceQuota "resource_quota", Project "project", Department "department",
        PodGroup "pod_group", Queue "queue",
        SriovNetworkNodeState "sriov_network_node_state",
        NodePool "node_pool", NodeOperation "node_operation",
        DeschedulerPolicy "descheduler_policy",
        ElasticQuotaTree "elastic_quota_tree",
        VolumeSnapshot "volume_snapshot",
    }
    messages {}
});
wire_variant_message!(ObjectStatus => v1::ObjectStatus);
