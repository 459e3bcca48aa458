//! The DeviceClasses that come with the program, for clusters that have devices.
//!
//! They are proposed as whole objects once a node reports a device that one of them means, so that what they say is in the log: another version of the
//! program may bring others without changing what an old log means. One that is deleted comes back, as Kubernetes' own
//! objects do; to use none of a kind of device, cordon the devices, or give the class another selector.

use std::sync::Arc;

use bulkhead_types::{
    Command, DEVICE_RULES_LEVEL, DEVICES_LEVEL, Device, DeviceClass, DeviceClassSpec, DeviceTraits, Kind,
    Name, NamedDeviceClass, Object, ObjectMeta, PARTITIONS_LEVEL, builtin_device_classes,
};

use super::{Reconciler, View};
use crate::{Change, ChangeType, State};

/// How long to wait after a proposal that had no effect, in milliseconds.
const AGAIN_MS: u64 = 60_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct DeviceClasses {
    dirty: bool,
    proposed_at_ms: Option<u64>,
}

/// A class as it comes along at a feature level.
fn at_level(spec: &DeviceClassSpec, level: u32) -> DeviceClassSpec {
    match level {
        DEVICE_RULES_LEVEL.. => spec.clone(),
        PARTITIONS_LEVEL.. => spec.below_rules(),
        _ => spec.below_partitions(),
    }
}

/// Whether a class is one as it came along at an earlier level.
fn is_earlier(present: &DeviceClassSpec, spec: &DeviceClassSpec) -> bool {
    *present == spec.below_partitions() || *present == spec.below_rules()
}

impl Reconciler for DeviceClasses {
    fn name(&self) -> &'static str {
        "device-classes"
    }

    fn reset(&mut self, state: &State) {
        *self = Self { dirty: !state.resource_slices().is_empty(), proposed_at_ms: None };
    }

    fn observe(&mut self, change: &Change) {
        self.dirty |= match change.object {
            Object::ResourceSlice(_) => true,
            Object::DeviceClass(_) => change.change_type == ChangeType::Deleted,
            _ => false,
        };
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        self.dirty = false;
        let state = view.state;
        if state.feature_level() < DEVICES_LEVEL || state.resource_slices().is_empty() {
            return Vec::new();
        }
        let mut builtin = builtin_device_classes();
        for class in &mut builtin {
            class.spec = at_level(&class.spec, state.feature_level());
        }
        let present = |class: &NamedDeviceClass| {
            let name = Name::new(&class.name).ok()?;
            state.device_classes().get(state.find(Kind::DeviceClass, None, &name)?)
        };
        // One that is as it came along at an earlier level is brought up to date; one that anybody changed is not.
        let is_missing = |class: &NamedDeviceClass| {
            present(class).is_none_or(|one| one.spec != class.spec && is_earlier(&one.spec, &class.spec))
        };
        let is_meant = |device: &Device| {
            let traits = DeviceTraits::from(device);
            builtin.iter().any(|class| class.spec.selector.matches(&traits))
        };
        let mut devices = state.resource_slices().iter().flat_map(|slice| &slice.devices);
        if !builtin.iter().any(is_missing) || !devices.any(is_meant) {
            self.proposed_at_ms = None;
            return Vec::new();
        }
        let create = |class: &NamedDeviceClass| {
            let present = present(class);
            let meta = match present {
                Some(present) => present.meta.clone(),
                None => ObjectMeta::new(None, Name::new(&class.name).ok()?),
            };
            let class = DeviceClass { meta, spec: class.spec.clone() };
            let is_new = present.is_none();
            let object = Object::DeviceClass(Arc::new(class));
            Some(if is_new { Command::Create(object) } else { Command::Apply(object) })
        };
        let commands: Vec<Command> =
            builtin.iter().filter(|class| is_missing(class)).filter_map(create).collect();
        // Whether they had an effect is looked at once more, but not at once.
        self.proposed_at_ms = (!commands.is_empty()).then(|| view.now_ms.saturating_add(AGAIN_MS));
        commands
    }

    fn next_wake_ms(&self) -> Option<u64> {
        if self.dirty { Some(0) } else { self.proposed_at_ms }
    }
}
