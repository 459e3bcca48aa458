//! What users want done, one command after the other.

use std::collections::HashMap;

use bulkhead_proto::v1;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::objects::key_of_ref;
use super::{Fake, Kind};

/// What a server says of an eviction that a budget does not allow.
fn kept_by_a_budget() -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("NOT_ALLOWED", "bulkhead.io", HashMap::<String, String>::new());
    let text = "PodDisruptionBudget web does not allow it";
    Status::with_error_details(Code::FailedPrecondition, text, details)
}

impl Fake {
    fn run(&self, command: v1::user_command::Variant) -> Result<(), Status> {
        use v1::user_command::Variant;
        match command {
            Variant::Create(object) | Variant::Apply(object) => {
                self.put(object.object.ok_or_else(|| Status::invalid_argument("no object"))?);
            }
            Variant::Delete(delete) => {
                let object = delete.object.unwrap_or_default();
                let found = self.state().objects.contains_key(&key_of_ref(&object));
                if !found {
                    return Err(Status::not_found("gone"));
                }
                if !self.state().delete_slowly {
                    self.remove(&object.name);
                }
            }
            Variant::Evict(evict) => {
                let pod = evict.pod.unwrap_or_default();
                let mut state = self.state();
                if !state.objects.contains_key(&key_of_ref(&pod)) {
                    return Err(Status::not_found("gone"));
                }
                if state.refuse_evictions > 0 {
                    state.refuse_evictions -= 1;
                    return Err(kept_by_a_budget());
                }
                drop(state);
                self.remove(&pod.name);
            }
            Variant::Scale(scale) => {
                let object = scale.object.unwrap_or_default();
                let replicas = Some(scale.replicas);
                if object.kind() == v1::Kind::StatefulSet {
                    let change =
                        |set: &mut v1::StatefulSet| set.spec.get_or_insert_default().replicas = replicas;
                    self.change_stateful_set(&object.name, change);
                } else {
                    let change = |d: &mut v1::Deployment| d.spec.get_or_insert_default().replicas = replicas;
                    self.change_deployment(&object.name, change);
                }
            }
            // What becomes of it is the server's.
            Variant::RestartRollout(_) | Variant::UndoRollout(_) => {}
            Variant::PromoteRollout(_) | Variant::AbortRollout(_) | Variant::RetryRollout(_) => {}
            Variant::SetStopped(set) => {
                let name = set.object.unwrap_or_default().name;
                self.change_deployment(&name, |d| d.spec.get_or_insert_default().stopped = set.stopped);
            }
            Variant::SetSuspended(set) => {
                let name = set.object.unwrap_or_default().name;
                self.change_job(&name, |job| job.spec.get_or_insert_default().suspend = set.suspended);
            }
            Variant::RunCronJob(run) => {
                let cron_job = self.state().object(&run.cron_job.unwrap_or_default().name).cloned();
                let Some(Kind::CronJob(cron_job)) = cron_job else {
                    return Err(Status::not_found("no such CronJob"));
                };
                let mut meta = cron_job.meta.unwrap_or_default();
                (meta.name, meta.id, meta.revision) = (run.name, 0, 0);
                let spec = cron_job.spec.and_then(|spec| spec.job_template).and_then(|t| t.spec);
                self.put(Kind::Job(v1::Job { meta: Some(meta), spec, status: None }));
            }
            other => return self.run_on_nodes(other),
        }
        Ok(())
    }

    fn run_on_nodes(&self, command: v1::user_command::Variant) -> Result<(), Status> {
        use v1::user_command::Variant;
        let change = |name: &str, change: &dyn Fn(&mut v1::NodeSpec)| {
            let found = self.state().object(name).cloned();
            let Some(Kind::Node(mut node)) = found else { return Err(Status::not_found("no such node")) };
            change(node.spec.get_or_insert_default());
            self.put(Kind::Node(node));
            Ok(())
        };
        match command {
            Variant::SetUnschedulable(set) => {
                change(&set.node, &|spec| spec.unschedulable = set.unschedulable)
            }
            Variant::SetGpuMode(set) => change(&set.node, &|spec| spec.gpu = set.gpu.clone()),
            Variant::ControlNodeOperation(control) => {
                self.state().controls.push(control);
                Ok(())
            }
            _ => Err(Status::unimplemented("not needed by the tests")),
        }
    }
}

#[tonic::async_trait]
impl v1::commands_server::Commands for Fake {
    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        let traceparent =
            request.metadata().get("traceparent").and_then(|t| t.to_str().ok()).unwrap_or_default();
        let traceparent = traceparent.to_owned();
        let request = request.into_inner();
        {
            let mut state = self.state();
            state.request_ids.push(request.request_id.clone());
            if request.actor == "user:test" {
                state.traceparents.push(traceparent);
            }
            if state.conflict {
                return Err(Status::aborted("somebody else changed it"));
            }
            if state.refuse_submissions > 0 {
                state.refuse_submissions -= 1;
                return Err(Status::unavailable("no leader"));
            }
        }
        for command in request.commands {
            self.run(command.variant.ok_or_else(|| Status::invalid_argument("no command"))?)?;
        }
        let revision = self.state().revision;
        Ok(Response::new(v1::SubmitResponse { revision, request_id: request.request_id }))
    }

    type SubmitStreamStream = BoxStream<'static, Result<v1::SubmitStreamResponse, Status>>;

    async fn submit_stream(
        &self,
        request: Request<Streaming<v1::SubmitRequest>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        let fake = self.clone();
        let answers = request.into_inner().map(move |request| {
            let request = request?;
            for command in request.commands {
                fake.run(command.variant.ok_or_else(|| Status::invalid_argument("no command"))?)?;
            }
            let revision = fake.state().revision;
            let result = Some(v1::submit_stream_response::Result::Revision(revision));
            Ok(v1::SubmitStreamResponse { tag: request.tag, result })
        });
        Ok(Response::new(answers.boxed()))
    }
}
