//! Profiles and PriorityClasses.

use bulkhead_types::{
    EFFECT_ENTRIES_MAX, PROFILE_RULES_MAX, PreemptionPolicy, PriorityClass, Profile, ProfileEffect,
    ProfileRule, ProfileSpec, RequestFromLimit,
};

use super::{wire_enum, wire_field, wire_field_or_default, wire_struct};
use crate::v1;

wire_enum!(PreemptionPolicy { Never, PreemptLowerPriority });

wire_struct!(PriorityClass => v1::PriorityClass { meta, value, global_default, preemption_policy, description });
wire_struct!(Profile => v1::Profile { meta, spec });
wire_struct!(ProfileSpec => v1::ProfileSpec { rules (PROFILE_RULES_MAX) });
wire_struct!(ProfileRule => v1::ProfileRule { name, namespace_selector, object_selector, effect });
wire_struct!(ProfileEffect => v1::ProfileEffect {
    labels, annotations, node_selector, tolerations (EFFECT_ENTRIES_MAX), priority_class_name, request_from_limit,
});
wire_struct!(RequestFromLimit => v1::RequestFromLimit { cpu_percent, memory_percent });

wire_field! {
    PriorityClass => v1::PriorityClass,
    Profile => v1::Profile,
    ProfileSpec => v1::ProfileSpec,
    ProfileRule => v1::ProfileRule,
    ProfileEffect => v1::ProfileEffect,
}
wire_field_or_default!(RequestFromLimit => v1::RequestFromLimit);
