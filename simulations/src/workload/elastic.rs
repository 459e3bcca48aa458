//! An elastic quota tree over the namespaces that are used, among what clients ask for.

use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    Command, ELASTIC_QUOTA_LEVEL, ELASTIC_QUOTA_NAMESPACE, ElasticQuota, ElasticQuotaTree,
    ElasticQuotaTreeSpec, ElasticQuotaTreeStatus, FEATURE_LEVEL_MAX, Kind, Namespace, Object, ObjectMeta,
    ObjectRef, QuotaAmounts, QuotaResource,
};

use super::{NAMESPACES, name};
use crate::rng::Rng;

/// Processor time of the root, in thousandths of a core: from, to.
const ROOT: (u64, u64) = (1500, 8000);

/// The command that a cluster needs first, if it does: its level, and the namespace in which trees count.
pub(super) fn first(state: &State) -> Option<Command> {
    if state.feature_level() < ELASTIC_QUOTA_LEVEL {
        return Some(Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX });
    }
    let system = name(ELASTIC_QUOTA_NAMESPACE);
    let lacks = state.find(Kind::Namespace, None, &system).is_none();
    lacks.then(|| {
        Command::Create(Object::Namespace(Arc::new(Namespace { meta: ObjectMeta::new(None, system) })))
    })
}

/// The tree comes, becomes another one, or goes.
pub(super) fn command(rng: &mut Rng) -> Command {
    let namespace = Some(name(ELASTIC_QUOTA_NAMESPACE));
    if rng.chance(150) {
        let object = ObjectRef { kind: Kind::ElasticQuotaTree, namespace, name: name("tree") };
        return Command::Delete { object, grace_ms: None, force: false };
    }
    let amounts = |cpu_millis: u64| -> QuotaAmounts {
        [(QuotaResource::parse("cpu").expect("a resource"), cpu_millis)].into_iter().collect()
    };
    let whole = rng.range(ROOT.0, ROOT.1);
    let mut left = whole;
    let mut leaf = |namespace: &str| {
        let min = rng.range(0, left);
        left -= min;
        let max = rng.range(min, whole);
        ElasticQuota {
            name: format!("leaf-{namespace}").into(),
            max: if rng.chance(700) { amounts(max) } else { QuotaAmounts::default() },
            min: amounts(min),
            children: Vec::new(),
            namespaces: vec![name(namespace)],
        }
    };
    let children = NAMESPACES.into_iter().map(&mut leaf).collect();
    let root = ElasticQuota {
        name: "root".into(),
        max: amounts(whole),
        min: amounts(whole),
        children,
        namespaces: Vec::new(),
    };
    let meta = ObjectMeta::new(namespace, name("tree"));
    let (spec, status) = (ElasticQuotaTreeSpec { root }, ElasticQuotaTreeStatus::default());
    Command::Apply(Object::ElasticQuotaTree(Arc::new(ElasticQuotaTree { meta, spec, status })))
}
