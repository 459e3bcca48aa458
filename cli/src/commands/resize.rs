//! `resize`: other amounts of cpu and memory for a container of a pod that runs.

use bulkhead_types::{
    Command, ContainerSize, Kind, Object, Pod, PodResize, Precondition, ResizeStage, ResourceRequirements,
    parse_millis, parse_units,
};
use clap::Args;

use super::Context;
use crate::failure::Failure;
use crate::output::emit_line;
use crate::target::{self, slash_name};

#[derive(Debug, Args)]
pub(crate) struct ResizeArgs {
    /// `pod NAME` or `pod/NAME`
    #[arg(required = true, value_name = "pod NAME")]
    what: Vec<String>,
    /// Which container; may be left out where the pod has one
    #[arg(long, short = 'c')]
    container: Option<String>,
    /// Most processor time, such as 500m or 2
    #[arg(long, value_name = "AMOUNT")]
    cpu: Option<String>,
    /// Most memory, such as 256Mi
    #[arg(long, value_name = "AMOUNT")]
    memory: Option<String>,
    /// Processor time that is reserved; as the limit where the pod says no request
    #[arg(long, value_name = "AMOUNT")]
    request_cpu: Option<String>,
    /// Memory that is reserved; as the limit where the pod says no request
    #[arg(long, value_name = "AMOUNT")]
    request_memory: Option<String>,
    /// Only if the pod still has this revision
    #[arg(long)]
    revision: Option<u64>,
}

/// One option's amount.
fn amount<E: std::fmt::Display>(
    option: &str,
    text: Option<&String>,
    parse: fn(&str) -> Result<u64, E>,
) -> Result<Option<u64>, Failure> {
    let parsed = text.map(|text| parse(text).map_err(|error| Failure::usage(format!("{option}: {error}"))));
    parsed.transpose()
}

impl ResizeArgs {
    /// What changes of the container that is named, or the only one.
    fn change(&self, pod: &Pod) -> Result<ContainerSize, Failure> {
        let name = match (&self.container, pod.spec.containers.as_slice()) {
            (Some(name), _) => name.as_str().into(),
            (None, [one]) => one.name.clone(),
            (None, several) => {
                let names: Vec<&str> = several.iter().map(|one| one.name.as_str()).collect();
                let reason = format!("--container is needed: the pod has {}", names.join(", "));
                return Err(Failure::usage(reason));
            }
        };
        let amounts = |cpu_millis, memory_bytes| ResourceRequirements {
            cpu_millis,
            memory_bytes,
            ephemeral_storage_bytes: None,
        };
        let limits = amounts(
            amount("--cpu", self.cpu.as_ref(), parse_millis)?,
            amount("--memory", self.memory.as_ref(), parse_units)?,
        );
        let requests = amounts(
            amount("--request-cpu", self.request_cpu.as_ref(), parse_millis)?,
            amount("--request-memory", self.request_memory.as_ref(), parse_units)?,
        );
        let nothing = ResourceRequirements::default();
        if limits == nothing && requests == nothing {
            return Err(Failure::usage("say --cpu, --memory, --request-cpu or --request-memory"));
        }
        Ok(ContainerSize { name, requests, limits })
    }
}

/// What a user is told of where a resize stands.
fn told(resize: Option<&PodResize>) -> String {
    match resize {
        None => "resized".to_owned(),
        Some(resize) => match resize.stage {
            ResizeStage::InProgress => "resize is in progress".to_owned(),
            ResizeStage::Deferred => format!("resize is deferred until there is room: {}", resize.message),
            ResizeStage::Infeasible => format!("resize is infeasible: {}", resize.message),
        },
    }
}

pub(crate) async fn run(args: ResizeArgs, context: &Context) -> Result<(), Failure> {
    let objects = target::parse_named(&args.what, &context.namespace)?;
    let [reference] = objects.as_slice() else {
        return Err(Failure::usage("one pod is resized at a time"));
    };
    if reference.kind != Kind::Pod {
        return Err(Failure::usage(format!(
            "{reference} cannot be resized: only pods can; change its template, which replaces its pods"
        )));
    }
    let read = async || match context.client.get(reference).await? {
        Object::Pod(pod) => Ok(pod),
        other => Err(Failure::usage(format!("{} is no pod", other.object_ref()))),
    };
    let pod = read().await?;
    let command = Command::ResizePod { pod: reference.clone(), containers: vec![args.change(&pod)?] };
    let precondition = Precondition { object: reference.clone(), revision: args.revision };
    let preconditions = if args.revision.is_some() { vec![precondition] } else { Vec::new() };
    let revision = context.client.submit(vec![command], preconditions).await?;
    context.note_change(revision);
    emit_line(&format!("{} {}", slash_name(reference), told(read().await?.resize())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_manifests_say_them() {
        let parse = |text: &str| amount("--memory", Some(&text.to_owned()), parse_units).ok().flatten();
        assert_eq!((parse("256Mi"), parse("lots")), (Some(256 << 20), None));
        let cpu = |text: &str| amount("--cpu", Some(&text.to_owned()), parse_millis).ok().flatten();
        assert_eq!((cpu("500m"), cpu("2"), cpu("")), (Some(500), Some(2000), None));
    }

    #[test]
    fn who_resizes_is_told_where_that_stands() {
        let resize = |stage| PodResize { desired: Vec::new(), stage, message: "no cpu".into(), since_ms: 1 };
        assert_eq!(told(None), "resized");
        assert_eq!(told(Some(&resize(ResizeStage::InProgress))), "resize is in progress");
        assert!(told(Some(&resize(ResizeStage::Deferred))).ends_with("room: no cpu"));
        assert!(told(Some(&resize(ResizeStage::Infeasible))).ends_with("infeasible: no cpu"));
    }
}
