//! Layers and images side by side, against a registry whose answers wait until the test lets them go.

use std::sync::Condvar;
use std::time::Duration;

use tokio::sync::watch;

use super::registry::Door;
use super::*;

/// How long an answer waits to be let go before the test has failed.
const DEADLINE: Duration = Duration::from_secs(60);

/// Answers that wait: those whose path has one of these words, until it is opened.
struct Gate {
    shut: Mutex<Vec<String>>,
    opened: Condvar,
    arrived: watch::Sender<Vec<String>>,
}

impl Gate {
    fn new(shut: &[String]) -> Arc<Self> {
        let arrived = watch::Sender::new(Vec::new());
        Arc::new(Self { shut: Mutex::new(shut.to_vec()), opened: Condvar::new(), arrived })
    }

    /// In the registry: waits.
    fn pass(&self, path: &str) {
        self.arrived.send_modify(|arrived| arrived.push(path.to_owned()));
        let shut = self.shut.lock().expect("no panic");
        let is_shut = |shut: &mut Vec<String>| shut.iter().any(|word| path.contains(word.as_str()));
        let (guard, waited) = self.opened.wait_timeout_while(shut, DEADLINE, is_shut).expect("no panic");
        drop(guard);
        assert!(!waited.timed_out(), "nobody let {path} go");
    }

    fn open(&self, word: &str) {
        self.shut.lock().expect("no panic").retain(|shut| shut != word);
        self.opened.notify_all();
    }

    /// How many requests had this word so far.
    fn count(&self, word: &str) -> usize {
        self.arrived.borrow().iter().filter(|path| path.contains(word)).count()
    }

    /// Waits until there was a request with each of these words.
    async fn reached(&self, words: &[String]) {
        let all = |arrived: &Vec<String>| {
            words.iter().all(|word| arrived.iter().any(|path| path.contains(word.as_str())))
        };
        let mut arrived = self.arrived.subscribe();
        let reached = tokio::time::timeout(DEADLINE, arrived.wait_for(all)).await;
        reached.expect("in time").expect("it lives");
    }
}

/// A layer in which a file of this name says this, and its digest.
fn saying(name: &str, word: &str) -> (Vec<u8>, String) {
    let bytes = layer(&[Node::File(name, 0o644, word.as_bytes())]);
    let digest = ImageDigest::of(&bytes).to_string();
    (bytes, digest)
}

/// Images `v1`, `v2`, … of these layers, and a registry for them behind a gate that is shut for these digests.
fn registry_of(images: &[&[&(Vec<u8>, String)]], shut: &[&str]) -> (Fixture, String, Arc<Gate>) {
    let mut fixture = Fixture::new();
    for (index, layers) in images.iter().enumerate() {
        let layers: Vec<Vec<u8>> = layers.iter().map(|(bytes, _)| bytes.clone()).collect();
        let tag = format!("v{}", index + 1);
        fixture.layout.image(&tag, "amd64", json!({"Cmd": [tag]}), &layers);
    }
    let content = registry::content(&fixture);
    let (address, gate) = gated(content, shut);
    (fixture, address, gate)
}

fn gated(content: BTreeMap<String, (String, Vec<u8>)>, shut: &[&str]) -> (String, Arc<Gate>) {
    let shut: Vec<String> = shut.iter().map(|word| (*word).to_owned()).collect();
    let gate = Gate::new(&shut);
    let at_gate = Arc::clone(&gate);
    let pass = move |path: &str, _| {
        at_gate.pass(path);
        None
    };
    (registry::serve_cut(content, pass, false).0, gate)
}

async fn pull(store: &ImageStore, address: &str, tag: &str) -> Result<Image, ImageError> {
    store.pull(&format!("{address}/web:{tag}"), PullPolicy::Always, nobody()).await
}

/// A whole pull of something else by the same thread: whatever could be asked for meanwhile was.
async fn meanwhile() {
    let fixture = Fixture::with_image();
    let (address, _) = registry::serve(registry::content(&fixture));
    pull(&fixture.store(), &address, "v1").await.expect("pulled");
}

