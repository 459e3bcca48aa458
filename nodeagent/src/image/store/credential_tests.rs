//! Pulls from registries that want credentials.

use bulkhead_types::{PullCredentials, RegistryCredential};

use super::registry::Door;
use super::*;

/// The base64 of `me:pw-right`.
const RIGHT: &str = "Basic bWU6cHctcmlnaHQ=";

fn credential(registry: &str, username: &str, password: &str) -> RegistryCredential {
    RegistryCredential {
        registry: registry.to_owned(),
        username: username.as_bytes().to_vec().into(),
        password: password.as_bytes().to_vec().into(),
        secret: "keys".into(),
        ..RegistryCredential::default()
    }
}

fn keyring(credentials: Vec<RegistryCredential>) -> Keyring {
    Keyring::new(PullCredentials { credentials, ..PullCredentials::default() })
}

/// One with a password of the registry.
pub(super) fn known(address: &str, password: &str) -> Keyring {
    keyring(vec![credential(address, "me", password)])
}

/// Only who brings this gets in.
fn basic(expected: &'static str) -> impl Fn(&str, &str, &str) -> Door + Send + Sync + 'static {
    move |_, _, authorization| match authorization == expected {
        true => Door::Open,
        false => Door::Shut("Basic realm=\"images\"".to_owned()),
    }
}

/// Only who brings a token gets in, which is had for a user name with a password.
fn token(address: &str, path: &str, authorization: &str) -> Door {
    let by_token = format!("Bearer realm=\"http://{address}/token\",service=\"images\"");
    match (path.starts_with("/token?"), authorization) {
        (true, RIGHT) if path.contains("repository%3Aweb%3Apull") => {
            Door::Answer(r#"{"token": "pw-token"}"#.to_owned())
        }
        (false, "Bearer pw-token") => Door::Open,
        _ => Door::Shut(by_token),
    }
}

async fn pull(
    store: &ImageStore,
    address: &str,
    policy: PullPolicy,
    with: &Keyring,
) -> Result<Image, String> {
    store.pull(&format!("{address}/web:v1"), policy, with).await.map_err(|error| {
        assert!(!error.to_string().contains("pw-") && !format!("{error:?}").contains("pw-"), "{error:?}");
        error.to_string()
    })
}

/// Wrong credentials are refused, and none; the right ones are enough, also after wrong ones.
async fn check_door(door: impl Fn(&str, &str, &str) -> Door + Send + Sync + 'static) {
    let fixture = Fixture::with_image();
    let (address, _) = registry::serve_behind(registry::content(&fixture), door);
    let store = fixture.store();
    let refused = async |keyring: &Keyring, expected: &str| {
        let error = pull(&store, &address, PullPolicy::IfNotPresent, keyring).await.expect_err("refused");
        let name = format!("{address}/web:v1");
        let start = format!("Registry refuses access to {name}: unauthorized {expected}");
        assert!(error.starts_with(&start), "{error}");
        fixture.check_nothing_left();
        assert_eq!(store.list(), []);
    };
    let wrong = format!("with the credentials for {address} of Secret keys");
    refused(nobody(), "without credentials").await;
    refused(&known("elsewhere", "pw-right"), "without credentials").await;
    refused(&known(&address, "pw-wrong"), &wrong).await;
    let both =
        vec![credential(&address, "me", "pw-right"), credential(&format!("{address}/web"), "me", "pw-wrong")];
    let image = pull(&store, &address, PullPolicy::IfNotPresent, &keyring(both)).await.expect("pulled");
    assert_eq!(debugfs(&image.path, "cat /etc/passwd"), "web:x:33:34::/srv:\n");
    let printed = format!("{store:?} {:?}", known(&address, "pw-right"));
    assert!(!printed.contains("pw-"), "{printed}");
    let private = fs::read_to_string(fixture.data().join("images/private")).expect("written");
    assert!(!private.contains("pw-") && private.contains(&format!("{address}/web")), "{private}");
}

#[tokio::test]
async fn passwords_open_a_registry() {
    check_door(basic(RIGHT)).await;
}

#[tokio::test]
async fn passwords_get_tokens_that_open_a_registry() {
    check_door(token).await;
}

#[tokio::test]
async fn a_token_of_an_entry_is_brought_as_it_is() {
    let fixture = Fixture::with_image();
    let (address, _) = registry::serve_behind(registry::content(&fixture), basic("Bearer pw-token"));
    let own = RegistryCredential { token: b"pw-token".to_vec().into(), ..credential(&address, "", "") };
    let store = fixture.store();
    pull(&store, &address, PullPolicy::Always, &keyring(vec![own])).await.expect("pulled");
}

#[tokio::test]
async fn credentials_that_are_not_needed_hinder_nobody() {
    let fixture = Fixture::with_image();
    // It gives a token to anybody without a password, and none to who has a wrong one.
    let (address, _) = registry::serve_behind(registry::content(&fixture), |address, path, authorization| {
        match (path.starts_with("/token?"), authorization) {
            (true, "") => Door::Answer(r#"{"access_token": "pw-anybody"}"#.to_owned()),
            (false, "Bearer pw-anybody") => Door::Open,
            _ => Door::Shut(format!("Bearer realm=\"http://{address}/token\"")),
        }
    });
    let store = fixture.store();
    pull(&store, &address, PullPolicy::Always, &known(&address, "pw-old")).await.expect("pulled");
    // So it is anybody's.
    pull(&store, &address, PullPolicy::Never, nobody()).await.expect("here");
}

#[tokio::test]
async fn an_image_of_one_pod_is_given_to_others_once_the_registry_gave_it_to_them() {
    let fixture = Fixture::with_image();
    let (address, requests) = registry::serve_behind(registry::content(&fixture), basic(RIGHT));
    let asked =
        |part: &str| requests.lock().expect("no panic").iter().filter(|path| path.contains(part)).count();
    let right = known(&address, "pw-right");
    let store = fixture.store();
    pull(&store, &address, PullPolicy::IfNotPresent, &right).await.expect("pulled");
    let (manifests, blobs) = (asked("/manifests/"), asked("/blobs/"));
    pull(&store, &address, PullPolicy::IfNotPresent, &right).await.expect("here");
    pull(&store, &address, PullPolicy::Never, &right).await.expect("here");
    assert_eq!(asked("/manifests/"), manifests, "the same credentials are enough once more");
    for other in [nobody(), &known(&address, "pw-wrong"), &known("elsewhere", "pw-right")] {
        let error = pull(&store, &address, PullPolicy::IfNotPresent, other).await.expect_err("private");
        assert!(error.contains("unauthorized"), "{error}");
        let error = pull(&store, &address, PullPolicy::Never, other).await.expect_err("private");
        assert!(error.contains("it was pulled with other credentials"), "{error}");
    }
    // Another life of the agent asks again, and fetches nothing.
    let (store, manifests) = (fixture.store(), asked("/manifests/"));
    let error = pull(&store, &address, PullPolicy::IfNotPresent, nobody()).await.expect_err("private");
    assert!(error.contains("unauthorized"), "{error}");
    pull(&store, &address, PullPolicy::IfNotPresent, &right).await.expect("here");
    assert_eq!((asked("/manifests/"), asked("/blobs/")), (manifests + 2, blobs));
    // What an operator imports is for all.
    fixture.import(&store, None).await.expect("imported");
    pull(&store, &address, PullPolicy::Never, nobody()).await.expect("here");
}

#[tokio::test]
async fn the_nodes_credentials_are_all_pods() {
    let fixture = Fixture::with_image();
    let (address, _) = registry::serve_behind(registry::content(&fixture), basic(RIGHT));
    let file = fixture.dir.path().join("config.json");
    let entry = RIGHT.strip_prefix("Basic ").expect("the scheme");
    let config = format!(r#"{{"auths": {{"{address}": {{"auth": "{entry}"}}}}}}"#);
    let of_node = async || Keyring::of_pod(None, Some(&file)).await;
    let store = fixture.store();
    let refused = async |expected: &str| {
        let keyring = of_node().await;
        pull(&store, &address, PullPolicy::IfNotPresent, &keyring).await.expect_err("refused");
        let problem = keyring.problem().expect("the file is wrong");
        assert!(problem.contains(expected), "{problem}");
    };
    refused("No such file").await;
    fs::write(&file, config.replace('}', "")).expect("written");
    refused("is no JSON object").await;
    fs::write(&file, config.replace("{\"auths", "{\"credsStore\": \"pass\", \"auths")).expect("written");
    refused("credsStore: credential helpers are not supported").await;
    // It is read when it is needed.
    fs::write(&file, config).expect("written");
    let keyring = of_node().await;
    assert_eq!(keyring.problem(), None);
    pull(&store, &address, PullPolicy::IfNotPresent, &keyring).await.expect("pulled");
    pull(&store, &address, PullPolicy::Never, nobody()).await.expect("anybody's");
}

#[tokio::test]
async fn who_only_knows_the_digest_of_an_image_has_to_bring_its_content() {
    let fixture = Fixture::with_image();
    let content = registry::content(&fixture);
    let (address, _) = registry::serve_behind(content.clone(), basic(RIGHT));
    let store = fixture.store();
    let right = known(&address, "pw-right");
    let image = pull(&store, &address, PullPolicy::IfNotPresent, &right).await.expect("pulled");
    // Somebody else's registry has the manifest, and nothing else.
    let known_only = content.iter().filter(|(path, _)| path.contains("/manifests/"));
    let known_only = known_only.map(|(path, found)| (path.clone(), found.clone())).collect();
    let (elsewhere, _) = registry::serve(known_only);
    let error = pull(&store, &elsewhere, PullPolicy::IfNotPresent, nobody()).await.expect_err("no content");
    assert!(error.contains("was not found"), "{error}");
    // One that has all of it gives away nothing that was not there.
    let (elsewhere, _) = registry::serve(content);
    let same = pull(&store, &elsewhere, PullPolicy::IfNotPresent, nobody()).await.expect("pulled");
    assert_eq!((same.digest, same.path), (image.digest, image.path));
}
