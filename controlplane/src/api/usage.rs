//! `Queries.Usage`: from here when this server leads, through the leader otherwise.

use bulkhead_controlplane_core::server::{CardUsage, Input, Reply, UsagePage, Used};
use bulkhead_proto::v1;
use bulkhead_proto::v1::queries_client::QueriesClient;
use bulkhead_types::{Kind, Name, Object};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::queries::{LIMIT_DEFAULT, LIMIT_MAX, continue_after, kind, selection};
use super::{Api, cards};
use crate::error::{RETRY_AFTER, invalid, unavailable};

impl Api {
    /// What the nodes' cards do, for Prometheus; nothing where this server does not lead: only the leader is told of it.
    pub(crate) async fn card_metrics(&self) -> String {
        let Ok(selection) = selection(Some(Kind::Node), "", "", "") else { return String::new() };
        let (mut nodes, mut after) = (Vec::new(), Default::default());
        loop {
            let input = |ticket| Input::Usage {
                ticket,
                selection: selection.clone(),
                after,
                limit: LIMIT_MAX as usize,
            };
            let Ok(Reply::Usage(page)) = self.handle.ask(input).await else { return String::new() };
            nodes.extend(page.items);
            match page.next {
                Some(next) => after = next,
                None => return cards::text(&nodes),
            }
        }
    }

    pub(super) async fn usage_of(
        &self,
        request: v1::UsageRequest,
        deadline: Instant,
    ) -> Result<v1::UsageResponse, Status> {
        let kind = kind(request.kind)?;
        if !matches!(kind, Kind::Pod | Kind::Node) {
            return Err(invalid("kind", format!("a {kind} uses nothing: ask for pods or nodes")));
        }
        let selection =
            selection(Some(kind), &request.namespace, &request.label_selector, &request.field_selector)?;
        let after = continue_after(&request.continue_token)?;
        let limit = if request.limit == 0 { LIMIT_DEFAULT } else { request.limit.min(LIMIT_MAX) };
        while Instant::now() < deadline {
            let input =
                |ticket| Input::Usage { ticket, selection: selection.clone(), after, limit: limit as usize };
            match timeout_at(deadline, self.handle.ask(input)).await {
                Ok(Ok(Reply::Usage(page))) => return Ok(page_to_wire(&page)),
                Ok(Ok(Reply::NotLeader(Some(leader)))) if leader != self.identity.member => {
                    let mut client = QueriesClient::new(self.proposer.channel(leader)?);
                    match timeout_at(deadline, client.usage(request.clone())).await {
                        Ok(Ok(page)) => return Ok(page.into_inner()),
                        Ok(Err(status)) if status.code() == tonic::Code::Unavailable => {}
                        Ok(Err(status)) => return Err(status),
                        Err(_) => break,
                    }
                }
                Ok(Ok(Reply::NotLeader(_))) => {}
                Ok(Ok(other)) => return Err(Self::refusal(other)),
                Ok(Err(stopped)) => return Err(unavailable(stopped.to_string())),
                Err(_) => break,
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + RETRY_AFTER)).await;
        }
        Err(unavailable("no server leads right now"))
    }
}

fn card_to_wire(card: &CardUsage) -> v1::CardUsage {
    let (namespace, name) = card.pod.clone().unzip();
    v1::CardUsage {
        usage: Some((&card.usage).into()),
        pod_namespace: namespace.flatten().as_ref().map(Name::to_string).unwrap_or_default(),
        pod_name: name.as_ref().map(Name::to_string).unwrap_or_default(),
    }
}

fn page_to_wire(page: &UsagePage) -> v1::UsageResponse {
    v1::UsageResponse {
        items: page.items.iter().map(to_wire).collect(),
        continue_token: page.next.map_or_else(String::new, |id| id.0.to_string()),
    }
}

fn to_wire(used: &Used) -> v1::ObjectUsage {
    let (meta, sample) = (used.object.meta(), &used.sample);
    let allocatable = match &used.object {
        Object::Node(node) => Some((&node.status.facts.allocatable).into()),
        _ => None,
    };
    v1::ObjectUsage {
        namespace: meta.namespace.as_ref().map(Name::to_string).unwrap_or_default(),
        name: meta.name.to_string(),
        cpu_millis: sample.cpu_millis,
        memory_bytes: sample.memory_bytes,
        window_ms: sample.window_ms,
        measured_at_ms: sample.measured_at_ms,
        containers: sample.containers.iter().map(Into::into).collect(),
        allocatable,
        devices: used.devices.iter().map(card_to_wire).collect(),
    }
}
