//! Where a delivery by steps stands.

use bulkhead_types::{DeliveryStep, Deployment};

use super::stage::Stage;
use crate::time::rfc3339;

/// Where the delivery stands that is under way, if one is.
pub(super) fn stage(deployment: &Deployment) -> Option<Stage> {
    let (spec, status, name) = (&deployment.spec, &deployment.status, &deployment.meta.name);
    let delivery = spec.delivery.get()?;
    let stand = status.delivery.get().filter(|stand| stand.is_under_way())?;
    if stand.is_aborted() {
        return Some(Stage::Stuck(format!(
            "deployment \"{name}\" gave its new template up ({}): ReplicaSet \"{}\" stays; begin anew with \
             `bulkhead rollout retry deployment/{name}`",
            stand.abort_reason, stand.stable
        )));
    }
    let steps = delivery.steps(spec.replicas);
    let going = |what: String| {
        let place = format!("step {} of {steps}", stand.step + 1);
        Some(Stage::Going(format!("Waiting for deployment \"{name}\" rollout to finish: {place}: {what}...")))
    };
    let since = rfc3339(stand.step_started_ms);
    match delivery.step(stand.step, spec.replicas) {
        Some(DeliveryStep::Size(size)) => {
            going(format!("{} out of {size} new replicas have been updated", status.updated_replicas))
        }
        Some(DeliveryStep::Pause(None)) => going(format!("paused since {since} until it is promoted")),
        Some(DeliveryStep::Pause(Some(ms))) => {
            let until = rfc3339(stand.step_started_ms.saturating_add(ms));
            going(format!("paused since {since} until {until}"))
        }
        None => {
            let goal = delivery.goal(spec.replicas);
            let there = status.updated_replicas >= goal && status.available_replicas >= spec.replicas;
            let partitioned = goal < spec.replicas && there && status.replicas == spec.replicas;
            partitioned.then(|| {
                Stage::Complete(format!(
                    "partitioned roll out complete: {goal} new pods have been updated..."
                ))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_types::{
        CanaryStep, Delivery, DeliveryStatus, Deployment, IntOrPercent, REASON_FAILURE_LIMIT, Rare,
    };

    use super::super::stage::tests::{check, going};
    use super::*;

    fn at(step: u32, change: impl FnOnce(&mut DeliveryStatus)) -> impl FnOnce(&mut Deployment) {
        move |deployment| {
            let steps = vec![
                CanaryStep::SetReplicas { replicas: IntOrPercent::Int(1) },
                CanaryStep::Pause { duration_ms: Some(60_000) },
                CanaryStep::Pause { duration_ms: None },
            ];
            deployment.spec.delivery = Rare::some(Delivery::Canary { steps, failure_limit: 0 });
            let mut stand = DeliveryStatus {
                stable: "web-a".into(),
                update: "web-b".into(),
                step,
                step_started_ms: 1_700_000_000_000,
                ..DeliveryStatus::default()
            };
            change(&mut stand);
            deployment.status.delivery = Rare::some(stand);
            deployment.status.updated_replicas = 1;
        }
    }

    #[test]
    fn stages_of_deliveries_follow_the_status() {
        let waiting =
            |what: &str| going(&format!("Waiting for deployment \"web\" rollout to finish: {what}..."));
        check(at(0, |_| ()), waiting("step 1 of 3: 1 out of 1 new replicas have been updated"));
        check(
            at(1, |_| ()),
            waiting("step 2 of 3: paused since 2023-11-14T22:13:20Z until 2023-11-14T22:14:20Z"),
        );
        check(at(2, |_| ()), waiting("step 3 of 3: paused since 2023-11-14T22:13:20Z until it is promoted"));
        check(at(3, |_| ()), waiting("1 out of 3 new replicas have been updated"));
        check(
            at(1, |stand| stand.abort_reason = REASON_FAILURE_LIMIT.into()),
            Stage::Stuck(
                "deployment \"web\" gave its new template up (FailureLimitExceeded): ReplicaSet \"web-a\" stays; \
                 begin anew with `bulkhead rollout retry deployment/web`"
                    .to_owned(),
            ),
        );
        check(
            |deployment| {
                at(0, |_| ())(deployment);
                deployment.spec.delivery = Rare::some(Delivery::Batches {
                    partition: IntOrPercent::Int(2),
                    size: None,
                    pause: None,
                });
            },
            Stage::Complete("partitioned roll out complete: 1 new pods have been updated...".to_owned()),
        );
    }
}
