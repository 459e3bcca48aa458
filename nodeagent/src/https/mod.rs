//! Probes and hooks that a guest hands over because they need TLS, which its program does not have: the agent asks, by a connection
//! into the guest.
//!
//! ```text
//!  guest ── AskHost ─► channel ─► Asks ─► request ─► TLS ─► GuestStream ─► ADDRESS:PORT in the guest
//!        ◄─ HostAnswer ◄──────────┘
//! ```
//! What is asked is the agent's own word for the pod; the guest only says which, and whoever answers is hostile. So: of each probe and
//! hook there is one question at a time, which ends with the probe's own time-out, takes up only connections into that guest, and
//! keeps no more than a head and a few records. What peers send is read by the parsers that read registries' answers, too.

mod tls;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use bulkhead_guest_http::{Dial, Failure, Io, Place};
use bulkhead_guest_protocol::TEXT_LENGTH_MAX;
use bulkhead_guest_protocol::guest::{AskHost, HostTask};
use bulkhead_guest_protocol::host::{
    Check, CheckConfig, ContainerConfig, HostAnswer, PodConfig, ProbeConfig,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{AbortHandle, JoinSet};

use crate::streams::GuestStreams;

/// How long a hook may take: the guest ends one that must end before, and who forgets one must not hold it for ever.
const HOOK_WITHIN: Duration = Duration::from_secs(600);
/// Bytes on the way between a question and its connection.
const PIPE_BYTES: usize = 16 << 10;

/// What the agent asks for one guest. Dropping it ends all of it.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    running: JoinSet<HostAnswer>,
    /// The question of each container and task that was asked last.
    last: BTreeMap<(String, HostTask), AbortHandle>,
}

impl Asks {
    /// Begins to ask; one of the same probe or hook that is still asked is given up.
    pub(crate) fn begin(&mut self, ask: AskHost, pod: &PodConfig, streams: &GuestStreams) {
        let (number, task) = (ask.number, ask.task());
        let mut containers = pod.init_containers.iter().chain(&pod.containers);
        let container = containers.find(|one| one.name == ask.container);
        let Some((check, within)) = container.and_then(|container| check_of(container, task)) else {
            // Nothing that the pod has: a guest that asks for it is no good one.
            return tracing::debug!(container = ask.container, "the guest asks for a probe that is none");
        };
        let host = check.asked(pod.own_address());
        let dial = InGuest { streams: streams.clone(), pumps: Mutex::default() };
        let asked = self.running.spawn(async move {
            let error = answer(&check, host, within, &dial).await.err().unwrap_or_default();
            HostAnswer { number, error }
        });
        if let Some(before) = self.last.insert((ask.container, task), asked) {
            before.abort();
        }
    }

    /// The next answer; for ever none while nothing is asked.
    pub(crate) async fn next(&mut self) -> HostAnswer {
        loop {
            match self.running.join_next().await {
                Some(Ok(answer)) => return answer,
                // It was given up.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// What a container is asked by this task, and how long that may take.
fn check_of(container: &ContainerConfig, task: HostTask) -> Option<(CheckConfig, Duration)> {
    let probe = |probe: &Option<ProbeConfig>| {
        let probe = probe.as_ref()?;
        Some((probe.check.clone()?, Duration::from_millis(probe.timeout_ms)))
    };
    let hook = |hook: &Option<CheckConfig>| Some((hook.clone()?, HOOK_WITHIN));
    match task {
        HostTask::Startup => probe(&container.startup_probe),
        HostTask::Readiness => probe(&container.readiness_probe),
        HostTask::Liveness => probe(&container.liveness_probe),
        HostTask::PostStart => hook(&container.post_start),
        HostTask::PreStop => hook(&container.pre_stop),
    }
}

/// Asks an address of the guest, within a time.
async fn answer(check: &CheckConfig, host: IpAddr, within: Duration, dial: &impl Dial) -> Result<(), String> {
    let (http, tls) = match &check.kind {
        Some(Check::Https(http)) => (http, true),
        // One that is sent on to HTTPS, which the guest cannot follow.
        Some(Check::Http(http)) => (http, false),
        _ => return Err("is no request".to_owned()),
    };
    let asked = tokio::time::timeout(within, bulkhead_guest_http::ask(http, tls, host, dial)).await;
    asked.map_err(|_| format!("no answer within {} ms", within.as_millis()))?.map_err(|failure| match failure
    {
        Failure::Text(mut text) => {
            text.truncate(text.floor_char_boundary(TEXT_LENGTH_MAX));
            text
        }
        Failure::NeedsTls => "needs TLS".to_owned(),
    })
}

/// Connections into one guest, as long as this lives.
struct InGuest {
    streams: GuestStreams,
    pumps: Mutex<JoinSet<()>>,
}

impl Dial for InGuest {
    async fn dial(&self, place: &Place) -> Result<(Io, bool), Failure> {
        let failed =
            |error: String| format!("connect to {}: {error}", SocketAddr::new(place.host, place.port));
        let own_address = !place.host.is_loopback();
        let stream = self.streams.connect_for_probe(place.port, own_address).await.map_err(failed)?;
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let pump = async move {
            let _ = crate::podio::relay::pass(&stream, far).await;
        };
        self.pumps.lock().unwrap_or_else(std::sync::PoisonError::into_inner).spawn(pump);
        connected(near, place).await
    }
}

/// Agrees on keys, where the place asks for it.
async fn connected(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: &Place,
) -> Result<(Io, bool), Failure> {
    if place.tls { Ok(tls::handshake(stream).await?) } else { Ok((Io::new(stream), false)) }
}
