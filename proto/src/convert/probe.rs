//! Probes and hooks.

use bulkhead_types::{ExecAction, Hook, HttpGet, HttpHeader, Lifecycle, PortRef, Probe, ProbeHandler};

use super::{wire_field, wire_oneof, wire_struct, wire_variant_message};
use crate::v1;
use crate::v1::{hook, port_ref, probe_handler};

wire_struct!(Probe => v1::Probe {
    handler, initial_delay_ms, period_ms, timeout_ms, success_threshold, failure_threshold, termination_grace_ms,
});
wire_struct!(Lifecycle => v1::Lifecycle { post_start, pre_stop });
wire_struct!(ExecAction => v1::ExecAction { command });
wire_struct!(HttpGet => v1::HttpGet { path, port, headers, https, host });
wire_struct!(HttpHeader => v1::HttpHeader { name, value });

wire_oneof!(ProbeHandler => probe_handler {
    values { Exec "exec", HttpGet "http_get" }
    messages {
        TcpSocket "tcp_socket" { port, host }
        Grpc "grpc" { port, service }
    }
});
wire_oneof!(Hook => hook {
    values { Exec "exec", HttpGet "http_get" }
    messages { Sleep "sleep" { sleep_ms } }
});
wire_oneof!(PortRef => port_ref {
    values { Number "number", Name "name" }
    messages {}
});
wire_variant_message! {
    ProbeHandler => v1::ProbeHandler,
    Hook => v1::Hook,
    PortRef => v1::PortRef,
}
wire_field! {
    Probe => v1::Probe,
    Lifecycle => v1::Lifecycle,
    ExecAction => v1::ExecAction,
    HttpGet => v1::HttpGet,
    HttpHeader => v1::HttpHeader,
}
