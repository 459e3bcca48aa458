//! `autoscale`: an autoscaler for a workload.

use std::sync::Arc;

use bulkhead_types::{
    AUTOSCALER_CPU_PERCENT_DEFAULT, AUTOSCALER_MIN_REPLICAS_DEFAULT, AutoscalerMetric, AutoscalerSpec,
    AutoscalerStatus, Command, HorizontalPodAutoscaler, Kind, MeasuredResource, MetricTarget, Name, Object,
    ObjectMeta, ScaleTarget, ScalingRules,
};
use clap::Args;

use super::Context;
use crate::failure::Failure;
use crate::output::emit_line;
use crate::target;

#[derive(Debug, Args)]
pub(crate) struct AutoscaleArgs {
    /// KIND NAME or KIND/NAME of a Deployment or StatefulSet
    #[arg(required = true, value_name = "KIND NAME")]
    what: Vec<String>,
    /// Fewest pods
    #[arg(long, default_value_t = AUTOSCALER_MIN_REPLICAS_DEFAULT)]
    min: u32,
    /// Most pods
    #[arg(long)]
    max: u32,
    /// Processor time that pods shall use on average, in per cent of what they request
    #[arg(long, default_value_t = AUTOSCALER_CPU_PERCENT_DEFAULT)]
    cpu_percent: u32,
    /// The autoscaler's name; the workload's when not given
    #[arg(long, value_parser = |text: &str| Name::new(text))]
    name: Option<Name>,
}

pub(crate) async fn run(args: AutoscaleArgs, context: &Context) -> Result<(), Failure> {
    let workload = target::parse_one(&args.what, &context.namespace, Kind::Deployment)?;
    if !matches!(workload.kind, Kind::Deployment | Kind::StatefulSet) {
        return Err(Failure::usage(format!(
            "{workload} cannot be scaled: only Deployments and StatefulSets can"
        )));
    }
    let name = args.name.unwrap_or_else(|| workload.name.clone());
    let metric =
        AutoscalerMetric::resource(MeasuredResource::Cpu, MetricTarget::Utilization(args.cpu_percent));
    let autoscaler = HorizontalPodAutoscaler {
        meta: ObjectMeta::new(workload.namespace, name.clone()),
        spec: AutoscalerSpec {
            target: ScaleTarget { kind: workload.kind, name: workload.name },
            min_replicas: args.min,
            max_replicas: args.max,
            metrics: vec![metric],
            scale_up: ScalingRules::scale_up_default(),
            scale_down: ScalingRules::scale_down_default(),
        },
        status: AutoscalerStatus::default(),
    };
    context.submit(Command::Create(Object::HorizontalPodAutoscaler(Arc::new(autoscaler)))).await?;
    emit_line(&format!("horizontalpodautoscaler.autoscaling/{name} autoscaled"))
}
