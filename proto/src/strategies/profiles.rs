//! Profiles and PriorityClasses.

use super::*;

record!(/// Any PriorityClass.
priority_class: PriorityClass {
    meta: meta(), value: any::<i32>(), global_default: any::<bool>(),
    preemption_policy: of(select(vec![PreemptionPolicy::Never, PreemptionPolicy::PreemptLowerPriority])), description: text(),
});
record!(/// Any share of limits.
request_from_limit: RequestFromLimit { cpu_percent: of(any::<u32>()), memory_percent: of(any::<u32>()) });
record!(/// Any effect.
profile_effect: ProfileEffect {
    labels: labels(), annotations: labels(), node_selector: labels(), tolerations: vec(toleration(), 0..3),
    priority_class_name: of(small()), request_from_limit: request_from_limit(),
});
record!(/// Any rule.
profile_rule: ProfileRule {
    name: small(), namespace_selector: of(label_selector()), object_selector: of(label_selector()),
    effect: profile_effect(),
});
record!(/// Any profile's content.
profile_spec: ProfileSpec { rules: vec(profile_rule(), 0..3) });
record!(/// Any Profile.
profile: Profile { meta: meta(), spec: profile_spec() });
