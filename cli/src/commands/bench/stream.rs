//! Streamed submissions: many in flight on few streams.

use std::time::Instant;

use bulkhead_proto::v1;
use bulkhead_proto::v1::commands_client::CommandsClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::load::Sample;
use super::writer::{Pool, Writer};
use super::{LoadArgs, StreamArgs};
use crate::failure::Failure;

/// Fills all streams for a while.
pub(super) async fn run(pool: &Pool, stream: StreamArgs, load: &LoadArgs) -> Result<Sample, Failure> {
    let begin = Instant::now() + load.warm_up;
    let end = begin + load.duration;
    let window = stream.window as usize;
    let tasks: Vec<_> = (0..stream.streams as usize)
        .map(|number| tokio::spawn(drive(pool.channel(number), pool.writer(number), window, begin, end)))
        .collect();
    let mut sample = Sample::new();
    for task in tasks {
        let one = task.await.map_err(|e| Failure::failed(format!("a stream failed: {e}")))??;
        sample.merge_parallel(&one);
    }
    sample.seconds = load.duration.as_secs_f64();
    sample.checked()
}

/// One stream: keeps `window` submissions in flight. A tag is the place of a submission's start time.
async fn drive(
    channel: Channel,
    mut writer: Writer,
    window: usize,
    begin: Instant,
    end: Instant,
) -> Result<Sample, Failure> {
    let (requests, receiver) = mpsc::channel(window);
    let mut started = vec![begin; window];
    for (tag, at) in started.iter_mut().enumerate() {
        *at = Instant::now();
        send(&requests, writer.next_submission(tag as u64)).await?;
    }
    let mut answers =
        CommandsClient::new(channel).submit_stream(ReceiverStream::new(receiver)).await?.into_inner();
    let mut sample = Sample::new();
    loop {
        let answer = tokio::time::timeout_at(end.into(), answers.message()).await;
        let Ok(answer) = answer else { return Ok(sample) };
        let Some(answer) = answer? else { return Err(Failure::failed("the server ended the stream")) };
        let Some(at) = started.get_mut(answer.tag as usize) else {
            return Err(Failure::failed(format!(
                "the server answered tag {} that was never sent",
                answer.tag
            )));
        };
        let now = Instant::now();
        match answer.result {
            Some(v1::submit_stream_response::Result::Revision(_)) if now >= begin => sample.record(now - *at),
            Some(v1::submit_stream_response::Result::Revision(_)) => {}
            Some(v1::submit_stream_response::Result::Error(e)) => {
                sample
                    .record_error(&tonic::Status::failed_precondition(format!("{}: {}", e.field, e.reason)));
            }
            Some(v1::submit_stream_response::Result::Retry(retry)) => {
                sample.record_error(&tonic::Status::unavailable(retry.reason));
            }
            None => return Err(Failure::failed("the server's answer says nothing")),
        }
        *at = Instant::now();
        send(&requests, writer.next_submission(answer.tag)).await?;
    }
}

async fn send(requests: &mpsc::Sender<v1::SubmitRequest>, request: v1::SubmitRequest) -> Result<(), Failure> {
    requests.send(request).await.map_err(|_| Failure::failed("the stream ended"))
}
