//! Watches that were away for longer than servers keep history: they list again and go on from there.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use expect_test::expect;

use crate::fake::entry;
use crate::{bulkhead_on, text, with_web};

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_from_a_new_list_with_what_changed_meanwhile() {
    let fake = with_web().await;
    fake.change_deployment("web", |d| d.status.get_or_insert_default().observed_generation = 1);
    let address = fake.address.clone();
    let command = tokio::spawn(async move { bulkhead_on(&address, &["rollout", "status", "web"]).await });
    fake.watched(1).await;
    fake.state().oldest = 1_000_000;
    fake.break_watches();
    fake.change_deployment("web", |d| {
        let status = d.status.get_or_insert_default();
        (status.updated_replicas, status.replicas, status.available_replicas) = (2, 2, 2);
    });
    let output = command.await.expect("it ran");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    expect![[r#"
        Waiting for deployment "web" rollout to finish: 0 out of 2 new replicas have been updated...
        deployment "web" successfully rolled out
    "#]]
    .assert_eq(&text(&output.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_meanwhile_is_reported_as_gone() {
    let fake = with_web().await;
    fake.state().delete_slowly = true;
    let address = fake.address.clone();
    let command = tokio::spawn(async move { bulkhead_on(&address, &["delete", "deploy", "web"]).await });
    fake.watched(1).await;
    fake.state().oldest = 1_000_000;
    fake.break_watches();
    fake.seen_by_watchers().await;
    fake.remove("web");
    let output = command.await.expect("it ran");
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), "deployment.apps/web deleted\n".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_on_from_the_oldest_one_kept_and_say_what_is_missing() {
    let fake = with_web().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
        .env("BULKHEAD_SERVER", &fake.address)
        .args(["events", "-w", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let lines = |source| BufReader::new(source).lines().map(|line| line.expect("text"));
    let mut out = lines(Box::new(command.stdout.take().expect("a pipe")) as Box<dyn std::io::Read + Send>);
    let mut err = lines(Box::new(command.stderr.take().expect("a pipe")));
    let read = tokio::task::spawn_blocking(move || {
        let first = out.next().expect("an event");
        (out, first)
    });
    let (mut out, first) = read.await.expect("it was read");
    assert!(first.contains("\"revision\":7"), "{first}");
    {
        let mut state = fake.state();
        state.oldest = 20;
        state.history = vec![entry(20), entry(21)];
    }
    let read = tokio::task::spawn_blocking(move || {
        let rest = [out.next(), out.next()].map(|line| line.expect("an event"));
        let said = err.next().expect("a word about what is missing");
        command.kill().and_then(|()| command.wait()).expect("it ends");
        (rest, said)
    });
    let (rest, said) = read.await.expect("it was read");
    assert!(rest[0].contains("\"revision\":20") && rest[1].contains("\"revision\":21"), "{rest:?}");
    assert_eq!(said, "events from revision 8 to before 20 are not kept any more");
}
