//! One write, to either system, through a pool of connections.

use std::sync::Arc;
use std::time::Duration;

use bulkhead_proto::v1;
use bulkhead_proto::v1::commands_client::CommandsClient;
use bulkhead_types::{Command, Kind, Name, Namespace, Object, ObjectMeta, ObjectRef};
use tonic::Status;
use tonic::transport::Channel;
use uuid::Uuid;

use super::LoadArgs;
use crate::client::channel;
use crate::commands::Context;
use crate::failure::{Class, Failure};

/// Messages and clients of etcd's API.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub(super) mod etcd {
    tonic::include_proto!("etcdserverpb");
}

/// The annotation that holds the value.
const ANNOTATION: &str = "bulkhead.io/bench";
/// Commands of one submission while namespaces are made.
const PREPARE_BATCH: usize = 100;
const ACTOR: &str = "user:bench";

/// Which system is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Bulkhead,
    Etcd,
}

/// Connections to all servers of one system.
pub(super) struct Pool {
    pub(super) peer: Peer,
    channels: Vec<Channel>,
    keys: u32,
    value_size: usize,
}

impl Pool {
    pub(super) fn new(peer: Peer, endpoints: &[String], load: &LoadArgs) -> Result<Self, Failure> {
        let connections = usize::try_from(load.connections).unwrap_or(1).max(endpoints.len());
        let channels = endpoints
            .iter()
            .cycle()
            .take(connections)
            .map(|address| channel(address))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { peer, channels, keys: load.keys, value_size: load.value_size as usize })
    }

    /// The writer of client number `client`.
    pub(super) fn writer(&self, client: usize) -> Writer {
        Writer {
            peer: self.peer,
            channel: self.channel(client),
            keys: self.keys,
            value_size: self.value_size,
            client,
            written: 0,
        }
    }

    /// The connection of client number `client`.
    pub(super) fn channel(&self, client: usize) -> Channel {
        self.channels[client % self.channels.len()].clone()
    }
}

/// One client: writes one value after the other.
pub(super) struct Writer {
    peer: Peer,
    channel: Channel,
    keys: u32,
    value_size: usize,
    client: usize,
    written: u64,
}

impl Writer {
    /// Writes the next value; returns when it is acknowledged.
    pub(super) async fn write(&mut self) -> Result<(), Status> {
        match self.peer {
            Peer::Bulkhead => {
                let request = self.next_submission(0);
                CommandsClient::new(self.channel.clone()).submit(request).await.map(drop)
            }
            Peer::Etcd => {
                let (key, value) = self.next();
                let request = etcd::PutRequest { key: key.into_bytes(), value: value.into_bytes() };
                etcd::kv_client::KvClient::new(self.channel.clone()).put(request).await.map(drop)
            }
        }
    }

    /// The next write as a submission, for streams.
    pub(super) fn next_submission(&mut self, tag: u64) -> v1::SubmitRequest {
        let (key, value) = self.next();
        let meta = v1::ObjectMeta {
            name: key,
            annotations: [(ANNOTATION.to_owned(), value)].into_iter().collect(),
            ..v1::ObjectMeta::default()
        };
        let object =
            v1::Object { object: Some(v1::object::Object::Namespace(v1::Namespace { meta: Some(meta) })) };
        v1::SubmitRequest {
            request_id: Uuid::new_v4().to_string(),
            actor: ACTOR.to_owned(),
            preconditions: vec![],
            commands: vec![v1::UserCommand { variant: Some(v1::user_command::Variant::Apply(object)) }],
            trace_context: None,
            tag,
        }
    }

    /// A key in turn, and a value that no write before had.
    fn next(&mut self) -> (String, String) {
        self.written += 1;
        let number = self.client as u64 * 31 + self.written;
        let head = format!("{}-{}-", self.client, self.written);
        let value = format!("{head}{:x<width$}", "", width = self.value_size.saturating_sub(head.len()));
        (format!("bench-{}", number % u64::from(self.keys)), value)
    }
}

/// Makes the namespaces that are written.
pub(super) async fn prepare(context: &Context, keys: u32) -> Result<(), Failure> {
    let mut missing = Vec::new();
    for key in 0..keys {
        let name = Name::new(format!("bench-{key}")).map_err(|e| Failure::failed(e.to_string()))?;
        let object = ObjectRef { kind: Kind::Namespace, namespace: None, name: name.clone() };
        match context.client.get(&object).await {
            Ok(_) => {}
            Err(failure) if failure.class == Class::NotFound => {
                let namespace = Namespace { meta: ObjectMeta::new(None, name) };
                missing.push(Command::Create(Object::Namespace(Arc::new(namespace))));
            }
            Err(failure) => return Err(failure),
        }
    }
    for batch in missing.chunks(PREPARE_BATCH) {
        context.client.submit(batch.to_vec(), vec![]).await?;
    }
    Ok(())
}

/// How a failing client waits before it goes on.
pub(super) const ERROR_PAUSE: Duration = Duration::from_millis(5);
