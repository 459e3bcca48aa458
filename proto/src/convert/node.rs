//! Nodes.

use bulkhead_types::{
    DeviceLabels, NODE_IMAGE_NAMES_MAX, NODE_IMAGES_MAX, Node, NodeFacts, NodeImage, NodeImages, NodePhase,
    NodePrecondition, NodePreconditions, NodeSpec, NodeStatus, PRECONDITIONS_MAX, PreconditionNeed,
    PreconditionOutcome, Taint, TaintEffect,
};

use super::{wire_enum, wire_field, wire_struct};
use crate::v1;

wire_enum! {
    TaintEffect { NoSchedule, PreferNoSchedule, NoExecute }
    NodePhase { Ready, Unreachable, Fenced }
    PreconditionNeed { Limits, Confinement, Speed, Devices, VirtualFunctions, Network, Volumes }
    PreconditionOutcome { Met, Missing, NotNeeded, Unknown }
}

wire_struct!(Node => v1::Node { meta, spec, status });
wire_struct!(NodeSpec => v1::NodeSpec { unschedulable, taints, gpu });
wire_struct!(Taint => v1::Taint { key, value, effect });
wire_struct!(NodeStatus => v1::NodeStatus { phase, phase_since_ms, incarnation, facts, pool, images, device_labels });
wire_struct!(DeviceLabels => v1::DeviceLabels { labels });
wire_struct!(NodeImages => v1::NodeImages { images (NODE_IMAGES_MAX) });
wire_struct!(NodeImage => v1::NodeImage { digest, names (NODE_IMAGE_NAMES_MAX), size_bytes });
wire_struct!(NodeFacts => v1::NodeFacts {
    capacity, allocatable, pods_max, address, boot_id, agent_version, kernel_version, accelerator, warnings,
    labels, cpus, preconditions,
});
wire_struct!(NodePreconditions => v1::NodePreconditions { preconditions (PRECONDITIONS_MAX) });
wire_struct!(NodePrecondition => v1::NodePrecondition { name, need, outcome, found, remedy });

wire_field! {
    Node => v1::Node,
    NodeSpec => v1::NodeSpec,
    Taint => v1::Taint,
    NodeStatus => v1::NodeStatus,
    NodeFacts => v1::NodeFacts,
    NodeImages => v1::NodeImages,
    DeviceLabels => v1::DeviceLabels,
    NodeImage => v1::NodeImage,
    NodePreconditions => v1::NodePreconditions,
    NodePrecondition => v1::NodePrecondition,
}
