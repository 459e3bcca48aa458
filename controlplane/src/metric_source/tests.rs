use std::future::pending;

use axum::extract::RawQuery;
use axum::routing::get;
use axum::{Router, http::StatusCode};
use tokio::net::TcpListener;

use super::*;

fn check(body: &str, expected: Result<&[(&str, u64)], &str>) {
    let found = read_answer(body.as_bytes());
    let found = found.map(|samples| {
        samples.into_iter().map(|sample| (sample.pod.to_string(), sample.value_millis)).collect::<Vec<_>>()
    });
    let expected = expected
        .map(|samples| samples.iter().map(|(pod, value)| ((*pod).to_owned(), *value)).collect::<Vec<_>>());
    match (found, expected) {
        (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{body}"),
        (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}\n{body}"),
        (found, expected) => panic!("{found:?} is not {expected:?}\n{body}"),
    }
}

fn vector(result: &str) -> String {
    format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}}}}"#)
}

#[test]
fn answers_are_read() {
    check(&vector(""), Ok(&[]));
    check(
        &vector(r#"{"metric":{"pod":"a","x":"y"},"value":[1.5,"2.0004"]},{"value":[1,"3"]}"#),
        Ok(&[("a", 2000), ("", 3000)]),
    );
    check(&vector(r#"{"value":[1,"1e300"]}"#), Ok(&[("", AMOUNT_MAX)]));
    // One pod's number that is none silences that pod only.
    let pods = r#"{"metric":{"pod":"a"},"value":[1,"NaN"]},{"metric":{"pod":"b"},"value":[1,"2"]}"#;
    check(&vector(pods), Ok(&[("b", 2000)]));
    check(&vector(r#"{"metric":{"pod":"a"},"value":[1,"NaN"]}"#), Err("must be finite, and not negative"));
    let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"0.5"]}}"#;
    check(scalar, Ok(&[("", 500)]));
}

#[test]
fn what_is_wrong_with_an_answer_is_told() {
    for value in ["NaN", "+Inf", "-1", "-Inf"] {
        check(&vector(&format!(r#"{{"value":[1,"{value}"]}}"#)), Err("must be finite, and not negative"));
    }
    check(&vector(r#"{"value":[1,"many"]}"#), Err("\"many\" is no number"));
    check(&vector(r#"{"value":[1,2]}"#), Err("none of Prometheus"));
    check("<html>", Err("none of Prometheus"));
    check("", Err("none of Prometheus"));
    check(r#"{"status":"success"}"#, Err("has no data"));
    check(r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#, Err("none of Prometheus"));
    check(r#"{"status":"error","error":"parse\nerror"}"#, Err("the endpoint says: parseerror"));
    let long = format!(r#"{{"status":"error","error":"{}"}}"#, "x".repeat(10_000));
    assert!(read_answer(long.as_bytes()).is_err_and(|told| told.len() < 300));
    let many = vec![r#"{"value":[1,"1"]}"#; SAMPLES_MAX + 1].join(",");
    check(&vector(&many), Err("at most 20000 are read"));
}

#[test]
fn only_http_is_spoken() {
    let refused = |url| MetricsEndpoint::new(url).expect_err(url).to_string();
    assert!(refused("https://a:9090").contains("only http"));
    assert!(refused("prometheus:9090").contains("only http"));
    assert!(refused("a b").contains("no metrics endpoint"));
    let endpoint = MetricsEndpoint::new("http://a:9090/prefix/").expect("an endpoint");
    assert_eq!(endpoint.query.as_str(), "http://a:9090/prefix/api/v1/query");
}

/// A stand-in for Prometheus that says what its question is about.
async fn stand_in() -> MetricsEndpoint {
    async fn answer(RawQuery(query): RawQuery) -> (StatusCode, String) {
        match query.as_deref() {
            Some("query=sum%28up%29") => (StatusCode::OK, vector(r#"{"value":[1,"7"]}"#)),
            Some("query=hang") => pending().await,
            Some("query=flood") => (StatusCode::OK, " ".repeat(ANSWER_BYTES_MAX + 1)),
            other => (
                StatusCode::BAD_REQUEST,
                format!(r#"{{"status":"error","error":{:?}}}"#, other.unwrap_or_default()),
            ),
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let app = Router::new().route("/api/v1/query", get(answer));
    tokio::spawn(async move { axum::serve(listener, app).await });
    MetricsEndpoint::new(&format!("http://{address}")).expect("an endpoint")
}

#[tokio::test]
async fn each_question_has_an_answer_of_its_own() {
    let mut endpoint = stand_in().await;
    endpoint.client = Client::builder().timeout(Duration::from_millis(500)).build().expect("a client");
    let asked = ["sum(up)", "hang", "flood", "other"];
    let all = || asked.into_iter().map(str::to_owned).collect();
    let late = endpoint.ask_all(all(), Instant::now()).await;
    assert_eq!(late.len(), asked.len());
    let told_so = |answer: &MetricAnswer| answer.as_ref().is_err_and(|told| told.contains("in time"));
    assert!(late.iter().all(|(_, answer)| told_so(answer)), "{late:?}");
    let answers: BTreeMap<_, _> =
        endpoint.ask_all(all(), Instant::now() + ROUND_TIMEOUT).await.into_iter().collect();
    assert_eq!(answers.len(), asked.len());
    let seven = MetricSample { pod: "".into(), value_millis: 7000 };
    assert_eq!(answers["sum(up)"], Ok(vec![seven]));
    assert!(answers["hang"].is_err());
    assert!(answers["flood"].as_ref().is_err_and(|told| told.contains("longer than")), "{answers:?}");
    assert_eq!(answers["other"], Err("400 Bad Request: the endpoint says: query=other".to_owned()));
    let nobody = MetricsEndpoint::new("http://127.0.0.1:1").expect("an endpoint");
    assert!(nobody.ask("up").await.is_err());
}
