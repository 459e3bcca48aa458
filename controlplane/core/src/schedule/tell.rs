//! The scheduler tells pods why they wait.

use bulkhead_types::Command;

use super::reconciler::Scheduler;
use super::report;
use super::shapes::ShapeKey;
use crate::reconcile::View;

/// Pods told per run why they wait, at most.
const REPORTS_PER_RUN: usize = 2000;
/// Shapes whose reasons are counted per run, at most: each looks at every node.
const REPORTED_SHAPES_PER_RUN: usize = 32;
/// How long a pod's reason stays although the numbers in it changed, in milliseconds.
const REPORT_AGAIN_MS: u64 = 30_000;

impl Scheduler {
    /// Tells pods that no node can take why that is: each once, and again when the reason has changed.
    pub(super) fn report(&mut self, view: &View<'_>, commands: &mut Vec<Command>) {
        self.report_again_at_ms = None;
        let end = self.index.log_end();
        let mut pods = Vec::new();
        let mut looked_at = 0;
        let keys: Vec<ShapeKey> = self.shapes.waiting().map(|(key, _)| key).collect();
        for key in keys {
            let shape = self.shapes.get_mut(key).expect("a shape that was just listed");
            // A shape that this run did not get to may have candidates still unknown.
            let group = shape.group.as_ref().filter(|_| shape.is_held && shape.may_be_placed());
            let held = group.map(|group| {
                let why = self.preemptor.why(group).map_or_else(String::new, |why| format!(" {why}"));
                self.groups.message(group).map(|message| format!("{message}{why}"))
            });
            if held.as_ref().map_or_else(|| !shape.is_stuck(end), |message| message.is_none()) {
                continue;
            }
            let stale = shape.reported_position != Some(end);
            let again_at_ms = shape.reported_at_ms.saturating_add(REPORT_AGAIN_MS);
            let again = stale && view.now_ms >= again_at_ms;
            if shape.unreported.is_empty() && !again {
                self.report_again_at_ms =
                    self.report_again_at_ms.into_iter().chain(stale.then_some(again_at_ms)).min();
                continue;
            }
            if looked_at >= REPORTED_SHAPES_PER_RUN || pods.len() >= REPORTS_PER_RUN {
                self.dirty = true;
                break;
            }
            looked_at += 1;
            let message = match held.flatten() {
                Some(message) => message,
                None => {
                    let preemptor = &mut self.preemptor;
                    let preemption = match shape.tree_hold {
                        Some(_) => None,
                        None => preemptor.explain(view.state, &self.index, shape, &self.vicinity),
                    };
                    report::message(shape, &self.index, &self.vicinity, preemption)
                }
            };
            if again {
                shape.reported_at_ms = view.now_ms;
                shape.reported_position = Some(end);
                shape.unreported = shape.waiting.clone();
            }
            while pods.len() < REPORTS_PER_RUN {
                let Some(id) = shape.unreported.pop_first() else { break };
                // One for which room is kept knows that.
                let is_nominated = self.preemptor.node_of(id).is_some();
                let told =
                    is_nominated || view.state.pods().get(id).is_none_or(|pod| pod.status.message == message);
                if !told {
                    pods.push((id, message.clone()));
                }
            }
            self.dirty |= !shape.unreported.is_empty();
        }
        if !pods.is_empty() {
            self.in_flight.extend(pods.iter().map(|(id, _)| (*id, None)));
            commands.push(Command::SetPodsUnschedulable { pods });
        }
    }
}
