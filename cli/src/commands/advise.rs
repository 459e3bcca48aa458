//! `advise`: which pool of nodes to grow so that what waits has room, and which nodes could go.

use bulkhead_proto::v1;
use clap::{Args, ValueEnum};

use super::Context;
use crate::client::queries;
use crate::failure::Failure;
use crate::output::{emit, table};

const GROWTH_COLUMNS: [&str; 6] = ["POOL", "NODES", "LIKE", "PODS PLACED", "STILL WAIT", "LEFT OVER"];
const REMOVAL_COLUMNS: [&str; 4] = ["NODE", "RESERVED", "COULD GO", "WHY NOT"];

/// Which pool comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExpanderWord {
    /// The one of whose new nodes least is left over
    LeastWaste,
    /// The one with the highest --priority
    Priority,
    /// The one whose new nodes take the most pods
    MostPods,
    /// Any, by --seed
    Random,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is changed, and no machine is made or ended: that is for whoever owns them. A pool is what nodes say with the \
label node.bulkhead.io/pool; the others are pool default.\n\nExamples:\n  bulkhead advise\n  bulkhead advise --expander priority \
--priority spot=10,owned=20"
)]
pub(crate) struct AdviseArgs {
    /// Which pool comes first
    #[arg(long, value_enum, default_value = "least-waste", value_name = "EXPANDER")]
    expander: ExpanderWord,
    /// Priorities of pools; those that are not named come last
    #[arg(long, value_name = "POOL=NUMBER", value_delimiter = ',', value_parser = priority)]
    priority: Vec<(String, i32)>,
    /// The number by which a random pool is taken
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Nodes by which a pool may grow
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    nodes_max: u32,
    /// Nodes on which less than this is reserved could go, in per cent
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    idle_percent: u32,
    /// Ask about the cluster as it was at this revision
    #[arg(long, value_name = "REVISION")]
    at: Option<u64>,
}

fn priority(word: &str) -> Result<(String, i32), String> {
    let (pool, number) = word.split_once('=').ok_or("must be POOL=NUMBER")?;
    let number = number.parse().map_err(|_| format!("{number} is no number"))?;
    Ok((pool.to_owned(), number))
}

pub(crate) async fn run(args: AdviseArgs, context: &Context) -> Result<(), Failure> {
    if !args.priority.is_empty() && args.expander != ExpanderWord::Priority {
        return Err(Failure::usage("--priority needs --expander priority"));
    }
    let expander = match args.expander {
        ExpanderWord::LeastWaste => v1::Expander::LeastWaste,
        ExpanderWord::Priority => v1::Expander::Priority,
        ExpanderWord::MostPods => v1::Expander::MostPods,
        ExpanderWord::Random => v1::Expander::Random,
    };
    let request = v1::AdviseRequest {
        expander: expander.into(),
        priorities: args.priority.into_iter().collect(),
        seed: args.seed,
        growth_max: args.nodes_max,
        idle_percent: args.idle_percent,
        at_revision: args.at.unwrap_or(0),
    };
    let answer = context
        .client
        .call(|channel| {
            let request = context.client.request(request.clone());
            async move { queries(channel).advise(request).await }
        })
        .await?;
    emit(&shown(&answer))
}

fn shown(answer: &v1::AdviseResponse) -> String {
    let mut text = format!("At revision {}: {} pods wait.\n", answer.revision, answer.waiting);
    let row = |one: &v1::PoolGrowth| {
        let waste = format!("{}.{}%", one.waste_permille / 10, one.waste_permille % 10);
        let (nodes, pods, left) = (one.nodes.to_string(), one.pods.to_string(), one.left.to_string());
        vec![one.pool.clone(), format!("+{nodes}"), one.like.clone(), pods, left, waste]
    };
    match (answer.waiting, answer.growth.first()) {
        (0, _) => {}
        (_, None) => {
            text += "No pool helps by growing: see what each of them waits for with `describe pod`.\n"
        }
        (_, Some(best)) => {
            text += &format!("Grow pool {} by {}:\n\n", best.pool, best.nodes);
            text += &table::render(&GROWTH_COLUMNS, &answer.growth.iter().map(row).collect::<Vec<_>>());
        }
    }
    let row = |one: &v1::NodeRemoval| {
        let goes =
            if one.obstacle.is_empty() { format!("yes, {} pods move", one.pods) } else { "no".to_owned() };
        vec![one.node.clone(), format!("{}%", one.used_percent), goes, one.obstacle.clone()]
    };
    if !answer.removals.is_empty() {
        let going = answer.removals.iter().filter(|one| one.obstacle.is_empty()).count();
        text += &format!("\n{going} of the nodes that do little could go, all of them at once:\n\n");
        text += &table::render(&REMOVAL_COLUMNS, &answer.removals.iter().map(row).collect::<Vec<_>>());
    }
    if !answer.is_whole {
        text += "\nThere was no time to try everything.\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn advice_is_shown_with_its_reasons() {
        let growth = |pool: &str, nodes, waste_permille| v1::PoolGrowth {
            pool: pool.into(),
            like: "node-7".into(),
            nodes,
            pods: 4,
            left: 1,
            waste_permille,
        };
        let removal = |node: &str, pods, obstacle: &str| v1::NodeRemoval {
            node: node.into(),
            used_percent: 12,
            pods,
            obstacle: obstacle.into(),
        };
        let answer = v1::AdviseResponse {
            revision: 41,
            waiting: 5,
            growth: vec![growth("small", 2, 125), growth("large", 1, 601)],
            removals: vec![removal("node-1", 2, ""), removal("node-2", 0, "Pod default/a stays: alone")],
            is_whole: false,
        };
        expect![[r#"
            At revision 41: 5 pods wait.
            Grow pool small by 2:

            POOL    NODES   LIKE     PODS PLACED   STILL WAIT   LEFT OVER
            small   +2      node-7   4             1            12.5%
            large   +1      node-7   4             1            60.1%

            1 of the nodes that do little could go, all of them at once:

            NODE     RESERVED   COULD GO           WHY NOT
            node-1   12%        yes, 2 pods move
            node-2   12%        no                 Pod default/a stays: alone

            There was no time to try everything.
        "#]]
        .assert_eq(&shown(&answer));
        let nothing = v1::AdviseResponse { revision: 1, is_whole: true, ..Default::default() };
        expect!["At revision 1: 0 pods wait.\n"].assert_eq(&shown(&nothing));
        assert_eq!(priority("a=-3"), Ok(("a".to_owned(), -3)));
        assert!(priority("a").is_err() && priority("a=b").is_err());
    }
}
