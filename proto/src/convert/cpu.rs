//! CPUs: what nodes have of them, and what pods were given.

use bulkhead_types::{
    CPUS_MAX, CpuCore, CpuHold, CpuPools, CpuSet, CpuTopology, NUMA_NODES_MAX, NumaNode, NumaPolicy, PodCpus,
};

use super::{ConvertError, Field, wire_enum, wire_field, wire_struct};
use crate::v1;

wire_enum! {
    NumaPolicy { None, BestEffort, Restricted, SingleNumaNode }
    CpuHold { Exclusive, Reserved, Bound }
}

wire_struct!(CpuCore => v1::CpuCore { package, core, cpus });
wire_struct!(NumaNode => v1::NumaNode { id, memory_bytes, cores (CPUS_MAX as usize), huge_pages });
wire_struct!(CpuTopology => v1::CpuTopology { numa_nodes (NUMA_NODES_MAX), reserved, policy });
wire_struct!(PodCpus => v1::PodCpus { cpus, numa_nodes (NUMA_NODES_MAX), memory_bytes, hold, huge_pages });
wire_struct!(CpuPools => v1::CpuPools { shared, batch });

wire_field! {
    CpuCore => v1::CpuCore,
    NumaNode => v1::NumaNode,
    CpuTopology => v1::CpuTopology,
    PodCpus => v1::PodCpus,
    CpuPools => v1::CpuPools,
}

impl Field<String> for CpuSet {
    fn to_wire(&self) -> String {
        self.to_string()
    }
    fn from_wire(wire: String) -> Result<Self, ConvertError> {
        wire.parse().map_err(|error: bulkhead_types::CpuSetError| ConvertError::new(error.to_string()))
    }
}
