//! The cluster itself, as little of it as there may be, and logs of pods.

use bulkhead_proto::v1;
use bulkhead_types::FEATURE_LEVEL_MAX;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use tonic::{Request, Response, Status, Streaming};

use super::Fake;

#[tonic::async_trait]
impl v1::cluster_server::Cluster for Fake {
    async fn members(&self, _: Request<v1::MembersRequest>) -> Result<Response<v1::MembersResponse>, Status> {
        let state = self.state();
        Ok(Response::new(v1::MembersResponse {
            cluster_id: "00000000-0000-0000-0000-000000000001".to_owned(),
            members: vec![],
            revision: state.revision,
            feature_level: FEATURE_LEVEL_MAX - state.levels_behind,
        }))
    }
    async fn add_learner(
        &self,
        _: Request<v1::AddLearnerRequest>,
    ) -> Result<Response<v1::MembershipResponse>, Status> {
        Err(Status::unimplemented("not needed by the tests"))
    }
    async fn promote(
        &self,
        _: Request<v1::PromoteRequest>,
    ) -> Result<Response<v1::MembershipResponse>, Status> {
        Err(Status::unimplemented("not needed by the tests"))
    }
    async fn remove(
        &self,
        _: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::MembershipResponse>, Status> {
        Err(Status::unimplemented("not needed by the tests"))
    }
    async fn transfer_leader(
        &self,
        _: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        Err(Status::unimplemented("not needed by the tests"))
    }
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(v1::StatusResponse { member: 1, leader: 1, ..v1::StatusResponse::default() }))
    }
    async fn take_snapshot(
        &self,
        _: Request<v1::TakeSnapshotRequest>,
    ) -> Result<Response<v1::TakeSnapshotResponse>, Status> {
        Err(Status::unimplemented("not needed by the tests"))
    }
    async fn check(&self, _: Request<v1::CheckRequest>) -> Result<Response<v1::CheckResponse>, Status> {
        Ok(Response::new(v1::CheckResponse::default()))
    }

    type BackupStream = BoxStream<'static, Result<v1::BackupChunk, Status>>;

    /// A backup whose end gets lost on the way.
    async fn backup(&self, _: Request<v1::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let chunk = v1::BackupChunk { data: b"BULKHEAD BACKUP\n\x01".as_slice().into() };
        Ok(Response::new(stream::iter([Ok(chunk)]).boxed()))
    }
    async fn set_feature_level(
        &self,
        _: Request<v1::SetFeatureLevelRequest>,
    ) -> Result<Response<v1::SetFeatureLevelResponse>, Status> {
        Err(Status::unimplemented("not needed by the tests"))
    }
}

#[tonic::async_trait]
impl v1::pod_io_server::PodIo for Fake {
    type LogsStream = BoxStream<'static, Result<v1::LogChunk, Status>>;
    type ExecStream = BoxStream<'static, Result<v1::ExecResponse, Status>>;
    type PortForwardStream = BoxStream<'static, Result<v1::PortForwardResponse, Status>>;

    /// A command that says what it was asked for, what it read once its input has ended, and ends with 3. Without a
    /// container it is refused.
    async fn exec(
        &self,
        request: Request<Streaming<v1::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        use v1::exec_request::Message as Asked;
        use v1::exec_response::Message as Answer;
        let mut requests = request.into_inner();
        let Some(v1::ExecRequest { message: Some(Asked::Start(start)) }) = requests.message().await? else {
            return Err(Status::invalid_argument("no start"));
        };
        let Some(v1::exec_start::What::Command(command)) = start.what else {
            return Err(Status::unimplemented("not needed by the tests"));
        };
        if start.container == "stopped" {
            return Err(Status::failed_precondition("container stopped does not run"));
        }
        let asked = format!("{} {:?} stdin={} tty={}\n", start.pod, command.argv, command.stdin, command.tty);
        // The answer's head comes before the client has sent any input.
        let answers = async move {
            let mut read = Vec::new();
            while let Ok(Some(v1::ExecRequest { message: Some(Asked::Stdin(data)) })) =
                requests.message().await
            {
                read.extend(data);
            }
            let answer = |answer| Ok(v1::ExecResponse { message: Some(answer) });
            stream::iter([
                answer(Answer::Stdout(asked.into())),
                answer(Answer::Stderr(read.into())),
                answer(Answer::Exit(v1::ExecExit { code: 3 })),
            ])
        };
        Ok(Response::new(stream::once(answers).flatten().boxed()))
    }

    async fn port_forward(
        &self,
        _: Request<Streaming<v1::PortForwardRequest>>,
    ) -> Result<Response<Self::PortForwardStream>, Status> {
        Err(Status::unimplemented("not needed by the tests"))
    }

    /// A start whose output has not come yet, of a pod that was bound 12 ms before.
    async fn start_phases(
        &self,
        _: Request<v1::StartPhasesRequest>,
    ) -> Result<Response<v1::StartPhasesResponse>, Status> {
        let step = |name: &str, begin_ms, end_ms| v1::StartPhase { name: name.to_owned(), begin_ms, end_ms };
        let phases =
            vec![step("image", 0, Some(3)), step("kernel", 150, Some(1_350)), step("output", 1_700, None)];
        let booted_because = "its guest is of another size than those of the pool".to_owned();
        Ok(Response::new(v1::StartPhasesResponse {
            told_at_ms: 1_012,
            phases,
            booted_because,
            ..v1::StartPhasesResponse::default()
        }))
    }

    async fn logs(&self, _: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let chunk = |data: &'static str, time_ms| {
            Ok(v1::LogChunk { data: data.into(), time_ms, stream: v1::LogStream::Stdout.into() })
        };
        let chunks =
            [chunk("hello ", 1), chunk("world\n", 2), chunk("second\nthi", 1000), chunk("rd\n", 1001)];
        Ok(Response::new(stream::iter(chunks).boxed()))
    }
}
