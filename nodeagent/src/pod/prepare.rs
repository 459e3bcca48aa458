//! The images of a pod, with the credentials that its Secrets and its node have for them.

use std::sync::{Arc, PoisonError};

use bulkhead_nodeagent_core::{Input, StartPhase, reason};
use bulkhead_types::{Container, ImagePullPolicy, PodIntent};
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use smol_str::SmolStr;
use tokio::sync::mpsc;

use super::Images;
use crate::error::chain;
use crate::host::Host;
use crate::image::{ImageError, Keyring, PullPolicy};
use crate::steps::{Step, passed};

/// Gets the images of all containers side by side, and tells of each in the containers' order; ends at the first that fails, and
/// stops the others.
pub(super) async fn run(host: Arc<Host>, pod: PodIntent, images: Images, inputs: mpsc::Sender<Input>) {
    host.starts.start(pod.id, StartPhase::Image);
    let all = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let containers: Vec<Container> = all.cloned().collect();
    let last = containers.last().map(|container| container.name.clone());
    let keyring = Keyring::of_pod(pod.pull_credentials.get(), host.registry_config.as_deref()).await;
    if let Some(problem) = keyring.problem() {
        tracing::warn!(pod = %pod.name, namespace = %pod.namespace, %problem, "credentials for the pod's images");
    }
    let pull = async |container: Container| {
        let pulled = host.images.pull(&container.image, policy(&container), &keyring).await;
        (container, pulled)
    };
    let mut pulls: FuturesOrdered<_> = containers.into_iter().map(pull).collect();
    while let Some((container, pulled)) = pulls.next().await {
        let input = match pulled {
            Ok(image) => {
                let digest = SmolStr::new(image.digest.to_string());
                let mut held = images.lock().unwrap_or_else(PoisonError::into_inner);
                held.insert(container.name.to_string(), image);
                Input::ImageReady { pod: pod.id, container: container.name.clone(), digest }
            }
            Err(error) => Input::ImageFailed {
                pod: pod.id,
                container: container.name.clone(),
                reason: SmolStr::new_static(why(&error)),
                message: match keyring.problem() {
                    Some(problem) => format!("{}; {problem}", chain(&error)),
                    None => chain(&error),
                },
            },
        };
        let failed = matches!(input, Input::ImageFailed { .. });
        if !failed && last.as_ref() == Some(&container.name) {
            host.starts.end(pod.id, StartPhase::Image, Some(StartPhase::Room));
        }
        if inputs.send(input).await.is_err() || failed {
            return;
        }
    }
    passed(Step::ImagesReady);
}

fn policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy {
        ImagePullPolicy::IfNotPresent => PullPolicy::IfNotPresent,
        ImagePullPolicy::Always => PullPolicy::Always,
        ImagePullPolicy::Never => PullPolicy::Never,
    }
}

fn why(error: &ImageError) -> &'static str {
    match error {
        ImageError::DigestMismatch { .. } | ImageError::SizeMismatch { .. } => reason::IMAGE_DIGEST_MISMATCH,
        // Kubernetes' word.
        ImageError::InvalidName { .. } => "InvalidImageName",
        error if super::start::is_full(error) => reason::DISK_PRESSURE,
        _ => reason::ERR_IMAGE_PULL,
    }
}
