//! Reading and watching. Lists have one item a page, so that paging is always at work.

use bulkhead_proto::v1;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use tonic::{Request, Response, Status};

use super::Fake;
use super::objects::{key, kind, meta};

#[tonic::async_trait]
impl v1::queries_server::Queries for Fake {
    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let request = request.into_inner();
        let state = self.state();
        match state.objects.get(&key(request.kind, &request.namespace, &request.name)) {
            Some(object) => {
                Ok(Response::new(v1::GetResponse { object: Some(object.clone()), revision: state.revision }))
            }
            None => Err(Status::not_found(format!("{} not found", request.name))),
        }
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        let request = request.into_inner();
        let state = self.state();
        let with_label = request.label_selector.split_once('=');
        let by_name = request.field_selector.strip_prefix("metadata.name=");
        let mut items = state.objects.values().filter(|o| {
            let Some(object) = &o.object else { return false };
            i32::from(kind(object)) == request.kind
                && (request.namespace.is_empty() || meta(object).namespace == request.namespace)
                && by_name.is_none_or(|name| meta(object).name == name)
                && with_label
                    .is_none_or(|(key, value)| meta(object).labels.get(key).is_some_and(|v| v == value))
        });
        // One item a page, so that paging is always at work.
        let skip = request.continue_token.parse().unwrap_or(0);
        let page: Vec<v1::Object> = items.by_ref().skip(skip).take(1).cloned().collect();
        let continue_token = if items.next().is_some() { (skip + 1).to_string() } else { String::new() };
        let revision = state.revision;
        Ok(Response::new(v1::ListResponse { items: page, revision, continue_token, remaining: None }))
    }

    type WatchStream = BoxStream<'static, Result<v1::WatchResponse, Status>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let checked = self.state().check_kept(request.from_revision);
        checked?;
        let changes = self.changes.subscribe();
        let missed: Vec<_> = {
            let state = self.state();
            let is_newer =
                |o: &&v1::Object| o.object.as_ref().is_some_and(|o| meta(o).revision > request.from_revision);
            let modified = |o: &v1::Object| {
                let revision = o.object.as_ref().map_or(0, |o| meta(o).revision);
                let r#type = v1::WatchType::Modified.into();
                Ok(v1::WatchResponse { r#type, object: Some(o.clone()), revision })
            };
            state.objects.values().filter(is_newer).map(modified).collect()
        };
        let later = stream::unfold(changes, |mut changes| async {
            match changes.recv().await {
                Ok(Some(change)) => Some((Ok(change), changes)),
                // As a connection that breaks: nothing says goodbye.
                _ => None,
            }
        });
        self.watches.send_modify(|opened| *opened += 1);
        Ok(Response::new(stream::iter(missed).chain(later).boxed()))
    }

    async fn usage(&self, request: Request<v1::UsageRequest>) -> Result<Response<v1::UsageResponse>, Status> {
        let request = request.into_inner();
        let of_kind = |one: &&v1::ObjectUsage| {
            let is_pod = request.kind == i32::from(v1::Kind::Pod);
            one.namespace.is_empty() != is_pod
                && (request.namespace.is_empty() || one.namespace == request.namespace)
        };
        // One item a page, as in `list`.
        let skip = request.continue_token.parse().unwrap_or(0);
        let all: Vec<v1::ObjectUsage> = self.state().usage.iter().filter(of_kind).cloned().collect();
        let continue_token = if all.len() > skip + 1 { (skip + 1).to_string() } else { String::new() };
        let items = all.into_iter().skip(skip).take(1).collect();
        Ok(Response::new(v1::UsageResponse { items, continue_token }))
    }

    async fn what_if(
        &self,
        request: Request<v1::WhatIfRequest>,
    ) -> Result<Response<v1::WhatIfResponse>, Status> {
        let mut state = self.state();
        state.asked.push(request.into_inner());
        Ok(Response::new(state.what_if.clone()))
    }

    async fn advise(&self, _: Request<v1::AdviseRequest>) -> Result<Response<v1::AdviseResponse>, Status> {
        Err(Status::unimplemented("advise"))
    }

    type ListEventsStream = BoxStream<'static, Result<v1::HistoryEntry, Status>>;

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<Self::ListEventsStream>, Status> {
        let request = request.into_inner();
        let kept = {
            let state = self.state();
            state.check_kept(request.from_revision)?;
            let is_later = |entry: &&v1::HistoryEntry| entry.revision > request.from_revision;
            state.history.iter().filter(is_later).cloned().collect::<Vec<_>>()
        };
        let of_object = |entry| Ok(v1::HistoryEntry { object: request.object.clone(), ..entry });
        // Streams that follow end when they have sent what there is, as a connection that breaks.
        Ok(Response::new(stream::iter(kept.into_iter().map(of_object).collect::<Vec<_>>()).boxed()))
    }
}
