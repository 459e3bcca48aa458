//! Probes and hooks.

use bulkhead_types::{
    ExecAction, Hook, HttpGet, HttpHeader, Lifecycle, PROBE_FAILURE_THRESHOLD_DEFAULT,
    PROBE_PERIOD_MS_DEFAULT, PROBE_SUCCESS_THRESHOLD_DEFAULT, PROBE_TIMEOUT_MS_DEFAULT, PortRef, Probe,
    ProbeHandler, Rare,
};

use super::decoder::{Decoder, Fields, Schema};
use super::volume::one_of;
use crate::tree::{Node, Value};

const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const PROBE: Schema = Schema {
    known: &[
        "exec",
        "httpGet",
        "tcpSocket",
        "grpc",
        "initialDelaySeconds",
        "periodSeconds",
        "timeoutSeconds",
        "successThreshold",
        "failureThreshold",
        "terminationGracePeriodSeconds",
    ],
    ..Schema::EMPTY
};
const HOOKS: [&str; 3] = ["exec", "httpGet", "sleep"];
const HOOK: Schema = Schema { known: &["exec", "httpGet", "sleep", "tcpSocket"], ..Schema::EMPTY };
const LIFECYCLE: Schema =
    Schema { known: &["postStart", "preStop"], not_yet: &["stopSignal"], ..Schema::EMPTY };
const EXEC: Schema = Schema { known: &["command"], ..Schema::EMPTY };
const HTTP_GET: Schema =
    Schema { known: &["path", "port", "host", "httpHeaders", "scheme"], ..Schema::EMPTY };
/// Whether it is by TLS.
const SCHEMES: [(&str, bool); 2] = [("HTTP", false), ("HTTPS", true)];
const HEADER: Schema = Schema { known: &["name", "value"], ..Schema::EMPTY };
const TCP_SOCKET: Schema = Schema { known: &["port", "host"], ..Schema::EMPTY };
const GRPC: Schema = Schema { known: &["port", "service"], ..Schema::EMPTY };
const SLEEP: Schema = Schema { known: &["seconds"], ..Schema::EMPTY };

/// The probe in this field.
pub(super) fn probe(d: &mut Decoder<'_>, container: &Fields<'_>, name: &str) -> Rare<Probe> {
    container.get(name).and_then(|node| read_probe(d, node, &container.path(name))).into()
}

