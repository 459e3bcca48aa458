//! From the references in a pod's spec to values and files. A pure function of State and pod.
//!
//! ```text
//!  envFrom ─► env, in order, each may use $(EARLIER) ─► command and args may use all of them
//!  volumes ─► files, of equal paths the last one's
//! ```
//!
//! Source: kubelet's `makeEnvironmentVariables` and the projected volume plugin, for the rules that the documentation
//! leaves open. No text that is made here holds a value.

use std::collections::BTreeMap;

use bulkhead_types::{
    ConfigKind, ConfigProjection, Container, ContainerResource, DownwardSource, EnvSource, EnvValue,
    HOST_IP_PLACE, Name, Object, ObjectId, POD_IP_PLACE, Pod, PodField, PodSpec, Projection,
    RESOLVED_POD_BYTES_MAX, ResolvedContainer, ResolvedPod, ResourceField, Sensitive, StringMap, VolumeFile,
    VolumeFiles, expand,
};
use uuid::Uuid;

use crate::State;

/// What the references of a pod came to; with `missing` set when something keeps it from starting.
pub(super) fn resolve(state: &State, pod: &Pod, spec: &PodSpec, cluster_id: Uuid) -> ResolvedPod {
    let resolver = Resolver { state, pod, spec, cluster_id };
    match resolver.all() {
        Ok(resolved) if resolved.bytes() <= RESOLVED_POD_BYTES_MAX => resolved,
        Ok(resolved) => refused(format!(
            "the pod's variables and files have {} bytes together: at most {RESOLVED_POD_BYTES_MAX} are possible",
            resolved.bytes()
        )),
        Err(missing) => refused(missing),
    }
}

/// A pod that cannot start, for this reason.
pub(super) fn refused(missing: String) -> ResolvedPod {
    ResolvedPod { missing, ..ResolvedPod::default() }
}

struct Resolver<'a> {
    state: &'a State,
    pod: &'a Pod,
    spec: &'a PodSpec,
    cluster_id: Uuid,
}

/// Keys of a ConfigMap or Secret with their values, and whether each is a text (stands in `data`, not `binaryData`).
type Data = BTreeMap<String, (Sensitive, bool)>;

