//! Numbers for autoscalers from a metrics endpoint that speaks Prometheus' query language.
//!
//! Only the leader asks, off the node thread: what is to be asked is a pure function of the State, and the answers are
//! soft state of the leader. The endpoint is not trusted: time, size and number of answers are bounded, and whatever is
//! wrong with one is told to the autoscalers that wait for it.
//!
//! Source: "HTTP API, Instant queries" in the Prometheus documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bulkhead_controlplane_core::autoscale::queries;
use bulkhead_controlplane_core::reconcile::{MetricAnswer, MetricSample};
use bulkhead_controlplane_core::server::Input;
use bulkhead_types::AMOUNT_MAX;
use futures::StreamExt as _;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use serde::Deserialize;
use smol_str::SmolStr;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::api::Api;

/// Time from one round of queries to the next: autoscalers look every 15 s.
const ROUND: Duration = Duration::from_secs(10);
/// How long all of a round's queries may take together: what was not asked by then is told so.
const ROUND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one query may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// Queries under way at a time.
const PARALLEL_MAX: usize = 8;
/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Most numbers of an answer that are read.
const SAMPLES_MAX: usize = 20_000;
/// Most of an endpoint's own words that are kept, in characters.
const WORDS_MAX: usize = 200;
/// What autoscalers are told when nobody set an endpoint up.
const NO_ENDPOINT: &str =
    "no metrics endpoint is set up: start the servers with --metrics-endpoint and the URL of a Prometheus";

/// Where numbers come from.
#[derive(Clone, Debug)]
pub(crate) struct MetricsEndpoint {
    client: Client,
    query: Url,
}

/// The URL of a metrics endpoint is not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is no metrics endpoint: {reason}")]
pub struct EndpointError {
    /// As it was given.
    url: String,
    /// What is wrong with it.
    reason: String,
}

impl MetricsEndpoint {
    /// An endpoint by its base URL, such as `http://prometheus:9090`.
    ///
    /// # Errors
    /// When it is no URL of that kind.
    pub(crate) fn new(url: &str) -> Result<Self, EndpointError> {
        let error = |reason: String| EndpointError { url: url.to_owned(), reason };
        let mut query = Url::parse(url).map_err(|e| error(e.to_string()))?;
        if query.scheme() != "http" {
            return Err(error(
                "only http is spoken with it: put a proxy before one that wants https".to_owned(),
            ));
        }
        let path = format!("{}/api/v1/query", query.path().trim_end_matches('/'));
        query.set_path(&path);
        // It speaks no TLS here. Where another part of the program lets the same library speak it, the library wants to know
        // who does the cryptography before it makes any client; who said so first is right.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Nobody else is asked than whom the operator named, neither by a redirection nor by a variable for proxies.
        let client = Client::builder().timeout(QUERY_TIMEOUT).redirect(Policy::none()).no_proxy();
        Ok(Self { client: client.build().map_err(|e| error(e.to_string()))?, query })
    }

    /// Asks everything, each query for itself, until the deadline.
    async fn ask_all(&self, queries: BTreeSet<String>, deadline: Instant) -> Vec<(String, MetricAnswer)> {
        let ask = |query: String| async move {
            let late =
                || Err("not answered in time: there are too many queries, or they are slow".to_owned());
            let answer = match Instant::now() < deadline {
                true => timeout_at(deadline, self.ask(&query)).await.unwrap_or_else(|_| late()),
                false => late(),
            };
            (query, answer)
        };
        futures::stream::iter(queries).map(ask).buffer_unordered(PARALLEL_MAX).collect().await
    }

    async fn ask(&self, query: &str) -> MetricAnswer {
        let mut url = self.query.clone();
        url.query_pairs_mut().append_pair("query", query);
        // The URL is as long as the question: what failed is told without it.
        let told = |error: reqwest::Error| cut(&error.without_url().to_string());
        let mut response = self.client.get(url).send().await.map_err(told)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(told)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(format!("the answer is longer than {ANSWER_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        read_answer(&body).map_err(|reason| match response.status().is_success() {
            true => reason,
            false => format!("{}: {reason}", response.status()),
        })
    }
}

/// Asks as long as the server runs, and whenever it leads.
pub(crate) async fn run(api: Api, endpoint: Option<MetricsEndpoint>) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let own = api.identity.member;
        let leads = api.views.status.borrow().as_ref().is_some_and(|status| status.leader == Some(own));
        let wanted = if leads { queries(&api.views.state()) } else { BTreeSet::new() };
        if wanted.is_empty() {
            continue;
        }
        let answers = match &endpoint {
            Some(endpoint) => endpoint.ask_all(wanted, Instant::now() + ROUND_TIMEOUT).await,
            None => wanted.into_iter().map(|query| (query, Err(NO_ENDPOINT.to_owned()))).collect(),
        };
        let failed = answers.iter().filter(|(_, answer)| answer.is_err()).count();
        tracing::debug!(asked = answers.len(), failed, "metrics endpoint asked");
        if api.handle.tell(Input::Metrics { answers }).await.is_err() {
            return;
        }
    }
}

#[derive(Deserialize)]
struct Envelope {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Series>),
    Scalar(Point),
}

#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    value: Point,
}

/// When, and how much: the latter in quotes, because it may be `NaN` or `+Inf`.
#[derive(Deserialize)]
struct Point(#[expect(dead_code, reason = "the answer is as young as the question")] f64, String);

fn read_answer(body: &[u8]) -> MetricAnswer {
    let envelope: Envelope = serde_json::from_slice(body)
        .map_err(|error| format!("the answer is none of Prometheus: {}", cut(&error.to_string())))?;
    if envelope.status != "success" {
        return Err(format!("the endpoint says: {}", cut(&envelope.error)));
    }
    let series = match envelope.data {
        None => return Err("the answer has no data".to_owned()),
        Some(Data::Scalar(value)) => vec![Series { metric: BTreeMap::new(), value }],
        Some(Data::Vector(series)) => series,
    };
    if series.len() > SAMPLES_MAX {
        return Err(format!("the answer has {} numbers: at most {SAMPLES_MAX} are read", series.len()));
    }
    let is_of_pod = |series: &Series| series.metric.contains_key("pod");
    let (of_pods, others): (Vec<_>, Vec<_>) = series.into_iter().partition(is_of_pod);
    // What is wrong with one pod's number is that pod's matter: it is one without a metric, as if it were not there.
    let of_pods: Vec<_> = of_pods.into_iter().map(sample).collect();
    if let (Some(Err(first)), false) = (of_pods.first(), of_pods.iter().any(Result::is_ok)) {
        return Err(first.clone());
    }
    let others = others.into_iter().map(sample);
    of_pods.into_iter().filter(Result::is_ok).chain(others).collect()
}

fn sample(series: Series) -> Result<MetricSample, String> {
    let Point(_, text) = series.value;
    let value: f64 = text.parse().map_err(|_| format!("{:?} is no number", cut(&text)))?;
    if !value.is_finite() || value < 0.0 {
        return Err(format!("{value} is nothing to scale by: numbers must be finite, and not negative"));
    }
    // As large as an amount may be, which a number of this kind still holds exactly.
    let value_millis = (value * 1000.0).round().min(AMOUNT_MAX as f64) as u64;
    let pod = series.metric.get("pod").map(SmolStr::new).unwrap_or_default();
    Ok(MetricSample { pod, value_millis })
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}

#[cfg(test)]
mod tests;
