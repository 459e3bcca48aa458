//! A small cluster for the tests of the invariants of StatefulSets and DaemonSets: its State can be led astray by
//! events that `decide` would never make.

use std::sync::Arc;

use bulkhead_controlplane_core::evolve::evolve;
use bulkhead_controlplane_core::{Machine, State};
use bulkhead_types::{
    Command, Container, ControllerRevision, Event, EventKind, FEATURE_LEVEL_MAX, MemberId, Name, NodeFacts,
    Object, ObjectId, ObjectMeta, OwnerRef, PodSpec, PodTemplate, Resources, Shared, Stamped, StringMap,
    Transaction,
};
use uuid::Uuid;

pub(super) fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// See the module.
pub(super) struct World {
    machine: Machine,
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self { machine: Machine::default() };
        let members = vec![(MemberId(1), "a:1".into())];
        world.ok(Command::InitCluster { cluster_id: Uuid::from_u128(1), members });
        world.ok(Command::RegisterMember {
            member: MemberId(1),
            storage_uid: Uuid::from_u128(2),
            address: "a:1".into(),
            version: "0".into(),
            feature_level_max: FEATURE_LEVEL_MAX,
        });
        world.ok(Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX });
        world
    }

    pub(super) fn state(&self) -> &State {
        self.machine.state()
    }

    pub(super) fn ok(&mut self, command: Command) {
        let applied = self.machine.apply_stamped(&Stamped {
            request_id: Uuid::nil(),
            actor: "system:test".into(),
            proposed_at_ms: 5,
            trace_context: None,
            preconditions: Vec::new(),
            commands: vec![command],
        });
        assert!(applied.transaction.outcome.is_ok(), "{:?}", applied.transaction.outcome);
    }

    pub(super) fn create(&mut self, object: Object) -> ObjectId {
        let reference = object.object_ref();
        self.ok(Command::Create(object));
        self.state().find_object(&reference).expect("it was created").meta().id
    }

    pub(super) fn node(&mut self, text: &str) -> ObjectId {
        let room = Resources {
            cpu_millis: 1000,
            memory_bytes: 1 << 30,
            ephemeral_storage_bytes: 0,
            ..Resources::ZERO
        };
        let facts = NodeFacts { capacity: room, allocatable: room, pods_max: 9, ..NodeFacts::default() };
        self.ok(Command::RegisterNode { name: name(text), facts });
        self.state().find(bulkhead_types::Kind::Node, None, &name(text)).expect("it was registered")
    }

    /// Gives an owner a template of its own.
    pub(super) fn own(&mut self, owner: OwnerRef, row: ControllerRevision) -> ObjectId {
        let text = row.meta.name.clone();
        let object = Object::ControllerRevision(Arc::new(row));
        self.ok(Command::CreateOwned { owner, generation: 1, object });
        let namespace = name("default");
        let kind = bulkhead_types::Kind::ControllerRevision;
        self.state().find(kind, Some(&namespace), &text).expect("it was created")
    }

    pub(super) fn revision(text: &str, version: u32) -> ControllerRevision {
        let meta = ObjectMeta::new(Some(name("default")), name(text));
        ControllerRevision { meta, revision: u64::from(version), template: Self::template(version) }
    }

    pub(super) fn labels() -> StringMap {
        [("app".into(), "x".into())].into_iter().collect()
    }

    pub(super) fn template(version: u32) -> PodTemplate {
        let image = format!("x:{version}").into();
        let container = Container { name: "c".into(), image, ..Container::default() };
        let spec = PodSpec { containers: vec![container], ..PodSpec::default() };
        PodTemplate { labels: Self::labels(), annotations: StringMap::new(), spec: Shared::new(spec) }
    }

    /// What the State would be after these events, and the transaction with them.
    pub(super) fn forced(&self, actor: &str, kinds: Vec<EventKind>) -> (State, Transaction) {
        let mut after = self.state().clone();
        let first = after.revision() + 1;
        let events = (first..).zip(kinds).map(|(revision, kind)| Event { revision, kind }).collect();
        let transaction = Transaction {
            request_id: Uuid::nil(),
            actor: actor.into(),
            at_ms: 5,
            trace_context: None,
            outcome: Ok(first),
            events,
        };
        evolve(&mut after, &transaction);
        (after, transaction)
    }
}
