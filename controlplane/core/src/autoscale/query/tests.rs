use bulkhead_types::MetricObject;
use smol_str::SmolStr;

use super::*;

fn query(source: MetricSource, selector: &str) -> MetricQuery {
    let object = (source == MetricSource::Object).then(|| MetricObject {
        api_version: "v1".into(),
        kind: "Service".into(),
        name: "web".into(),
    });
    let selector = if selector.is_empty() {
        LabelSelector::default()
    } else {
        LabelSelector::parse(selector).expect("a selector")
    };
    MetricQuery { source, object, name: "requests:rate1m".into(), selector }
}

#[test]
fn a_metric_becomes_a_query() {
    let check = |source, selector: &str, expected: &str| {
        assert_eq!(query_text(&query(source, selector), "shop"), expected);
    };
    check(MetricSource::Pods, "", "sum by (pod) (requests:rate1m{namespace=\"shop\"})");
    check(
        MetricSource::Object,
        "verb=GET",
        "sum(requests:rate1m{namespace=\"shop\",service=\"web\",verb=~\"GET\"})",
    );
    check(
        MetricSource::External,
        "queue in (a.b,c),zone notin (x),up,!down",
        "sum(requests:rate1m{queue=~\"a\\\\.b|c\",zone!~\"x\",up!=\"\",down=\"\"})",
    );
    let mut labels = query(MetricSource::External, "");
    labels.selector.match_labels.insert("a".into(), SmolStr::new("x\"} or vector(9) #\\"));
    assert_eq!(query_text(&labels, ""), "sum(requests:rate1m{a=\"x\\\"} or vector(9) #\\\\\"})");
}

/// A total in thousandths, ready pods, the size: the wanted size and the average.
fn check(target: MetricTarget, total: u64, ready: u32, size: u32, wanted: Option<u32>, average: Option<u64>) {
    let reading = read_total(target, total, ready, size);
    assert_eq!(
        (reading.proposal, reading.average_value),
        (wanted, average),
        "{target:?} {total} {ready} {size}"
    );
    assert_eq!(reading.total.get(), Some(&total));
    assert_eq!(reading.message.is_empty(), wanted.is_some());
}

#[test]
fn one_number_wants_a_size() {
    use MetricTarget::{AverageValue, Utilization, Value};
    // The worked example of two metrics: 21 requests for each of 2 pods where 10 are wanted.
    check(AverageValue(10_000), 42_000, 2, 2, Some(5), Some(21_000));
    check(AverageValue(10_000), 21_000, 2, 2, Some(2), Some(10_500));
    check(AverageValue(10_000), 0, 2, 2, Some(0), Some(0));
    check(AverageValue(10_000), 42_000, 0, 2, Some(5), Some(21_000));
    check(Value(10_000), 20_000, 2, 2, Some(4), None);
    check(Value(10_000), 10_900, 2, 2, Some(2), None);
    check(Value(10_000), 15_000, 1, 4, Some(2), None);
    check(Value(10_000), 15_000, 0, 4, None, None);
    check(Value(1), u64::MAX, u32::MAX, 4, Some(REPLICAS_MAX), None);
    check(Utilization(50), 1, 1, 1, None, None);
}
