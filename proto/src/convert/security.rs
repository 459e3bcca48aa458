//! As whom containers run.

use bulkhead_types::{
    Capabilities, FsGroupChangePolicy, PodSecurityContext, SeccompProfile, SecurityContext, Sysctl,
};

use super::{wire_enum, wire_field, wire_field_or_default, wire_struct};
use crate::v1;

wire_enum! {
    SeccompProfile { RuntimeDefault, Unconfined }
    FsGroupChangePolicy { Always, OnRootMismatch }
}
wire_struct!(SecurityContext => v1::SecurityContext {
    run_as_user, run_as_group, run_as_non_root, read_only_root_filesystem, allow_privilege_escalation, capabilities,
    seccomp_profile, privileged,
});
wire_struct!(PodSecurityContext => v1::PodSecurityContext {
    run_as_user, run_as_group, run_as_non_root, supplemental_groups, fs_group, seccomp_profile, sysctls, fs_group_change_policy,
});
wire_struct!(Sysctl => v1::Sysctl { name, value });
wire_struct!(Capabilities => v1::Capabilities { add, drop });

wire_field! {
    SecurityContext => v1::SecurityContext,
    PodSecurityContext => v1::PodSecurityContext,
    Sysctl => v1::Sysctl,
}
wire_field_or_default! {
    Capabilities => v1::Capabilities,
}