#[tokio::test]
async fn layers_come_side_by_side_in_any_order_and_are_unpacked_in_theirs() {
    let layers = ["one", "two", "three"].map(|word| saying("said", word));
    let digests = layers.each_ref().map(|(_, digest)| digest.clone());
    let shut = digests.each_ref().map(String::as_str);
    let (fixture, address, gate) = registry_of(&[&layers.each_ref()], &shut);
    let store = fixture.store();
    let open = async {
        gate.reached(&digests).await;
        for digest in digests.iter().rev() {
            gate.open(digest);
            meanwhile().await;
        }
    };
    let (image, ()) = tokio::join!(pull(&store, &address, "v1"), open);
    assert_eq!(debugfs(&image.expect("pulled").path, "cat /said"), "three");
    fixture.check_nothing_left();
}

#[tokio::test]
async fn no_more_layers_of_an_image_are_transferred_at_a_time_than_may_be() {
    let layers: Vec<_> = (0..6).map(|n| saying(&n.to_string(), "x")).collect();
    let all: Vec<_> = layers.iter().collect();
    let shut: Vec<&str> = layers.iter().map(|(_, digest)| digest.as_str()).collect();
    let (fixture, address, gate) = registry_of(&[&all], &shut);
    let store = fixture.store();
    let under_way = || shut.iter().filter(|digest| gate.count(digest) > 0).count();
    let open = async {
        gate.reached(&layers[..fetch::LAYERS_AT_ONCE].iter().map(|one| one.1.clone()).collect::<Vec<_>>())
            .await;
        meanwhile().await;
        assert_eq!(under_way(), fetch::LAYERS_AT_ONCE);
        // The first of them stalls: the others go on.
        shut[1..].iter().for_each(|digest| gate.open(digest));
        gate.reached(&shut.iter().map(|digest| (*digest).to_owned()).collect::<Vec<_>>()).await;
        gate.open(shut[0]);
    };
    let (image, ()) = tokio::join!(pull(&store, &address, "v1"), open);
    image.expect("pulled");
    fixture.check_nothing_left();
}

#[tokio::test]
async fn no_more_images_are_fetched_at_a_time_than_may_be() {
    let (one, two) = (saying("one", "x"), saying("two", "x"));
    let (fixture, address, gate) = registry_of(&[&[&one], &[&two]], &[&one.1]);
    let options = ImageStoreOptions { free_bytes: 8 << 20, images_at_once: 1, ..Default::default() };
    let store = ImageStore::open(&fixture.data(), options).expect("opened");
    let open = async {
        gate.reached(std::slice::from_ref(&one.1)).await;
        let blobs = gate.count("/blobs/");
        let later = async {
            gate.reached(&["/manifests/v2".to_owned()]).await;
            meanwhile().await;
            assert_eq!(gate.count("/blobs/"), blobs, "the second waits for its turn");
            gate.open(&one.1);
        };
        tokio::join!(pull(&store, &address, "v2"), later).0
    };
    let (first, second) = tokio::join!(pull(&store, &address, "v1"), open);
    assert_ne!(first.expect("pulled").digest, second.expect("pulled").digest);
}

