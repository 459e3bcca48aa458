//! Pod specs.

use bulkhead_types::{
    ImagePullSecrets, PodOptions, PodSpec, Rare, RestartPolicy, RuntimeClass, TERMINATION_GRACE_MS_DEFAULT,
    Toleration, TolerationOperator,
};

use super::container;
use super::decoder::{Decoder, Fields, Fixed, Schema};
use super::node::EFFECTS;
use super::{naming, placement, security, volume};
use crate::tree::Node;

const SPEC: Schema = Schema {
    known: &[
        "containers",
        "initContainers",
        "restartPolicy",
        "terminationGracePeriodSeconds",
        "runtimeClassName",
        "nodeSelector",
        "nodeName",
        "tolerations",
        "hostname",
        "volumes",
        "securityContext",
        "priorityClassName",
        "affinity",
        "topologySpreadConstraints",
        "dnsPolicy",
        "dnsConfig",
        "hostAliases",
        "subdomain",
        "setHostnameAsFQDN",
        "imagePullSecrets",
    ],
    fixed: &[
        ("schedulerName", Fixed::Text("default-scheduler")),
        ("preemptionPolicy", Fixed::Text("PreemptLowerPriority")),
        ("enableServiceLinks", Fixed::Bool(true)),
        ("automountServiceAccountToken", Fixed::Bool(false)),
        ("hostNetwork", Fixed::Bool(false)),
        ("hostPID", Fixed::Bool(false)),
        ("hostIPC", Fixed::Bool(false)),
        ("shareProcessNamespace", Fixed::Bool(false)),
        ("priority", Fixed::Number("0")),
    ],
    not_yet: &[
        "activeDeadlineSeconds",
        "ephemeralContainers",
        "hostUsers",
        "os",
        "overhead",
        "readinessGates",
        "resourceClaims",
        "resources",
        "schedulingGates",
        "serviceAccount",
        "serviceAccountName",
    ],
    ..Schema::EMPTY
};
const TOLERATION: Schema =
    Schema { known: &["key", "operator", "value", "effect", "tolerationSeconds"], ..Schema::EMPTY };
const SECRET_REF: Schema = Schema { known: &["name"], ..Schema::EMPTY };
const RESTART_POLICIES: [(&str, RestartPolicy); 3] = [
    ("Always", RestartPolicy::Always),
    ("OnFailure", RestartPolicy::OnFailure),
    ("Never", RestartPolicy::Never),
];
const OPERATORS: [(&str, TolerationOperator); 2] =
    [("Equal", TolerationOperator::Equal), ("Exists", TolerationOperator::Exists)];

/// What a pod runs.
pub(super) fn spec(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<PodSpec> {
    let fields = d.fields(node, path, &SPEC)?;
    if fields.get("containers").is_none() {
        d.missing(&fields, "containers");
    }
    Some(PodSpec {
        runtime_class: runtime_class(d, &fields),
        restart_policy: d.choice(&fields, "restartPolicy", &RESTART_POLICIES).unwrap_or_default(),
        termination_grace_ms: d
            .seconds(&fields, "terminationGracePeriodSeconds")
            .unwrap_or(TERMINATION_GRACE_MS_DEFAULT),
        node_selector: d.string_map(&fields, "nodeSelector"),
        node_name: d.text(&fields, "nodeName").filter(|name| !name.is_empty()).map(Into::into),
        tolerations: d.each(&fields, "tolerations", toleration),
        hostname: d.text(&fields, "hostname").filter(|name| !name.is_empty()).map(Into::into),
        init_containers: d.each(&fields, "initContainers", container::container),
        containers: d.each(&fields, "containers", container::container),
        options: Rare::unless_default(PodOptions {
            guest_memory: Rare::NONE,
            volumes: d.each(&fields, "volumes", volume::volume),
            security: security::pod(d, &fields),
            priority_class: d
                .text(&fields, "priorityClassName")
                .filter(|name| !name.is_empty())
                .map(Into::into)
                .into(),
            placement: placement::placement(d, &fields),
            naming: naming::naming(d, &fields),
            image_pull_secrets: image_pull_secrets(d, &fields),
        }),
    })
}

fn image_pull_secrets(d: &mut Decoder<'_>, pod: &Fields<'_>) -> Rare<ImagePullSecrets> {
    let names = d.each(pod, "imagePullSecrets", |d, node, path| {
        let fields = d.fields(node, path, &SECRET_REF)?;
        // Whether there is a name is for the validation to say.
        Some(d.text(&fields, "name").unwrap_or_default().into())
    });
    Rare::unless_default(ImagePullSecrets { names })
}

pub(super) fn runtime_class(d: &mut Decoder<'_>, fields: &Fields<'_>) -> RuntimeClass {
    let reason = match d.text(fields, "runtimeClassName").as_deref() {
        None | Some("rune" | "runv") => return RuntimeClass::Rune,
        Some("runc") => {
            "runc shares the host's kernel and so isolates no tenant: it is not offered; leave the field out, or use rune"
                .to_owned()
        }
        Some(other) => format!("{other:?} is unknown: use rune (a guest VM for each pod), or leave the field out"),
    };
    d.fail(fields.place("runtimeClassName"), &fields.path("runtimeClassName"), reason);
    RuntimeClass::Rune
}

pub(super) fn toleration(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Toleration> {
    let fields = d.fields(node, path, &TOLERATION)?;
    Some(Toleration {
        key: d.text(&fields, "key").unwrap_or_default().into(),
        operator: d.choice(&fields, "operator", &OPERATORS).unwrap_or(TolerationOperator::Equal),
        value: d.text(&fields, "value").unwrap_or_default().into(),
        effect: match d.text(&fields, "effect") {
            Some(text) if text.is_empty() => None,
            _ => d.choice(&fields, "effect", &EFFECTS),
        },
        toleration_ms: d.seconds(&fields, "tolerationSeconds"),
    })
}
