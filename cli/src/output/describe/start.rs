//! What the start of a pod's guest spent its time with.

use bulkhead_proto::v1;
use bulkhead_types::Pod;

use super::Page;

/// Steps of a start.
const COLUMNS: [&str; 3] = ["STEP", "BEGAN", "TOOK"];

/// The steps of the last start, from the pod's binding on.
pub(super) fn steps(page: &mut Page, pod: &Pod, start: &v1::StartPhasesResponse) {
    if start.phases.is_empty() {
        return;
    }
    let mut rows = Vec::new();
    // One time is the leader's and one the agent's: what their clocks differ by is in it.
    let bound_at_ms = pod.status.bound_at_ms;
    if let Some(took_ms) = start.told_at_ms.checked_sub(bound_at_ms).filter(|_| bound_at_ms > 0) {
        rows.push(["scheduled".to_owned(), format!("-{took_ms} ms"), format!("{took_ms} ms")].into());
    }
    rows.extend(start.phases.iter().map(|step| {
        let took = step.end_ms.map_or_else(
            || "goes on".to_owned(),
            |end_ms| format!("{} ms", end_ms.saturating_sub(step.begin_ms)),
        );
        vec![step.name.clone(), format!("{} ms", step.begin_ms), took]
    }));
    let title = match (start.from_pool, start.from_template) {
        (true, _) => "Start (from the pool)",
        (_, true) => "Start (from a template)",
        (false, false) => "Start",
    };
    page.section(title, |page| {
        page.table(&COLUMNS, &rows);
        if !start.booted_because.is_empty() {
            page.line("Booted for the pod", &start.booted_because);
        }
    });
}
