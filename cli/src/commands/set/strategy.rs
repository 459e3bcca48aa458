//! `set strategy`.

use bulkhead_types::Kind;
use clap::Args;
use serde_json::{Value, json};

use super::Common;
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct StrategyArgs {
    /// KIND NAME... or KIND/NAME... of Deployments, StatefulSets and DaemonSets
    #[arg(required = true, value_name = "KIND NAME")]
    pub(super) what: Vec<String>,
    /// Pods above the wanted number, or a share such as 25% (not of StatefulSets)
    #[arg(long, value_name = "NUMBER|PERCENT")]
    max_surge: Option<String>,
    /// Pods below the wanted number, or a share such as 25%
    #[arg(long, value_name = "NUMBER|PERCENT")]
    max_unavailable: Option<String>,
    /// The first ordinal that gets the new template (StatefulSets)
    #[arg(long, value_name = "ORDINAL")]
    partition: Option<u32>,
    /// End all old pods before the first new one starts (Deployments)
    #[arg(long, conflicts_with_all = ["max_surge", "max_unavailable", "partition", "on_delete"])]
    recreate: bool,
    /// Give a pod the new template when somebody deletes it (StatefulSets, DaemonSets)
    #[arg(long, conflicts_with_all = ["max_surge", "max_unavailable", "partition"])]
    on_delete: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Sets a workload's strategy. What is not given stays.
pub(super) fn set(kind: Kind, value: &mut Value, args: &StrategyArgs) -> Result<(), Failure> {
    let field = match kind {
        Kind::Deployment => "strategy",
        Kind::StatefulSet | Kind::DaemonSet => "updateStrategy",
        _ => return Err(Failure::usage(format!("a {kind} has no strategy"))),
    };
    let wrong = [
        (args.recreate, kind != Kind::Deployment, "--recreate is for Deployments"),
        (args.on_delete, kind == Kind::Deployment, "--on-delete is for StatefulSets and DaemonSets"),
        (args.max_surge.is_some(), kind == Kind::StatefulSet, "--max-surge is not for StatefulSets"),
        (args.partition.is_some(), kind != Kind::StatefulSet, "--partition is for StatefulSets"),
    ];
    if let Some((.., reason)) = wrong.iter().find(|(given, unfit, _)| *given && *unfit) {
        return Err(Failure::usage(*reason));
    }
    if args.recreate || args.on_delete {
        value["spec"][field] = json!({"type": if args.recreate { "Recreate" } else { "OnDelete" }});
        return Ok(());
    }
    let bounds =
        [("maxSurge", args.max_surge.as_deref()), ("maxUnavailable", args.max_unavailable.as_deref())];
    if bounds.iter().all(|(_, given)| given.is_none()) && args.partition.is_none() {
        return Err(Failure::usage(
            "nothing to set: --max-surge, --max-unavailable, --partition, --recreate or --on-delete",
        ));
    }
    let strategy = &mut value["spec"][field];
    strategy["type"] = "RollingUpdate".into();
    for (name, given) in bounds {
        let Some(text) = given else { continue };
        strategy["rollingUpdate"][name] = text.parse::<u32>().map_or_else(|_| text.into(), Value::from);
    }
    if let Some(partition) = args.partition {
        strategy["rollingUpdate"]["partition"] = partition.into();
    }
    Ok(())
}
