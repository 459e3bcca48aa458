//! `Queries.Advise`: which pool of nodes to grow, and which nodes could go.

use bulkhead_controlplane_core::what_if::{Advice, AdviceQuestion, Expander, GROWTH_MAX, advise};
use bulkhead_proto::v1;
use bulkhead_types::Revision;
use smol_str::SmolStr;
use tokio::time::Instant;
use tonic::Status;

use super::Api;
use crate::error::invalid;

/// Priorities of pools that a request may name, at most.
const PRIORITIES_MAX: usize = 1000;

impl Api {
    pub(super) async fn advice(
        &self,
        request: v1::AdviseRequest,
        deadline: Instant,
    ) -> Result<v1::AdviseResponse, Status> {
        let question = question(&request)?;
        let state = self.state_at(request.at_revision, deadline).await?;
        let (revision, now_ms) = (state.revision(), state.now_ms());
        let trial = move |may_go_on: &mut dyn FnMut() -> bool| advise(&state, &question, now_ms, may_go_on);
        Ok(wire(self.in_turn(deadline, trial).await?, revision))
    }
}

fn question(request: &v1::AdviseRequest) -> Result<AdviceQuestion, Status> {
    let default = AdviceQuestion::default();
    let given = |value: u32, default: u32| if value == 0 { default } else { value };
    let growth_max = given(request.growth_max, default.growth_max);
    if growth_max > GROWTH_MAX {
        return Err(invalid("growth_max", format!("is {growth_max}: at most {GROWTH_MAX}")));
    }
    let idle_percent = given(request.idle_percent, default.idle_percent);
    if idle_percent > 100 {
        return Err(invalid("idle_percent", format!("is {idle_percent}: at most 100")));
    }
    if request.priorities.len() > PRIORITIES_MAX {
        return Err(invalid("priorities", format!("names more than {PRIORITIES_MAX} pools")));
    }
    let expander = match v1::Expander::try_from(request.expander) {
        Ok(v1::Expander::Unspecified | v1::Expander::LeastWaste) => Expander::LeastWaste,
        Ok(v1::Expander::Priority) => {
            let priorities = request.priorities.iter();
            Expander::Priority(priorities.map(|(pool, value)| (SmolStr::new(pool), *value)).collect())
        }
        Ok(v1::Expander::MostPods) => Expander::MostPods,
        Ok(v1::Expander::Random) => Expander::Random(request.seed),
        Err(_) => return Err(invalid("expander", format!("{} is unknown", request.expander))),
    };
    Ok(AdviceQuestion { expander, growth_max, idle_percent })
}

fn wire(advice: Advice, revision: Revision) -> v1::AdviseResponse {
    let growth = advice.growth.into_iter().map(|one| v1::PoolGrowth {
        pool: one.pool.to_string(),
        like: one.like.to_string(),
        nodes: one.nodes,
        pods: one.pods,
        left: one.left,
        waste_permille: one.waste_permille,
    });
    let removals = advice.removals.into_iter().map(|one| v1::NodeRemoval {
        node: one.node.to_string(),
        used_percent: one.used_percent,
        pods: one.pods,
        obstacle: one.obstacle.unwrap_or_default(),
    });
    v1::AdviseResponse {
        revision,
        waiting: advice.waiting,
        growth: growth.collect(),
        removals: removals.collect(),
        is_whole: advice.is_whole,
    }
}