impl Resolver<'_> {
    fn all(&self) -> Result<ResolvedPod, String> {
        let containers = self.spec.all_containers().map(|c| self.container(c)).collect::<Result<_, _>>()?;
        let mut volumes = Vec::new();
        for volume in self.spec.volumes() {
            let Some((sources, mode)) = volume.projections() else { continue };
            let mut files = BTreeMap::new();
            for source in sources {
                self.project(source, mode, &mut files)
                    .map_err(|missing| format!("volume {}: {missing}", volume.name))?;
            }
            let files = files.into_iter().map(|(path, (mode, data))| VolumeFile { path, mode, data });
            volumes.push(VolumeFiles { volume: volume.name.clone(), files: files.collect() });
        }
        Ok(ResolvedPod { missing: String::new(), containers, volumes })
    }

    fn container(&self, container: &Container) -> Result<ResolvedContainer, String> {
        let env =
            self.env(container).map_err(|missing| format!("container {}: {missing}", container.name))?;
        let words = |words: &[String]| {
            words.iter().map(|word| Sensitive::from(expand(word, &env).into_bytes())).collect()
        };
        Ok(ResolvedContainer {
            name: container.name.clone(),
            command: words(&container.command),
            args: words(&container.args),
            env: env
                .iter()
                .map(|(name, value)| EnvValue {
                    name: name.clone(),
                    value: value.clone().into_bytes().into(),
                })
                .collect(),
        })
    }

    /// The variables that the spec sets. Their order says nothing: each name has one value, and what one is made of
    /// is filled in already.
    fn env(&self, container: &Container) -> Result<BTreeMap<String, String>, String> {
        let mut env = BTreeMap::new();
        for from in container.env_from() {
            let Some(data) = self.data(from.kind, &from.name, from.optional)? else { continue };
            for (key, value) in texts_of(data) {
                let name = format!("{}{key}", from.prefix);
                // As in Kubernetes, keys that are no names of variables are left out.
                if !name.is_empty() && !name.contains('=') {
                    env.insert(name, text(&value).map_err(|why| why.of(from.kind, &from.name, &key))?);
                }
            }
        }
        for var in &container.env {
            let value = match var.value_from.get() {
                None => Some(expand(&var.value, &env)),
                Some(source) => self.value(source, container).map_err(|e| format!("{}: {e}", var.name))?,
            };
            if let Some(value) = value {
                env.insert(var.name.clone(), value);
            }
        }
        Ok(env)
    }

    /// A variable's value; `None` when it is optional and not there.
    fn value(&self, source: &EnvSource, container: &Container) -> Result<Option<String>, String> {
        let (kind, key) = match source {
            EnvSource::ConfigMapKey(key) => (ConfigKind::ConfigMap, key),
            EnvSource::SecretKey(key) => (ConfigKind::Secret, key),
            EnvSource::Downward(source) => return Ok(Some(self.downward(source, Some(container))?)),
        };
        let Some(data) = self.data(kind, &key.name, key.optional)? else { return Ok(None) };
        match texts_of(data).find(|(name, _)| *name == key.key.as_str()) {
            Some((_, value)) => text(&value).map(Some).map_err(|why| why.of(kind, &key.name, &key.key)),
            None if key.optional => Ok(None),
            None => Err(no_key(kind, &key.name, &key.key)),
        }
    }

    fn project(
        &self,
        source: &Projection,
        default_mode: u32,
        files: &mut BTreeMap<String, (u32, Sensitive)>,
    ) -> Result<(), String> {
        let (kind, config) = match source {
            Projection::ConfigMap(config) => (ConfigKind::ConfigMap, config),
            Projection::Secret(config) => (ConfigKind::Secret, config),
            Projection::DownwardApi { items } => {
                for item in items {
                    let text = self.downward(&item.source, None)?;
                    let mode = item.mode.unwrap_or(default_mode);
                    files.insert(item.path.clone(), (mode, text.into_bytes().into()));
                }
                return Ok(());
            }
        };
        let ConfigProjection { name, optional, items } = config;
        let Some(data) = self.data(kind, name, *optional)? else { return Ok(()) };
        if items.is_empty() {
            files.extend(data.into_iter().map(|(key, (value, _))| (key, (default_mode, value))));
            return Ok(());
        }
        for item in items {
            match data.get(item.key.as_str()) {
                Some((value, _)) => {
                    let mode = item.mode.unwrap_or(default_mode);
                    files.insert(item.path.clone(), (mode, value.clone()));
                }
                None if *optional => {}
                None => return Err(no_key(kind, name, &item.key)),
            }
        }
        Ok(())
    }

    /// What a ConfigMap or Secret holds; `None` when it is optional and not there.
    fn data(&self, kind: ConfigKind, name: &str, optional: bool) -> Result<Option<Data>, String> {
        match self.find(kind, name) {
            Some(Object::ConfigMap(map)) => {
                let texts = map.data.iter().map(|(k, v)| (k, v.as_bytes(), true));
                let bytes = map.binary_data.iter().map(|(k, v)| (k, v.as_slice(), false));
                let all = texts.chain(bytes);
                Ok(Some(all.map(|(k, v, is_text)| (k.to_string(), (v.to_vec().into(), is_text))).collect()))
            }
            Some(Object::Secret(secret)) => {
                Ok(Some(secret.data.iter().map(|(k, v)| (k.to_string(), (v.clone(), true))).collect()))
            }
            _ if optional => Ok(None),
            _ => Err(format!("{} {name:?} is not there", kind.kind())),
        }
    }

    fn find(&self, kind: ConfigKind, name: &str) -> Option<Object> {
        let id = self.state.find(kind.kind(), self.pod.meta.namespace.as_ref(), &Name::new(name).ok()?)?;
        self.state.object(kind.kind(), id)
    }

    fn downward(&self, source: &DownwardSource, own: Option<&Container>) -> Result<String, String> {
        let field = match source {
            DownwardSource::Field(field) if field.is_address() && !self.has_address() => {
                return Err(format!("{field} is not there: the node's agent gives pods no network"));
            }
            DownwardSource::Field(field) => return Ok(self.field(field)),
            DownwardSource::Resource(field) => field,
        };
        let named = field
            .container_name
            .as_ref()
            .map_or(own, |name| self.spec.all_containers().find(|container| container.name == *name));
        let container = named.ok_or_else(|| "resourceFieldRef names no container of the pod".to_owned())?;
        Ok(self.resource(field, container).to_string())
    }

    fn field(&self, field: &PodField) -> String {
        let meta = &self.pod.meta;
        let of = |map: &StringMap, key: &str| map.get(key).map(ToString::to_string).unwrap_or_default();
        match field {
            PodField::Name => meta.name.to_string(),
            PodField::Namespace => meta.namespace.as_ref().map(ToString::to_string).unwrap_or_default(),
            PodField::Uid => meta.id.uid(self.cluster_id).to_string(),
            PodField::NodeName => self.node_name(),
            PodField::PodIp | PodField::PodIps => POD_IP_PLACE.to_owned(),
            PodField::HostIp | PodField::HostIps => HOST_IP_PLACE.to_owned(),
            PodField::Label(key) => of(&meta.labels, key),
            PodField::Annotation(key) => of(&meta.annotations, key),
            PodField::Labels => lines(&meta.labels),
            PodField::Annotations => lines(&meta.annotations),
        }
    }

    /// Whether the pod's node gives it an address.
    fn has_address(&self) -> bool {
        let node = self.pod.node.and_then(|id| self.state.nodes().get(id));
        node.is_some_and(|node| node.status.facts.connects_pods())
    }

    fn node_name(&self) -> String {
        let node = self.pod.node.and_then(|id| self.state.nodes().get(id));
        node.map(|node| node.meta.name.to_string()).unwrap_or_default()
    }

    fn resource(&self, field: &ResourceField, container: &Container) -> u64 {
        use ContainerResource::*;
        let whole = |node: ObjectId| Some(self.state.nodes().get(node)?.status.facts.allocatable);
        let node = self.pod.node.and_then(whole).unwrap_or_default();
        let (requests, limits) = (container.requests.or(container.limits), container.limits);
        let amount = match field.resource {
            RequestsCpu => requests.cpu_millis.unwrap_or(0),
            LimitsCpu => limits.cpu_millis.unwrap_or(node.cpu_millis),
            RequestsMemory => requests.memory_bytes.unwrap_or(0),
            LimitsMemory => limits.memory_bytes.unwrap_or(node.memory_bytes),
            RequestsEphemeralStorage => requests.ephemeral_storage_bytes.unwrap_or(0),
            LimitsEphemeralStorage => limits.ephemeral_storage_bytes.unwrap_or(node.ephemeral_storage_bytes),
        };
        amount.div_ceil(field.divisor.max(1))
    }
}

/// Only what stands in `data` becomes variables, as in Kubernetes.
fn texts_of(data: Data) -> impl Iterator<Item = (String, Sensitive)> {
    data.into_iter().filter(|(_, (_, is_text))| *is_text).map(|(key, (value, _))| (key, value))
}

/// A value that cannot be a variable's.
struct NotText;

impl NotText {
    fn of(&self, kind: ConfigKind, name: &str, key: &str) -> String {
        format!("key {key:?} of {} {name:?} is no text: only files may hold such bytes", kind.kind())
    }
}

fn text(value: &Sensitive) -> Result<String, NotText> {
    match std::str::from_utf8(value.reveal()) {
        Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(NotText),
    }
}

fn no_key(kind: ConfigKind, name: &str, key: &str) -> String {
    format!("{} {name:?} has no key {key:?}", kind.kind())
}

/// `key="value"`, a line each, in key order; values are quoted as Go does.
fn lines(map: &StringMap) -> String {
    map.iter().map(|(key, value)| format!("{key}={value:?}\n")).collect::<String>().trim_end().to_owned()
}