fn read_probe(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Probe> {
    let fields = d.fields(node, path, &PROBE)?;
    let initial_delay_ms = d.seconds(&fields, "initialDelaySeconds").unwrap_or_default();
    let period_ms = duration(d, &fields, "periodSeconds", PROBE_PERIOD_MS_DEFAULT);
    let timeout_ms = duration(d, &fields, "timeoutSeconds", PROBE_TIMEOUT_MS_DEFAULT);
    let success_threshold = count(d, &fields, "successThreshold", PROBE_SUCCESS_THRESHOLD_DEFAULT);
    let failure_threshold = count(d, &fields, "failureThreshold", PROBE_FAILURE_THRESHOLD_DEFAULT);
    let termination_grace_ms = d.seconds(&fields, "terminationGracePeriodSeconds");
    let (kind, inner) = one_of(d, &fields, &HANDLERS, node, path)?;
    let path = fields.path(kind);
    let handler = match kind {
        "exec" => ProbeHandler::Exec(exec(d, inner, &path)?),
        "httpGet" => ProbeHandler::HttpGet(http_get(d, inner, &path)?),
        "tcpSocket" => {
            let fields = d.fields(inner, &path, &TCP_SOCKET)?;
            let host = own_host(d, &fields);
            ProbeHandler::TcpSocket { port: port(d, &fields)?, host }
        }
        _ => {
            let fields = d.fields(inner, &path, &GRPC)?;
            if fields.get("port").is_none() {
                d.missing(&fields, "port");
            }
            let service = d.text(&fields, "service").unwrap_or_default();
            let number = d.number(&fields, "port", u64::from(u16::MAX))?;
            ProbeHandler::Grpc { port: u16::try_from(number).ok()?, service }
        }
    };
    Some(Probe {
        handler,
        initial_delay_ms,
        period_ms,
        timeout_ms,
        success_threshold,
        failure_threshold,
        termination_grace_ms,
    })
}

/// A duration that is Kubernetes' default when it is missing, or 0.
fn duration(d: &mut Decoder<'_>, fields: &Fields<'_>, name: &str, default_ms: u64) -> u64 {
    d.seconds(fields, name).filter(|ms| *ms > 0).unwrap_or(default_ms)
}

/// The same for a number.
fn count(d: &mut Decoder<'_>, fields: &Fields<'_>, name: &str, default: u32) -> u32 {
    let found = d.number(fields, name, i32::MAX as u64).filter(|count| *count > 0);
    found.and_then(|count| u32::try_from(count).ok()).unwrap_or(default)
}

/// A container's hooks.
pub(super) fn lifecycle(d: &mut Decoder<'_>, container: &Fields<'_>) -> Rare<Lifecycle> {
    let fields =
        container.get("lifecycle").and_then(|node| d.fields(node, &container.path("lifecycle"), &LIFECYCLE));
    let Some(fields) = fields else { return Rare::NONE };
    let mut read = |name: &str| fields.get(name).and_then(|node| hook(d, node, &fields.path(name)));
    let (post_start, pre_stop) = (read("postStart"), read("preStop"));
    Rare::unless_default(Lifecycle { post_start, pre_stop })
}

fn hook(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Hook> {
    let fields = d.fields(node, path, &HOOK)?;
    if fields.get("tcpSocket").is_some() {
        let reason = "is deprecated, and does nothing in Kubernetes: use exec, httpGet or sleep";
        d.fail(fields.place("tcpSocket"), &fields.path("tcpSocket"), reason);
        return None;
    }
    let (kind, inner) = one_of(d, &fields, &HOOKS, node, path)?;
    let path = fields.path(kind);
    Some(match kind {
        "exec" => Hook::Exec(exec(d, inner, &path)?),
        "httpGet" => Hook::HttpGet(http_get(d, inner, &path)?),
        _ => {
            let fields = d.fields(inner, &path, &SLEEP)?;
            if fields.get("seconds").is_none() {
                d.missing(&fields, "seconds");
            }
            Hook::Sleep { sleep_ms: d.seconds(&fields, "seconds")? }
        }
    })
}

fn exec(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<ExecAction> {
    let fields = d.fields(node, path, &EXEC)?;
    Some(ExecAction { command: d.texts(&fields, "command") })
}

fn http_get(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<HttpGet> {
    let fields = d.fields(node, path, &HTTP_GET)?;
    let host = own_host(d, &fields);
    let path = d.text(&fields, "path").filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
    let headers = d.each(&fields, "httpHeaders", header);
    let https = d.choice(&fields, "scheme", &SCHEMES).unwrap_or_default();
    Some(HttpGet { path, port: port(d, &fields)?, headers, https, host })
}

fn header(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<HttpHeader> {
    let fields = d.fields(node, path, &HEADER)?;
    let value = d.text(&fields, "value").unwrap_or_default();
    Some(HttpHeader { name: d.required_text(&fields, "name")?, value })
}

/// Which hosts there may be the types say.
fn own_host(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Rare<String> {
    d.text(fields, "host").filter(|host| !host.is_empty()).into()
}

/// A number or a name.
fn port(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Option<PortRef> {
    let Some(node) = fields.get("port") else {
        d.missing(fields, "port");
        return None;
    };
    if let Value::Text(name) = &node.value {
        return Some(PortRef::Name(name.as_str().into()));
    }
    let number = d.number(fields, "port", u64::from(u16::MAX))?;
    u16::try_from(number).ok().map(PortRef::Number)
}
