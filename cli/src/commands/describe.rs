//! `describe`: one object with its events, and the pods behind it.

use std::time::Duration;

use bulkhead_proto::v1;
use bulkhead_types::{Kind, Object};
use clap::Args;

use super::device::Devices;
use super::{Context, events};
use crate::client::{Filter, pod_io};
use crate::directory::Directory;
use crate::failure::Failure;
use crate::output::{describe, emit};
use crate::target::{self, Target, object_ref};

/// Events that are shown.
const EVENTS: u32 = 20;
/// How long a pod's agent may take to say how it started.
const START_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// KIND [NAME...] or KIND/NAME...; all of the kind without a name
    #[arg(required = true, value_name = "KIND NAME")]
    what: Vec<String>,
    /// All of the kind with these labels
    #[arg(long, short = 'l', value_name = "LABELS")]
    selector: Option<String>,
}

pub(crate) async fn run(args: DescribeArgs, context: &Context) -> Result<(), Failure> {
    let mut objects = Vec::new();
    for Target { kind, name } in target::parse(&args.what)? {
        match name {
            Some(name) => {
                objects.push(context.client.get(&object_ref(kind, &context.namespace, name)).await?)
            }
            None => {
                let namespace = Some(context.namespace.clone());
                let filter = Filter {
                    namespace,
                    labels: args.selector.clone().unwrap_or_default(),
                    ..Filter::default()
                };
                objects.extend(context.client.list(kind, &filter).await?.0);
            }
        }
    }
    let directory = Directory::complete(&context.client, &objects).await?;
    for (index, object) in objects.iter().enumerate() {
        let related = related(object, context).await?;
        let history = events::of_object(&object.object_ref(), EVENTS, context).await?;
        let separator = if index > 0 { "\n\n" } else { "" };
        let more = match object {
            Object::Node(_) => {
                let devices = Devices::read(context).await?;
                let id = object.meta().id;
                let ledger = devices.of_node(id).zip(devices.slice_of_node(id).cloned());
                ledger.map(|(ledger, slice)| describe::NodeView { ledger, slice, names: devices.names() })
            }
            _ => None,
        };
        let start = start_of(object, context).await;
        let (directory, related, history) = (&directory, related.as_slice(), history.as_slice());
        let about = describe::About { directory, related, history, devices: more, start };
        emit(&format!("{separator}{}", describe::text(object, &about)))?;
    }
    Ok(())
}

/// What the start of a pod's guest spent its time with, as its node's agent says. One that cannot be asked, or is of a version that
/// does not know, leaves the rest of the description as it is.
async fn start_of(object: &Object, context: &Context) -> Option<v1::StartPhasesResponse> {
    let Object::Pod(pod) = object else { return None };
    pod.node?;
    let request = v1::StartPhasesRequest {
        namespace: pod.meta.namespace.as_ref().map(ToString::to_string).unwrap_or_default(),
        pod: pod.meta.name.to_string(),
    };
    let request = context.client.request(request);
    let asked =
        context.client.call_once(|channel| async move { pod_io(channel).start_phases(request).await });
    tokio::time::timeout(START_TIMEOUT, asked).await.ok()?.ok()
}

/// What belongs to an object: a Deployment's sets, a workload's pods, a CronJob's jobs, a node's pods.
async fn related(object: &Object, context: &Context) -> Result<Vec<Object>, Failure> {
    let meta = object.meta();
    let (kind, filter) = match object {
        Object::Deployment(_) => {
            (Kind::ReplicaSet, Filter { namespace: meta.namespace.clone(), ..Filter::default() })
        }
        Object::ElasticWorkload(_) => {
            (Kind::Deployment, Filter { namespace: meta.namespace.clone(), ..Filter::default() })
        }
        Object::CronJob(_) => (Kind::Job, Filter { namespace: meta.namespace.clone(), ..Filter::default() }),
        Object::ReplicaSet(_) | Object::StatefulSet(_) | Object::DaemonSet(_) | Object::Job(_) => {
            (Kind::Pod, Filter { namespace: meta.namespace.clone(), ..Filter::default() })
        }
        Object::PersistentVolumeClaim(_) => {
            (Kind::Pod, Filter { namespace: meta.namespace.clone(), ..Filter::default() })
        }
        Object::Node(_) => {
            (Kind::Pod, Filter { fields: format!("spec.nodeName={}", meta.name), ..Filter::default() })
        }
        Object::Namespace(_)
        | Object::Pod(_)
        | Object::ConfigMap(_)
        | Object::Secret(_)
        | Object::ControllerRevision(_)
        | Object::HorizontalPodAutoscaler(_)
        | Object::CronHorizontalPodAutoscaler(_)
        | Object::VerticalPodAutoscaler(_)
        | Object::PriorityClass(_)
        | Object::Profile(_)
        | Object::ResourceQuota(_)
        | Object::LimitRange(_)
        | Object::Department(_)
        | Object::Project(_)
        | Object::PodGroup(_)
        | Object::Queue(_)
        | Object::ElasticQuotaTree(_)
        | Object::VolumeSnapshot(_)
        | Object::StorageClass(_)
        | Object::PersistentVolume(_)
        | Object::DeviceClass(_)
        | Object::ResourceSlice(_)
        | Object::SriovNetworkNodePolicy(_)
        | Object::SriovNetwork(_)
        | Object::SriovIBNetwork(_)
        | Object::SriovNetworkNodeState(_)
        | Object::NodePool(_)
        | Object::NodeOperation(_)
        | Object::DeschedulerPolicy(_)
        | Object::PodDisruptionBudget(_) => return Ok(Vec::new()),
    };
    let (mut objects, _) = context.client.list(kind, &filter).await?;
    if let Object::PersistentVolumeClaim(_) = object {
        let uses = |pod: &Object| matches!(pod, Object::Pod(pod) if pod.spec.claims().any(|name| *name == *meta.name.as_str()));
        objects.retain(uses);
    } else if !matches!(object, Object::Node(_)) {
        objects.retain(|o| o.meta().owner.is_some_and(|owner| owner.id == meta.id));
    }
    Ok(objects)
}