#[tokio::test]
async fn the_first_error_in_the_layers_order_is_told_and_the_rest_is_stopped() {
    let layers = ["one", "two", "three"].map(|word| saying("said", word));
    let digests = layers.each_ref().map(|(_, digest)| digest.clone());
    let mut fixture = Fixture::new();
    fixture.layout.image("v1", "amd64", json!({}), &layers.each_ref().map(|(bytes, _)| bytes.clone()));
    let mut content = registry::content(&fixture);
    for (path, (_, bytes)) in &mut content {
        if digests[..2].iter().any(|digest| path.contains(digest)) {
            bytes[600] ^= 1;
        }
    }
    let shut = digests.each_ref().map(String::as_str);
    let (address, gate) = gated(content, &shut);
    let store = fixture.store();
    let open = async {
        gate.reached(&digests).await;
        gate.open(&digests[1]);
        meanwhile().await;
        gate.open(&digests[0]);
    };
    // The third never comes.
    let (refused, ()) = tokio::join!(pull(&store, &address, "v1"), open);
    let Err(ImageError::DigestMismatch { expected, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(expected, digests[0]);
    assert_eq!(store.list(), []);
    fixture.check_nothing_left();
    gate.open(&digests[2]);
}

#[tokio::test]
async fn a_layer_of_two_images_is_transferred_once_and_taken_over_from_who_gives_up() {
    let (base, one, two) = (saying("base", "b"), saying("one", "x"), saying("two", "y"));
    let (fixture, address, gate) = registry_of(&[&[&base, &one], &[&base, &two]], &[&base.1]);
    let store = fixture.store();
    let open = async {
        gate.reached(&[one.1.clone(), two.1.clone()]).await;
        meanwhile().await;
        gate.open(&base.1);
    };
    let pulls = futures::future::join(pull(&store, &address, "v1"), pull(&store, &address, "v2"));
    let ((first, second), ()) = tokio::join!(pulls, open);
    for image in [first, second] {
        assert_eq!(debugfs(&image.expect("pulled").path, "cat /base"), "b");
    }
    assert_eq!(gate.count(&base.1), 1);
    fixture.check_nothing_left();

    // Whoever transfers it is stopped; who waits for it does it.
    let (fixture, address, gate) = registry_of(&[&[&base, &one], &[&base, &two]], &[&base.1]);
    let store = fixture.store();
    let first = tokio::spawn({
        let (store, address) = (store.clone(), address.clone());
        async move { pull(&store, &address, "v1").await.map(drop) }
    });
    gate.reached(&[base.1.clone(), one.1.clone()]).await;
    let open = async {
        gate.reached(std::slice::from_ref(&two.1)).await;
        first.abort();
        assert!(first.await.expect_err("stopped").is_cancelled());
        gate.open(&base.1);
    };
    let (second, ()) = tokio::join!(pull(&store, &address, "v2"), open);
    second.expect("pulled");
    assert_eq!(gate.count(&base.1), 2);
    fixture.check_nothing_left();
}

#[tokio::test]
async fn a_layer_that_one_pod_may_have_is_not_given_to_who_only_knows_its_digest() {
    let secret = saying("secret", "s");
    let (fixture, _, _) = registry_of(&[&[&secret], &[&secret]], &[]);
    let content = registry::content(&fixture);
    let gate = Gate::new(std::slice::from_ref(&secret.1));
    let at_gate = Arc::clone(&gate);
    let pass = move |path: &str, _| {
        at_gate.pass(path);
        None
    };
    let door = |_: &str, _: &str, authorization: &str| match authorization.is_empty() {
        true => Door::Shut("Basic realm=\"images\"".to_owned()),
        false => Door::Open,
    };
    let (address, _) = registry::serve_all(content.clone(), pass, false, door);
    // Somebody else's registry has another image of it, and all but the layer itself.
    let known = content.into_iter().filter(|(path, _)| !path.contains(&secret.1)).collect();
    let (elsewhere, _) = registry::serve(known);
    let store = fixture.store();
    let keyring = super::credentials::known(&address, "pw-right");
    let name = format!("{address}/web:v1");
    let steal = async {
        gate.reached(std::slice::from_ref(&secret.1)).await;
        let refused = pull(&store, &elsewhere, "v2").await.expect_err("it has no such layer");
        gate.open(&secret.1);
        refused
    };
    let own = store.pull(&name, PullPolicy::IfNotPresent, &keyring);
    let (own, refused) = tokio::join!(own, steal);
    assert!(refused.to_string().contains("was not found"), "{refused}");
    own.expect("pulled");
    fixture.check_nothing_left();
}
