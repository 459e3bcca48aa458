//! The store against OCI layouts that are made here, without a network.

#[path = "../../tests/support/layout.rs"]
#[allow(dead_code, unreachable_pub)]
mod layout_maker;

#[path = "store/credential_tests.rs"]
mod credentials;
#[path = "store/fetch_tests.rs"]
mod fetches;

use super::*;
use layout_maker::{LayoutMaker, Node, layer};
use serde_json::json;
use std::io::Write as _;
use std::process::Command;

struct Fixture {
    dir: tempfile::TempDir,
    layout: LayoutMaker,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = LayoutMaker::new(&dir.path().join("layout"));
        Self { dir, layout }
    }

    fn with_image() -> Self {
        let mut fixture = Self::new();
        let config = json!({"Entrypoint": ["/bin/app"], "Cmd": null, "Env": ["A=b"], "User": "web", "WorkingDir": "/srv"});
        let base = layer(&[
            Node::Dir("etc"),
            Node::File("etc/passwd", 0o644, b"web:x:33:34::/srv:\n"),
            Node::File("gone", 0o644, b"x"),
        ]);
        let upper = layer(&[
            Node::File("bin/app", 0o4755, b"#!/bin/sh\n"),
            Node::Link("sh", "bin/app"),
            Node::File(".wh.gone", 0o644, b""),
        ]);
        fixture.layout.image("v1", "amd64", config, &[base, upper]);
        fixture
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn store(&self) -> ImageStore {
        let options = ImageStoreOptions { free_bytes: 8 << 20, ..Default::default() };
        ImageStore::open(&self.data(), options).expect("opened")
    }

    async fn import(&self, store: &ImageStore, tag: Option<&str>) -> Result<Image, ImageError> {
        store.import_layout(&self.layout.dir, tag, "web:v1").await
    }

    async fn check_refused(&self, expected: &str) {
        let store = self.store();
        let error = self.import(&store, None).await.expect_err("must be refused").to_string();
        let error = error.replace(&self.dir.path().display().to_string(), "DIR");
        assert!(error.contains(expected), "{error}");
        assert_eq!(store.list(), []);
        self.check_nothing_left();
    }

    fn check_nothing_left(&self) {
        let left: Vec<_> = fs::read_dir(self.data().join("images/tmp")).expect("there").flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// No credentials.
fn nobody() -> &'static Keyring {
    static NOBODY: std::sync::LazyLock<Keyring> = std::sync::LazyLock::new(Keyring::default);
    &NOBODY
}

/// Runs a debugfs request on an image file, to look inside without mounting it.
fn debugfs(image: &Path, request: &str) -> String {
    let output = Command::new("/sbin/debugfs").arg("-R").arg(request).arg(image).output().expect("e2fsprogs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn an_image_becomes_a_file_system() {
    let fixture = Fixture::with_image();
    let store = fixture.store();
    let image = fixture.import(&store, Some("v1")).await.expect("imported");
    assert_eq!(debugfs(&image.path, "cat /etc/passwd"), "web:x:33:34::/srv:\n");
    let app = debugfs(&image.path, "stat /bin/app");
    assert!(app.contains("Mode:  04755") && app.contains("User:     0"), "{app}");
    assert!(debugfs(&image.path, "stat /sh").contains("Type: symlink"));
    assert!(!debugfs(&image.path, "ls -l /").contains("gone"));
    assert!(!debugfs(&image.path, "features").contains("has_journal"));
    let check = Command::new("/sbin/e2fsck").args(["-fn"]).arg(&image.path).output().expect("e2fsprogs");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    let config = &image.config;
    assert_eq!((config.entrypoint.as_slice(), config.cmd.len()), (["/bin/app".to_owned()].as_slice(), 0));
    assert_eq!((config.user.as_str(), config.users[0].uid, config.working_dir.as_str()), ("web", 33, "/srv"));
    let disk_bytes = store.list()[0].disk_bytes;
    assert!(disk_bytes < 4 << 20, "the image is sparse, yet takes {disk_bytes} bytes");
    fixture.check_nothing_left();
}

#[tokio::test]
async fn a_store_survives_a_restart_and_clears_half_files() {
    let fixture = Fixture::with_image();
    let image = fixture.import(&fixture.store(), None).await.expect("imported");
    let images = fixture.data().join("images");
    fs::create_dir_all(images.join("tmp/half/root")).expect("made");
    let orphan = images.join(format!("{}.ext4", "0".repeat(64)));
    fs::write(&orphan, "half").expect("written");
    let damaged = images.join(format!("{}.json", "1".repeat(64)));
    fs::write(&damaged, "{").expect("written");

    let store = fixture.store();
    assert!(!orphan.exists() && !damaged.exists());
    fixture.check_nothing_left();
    let found = store.find("docker.io/library/web:v1").expect("a name").expect("known");
    assert_eq!((&found.digest, &found.config), (&image.digest, &image.config));
    let by_digest = format!("web@{}", image.digest);
    assert!(store.find(&by_digest).expect("a name").is_some());
    assert!(store.find("other").expect("a name").is_none());
}

#[tokio::test]
async fn the_same_image_is_made_once() {
    let fixture = Fixture::with_image();
    let store = fixture.store();
    let imports = (0..4).map(|_| fixture.import(&store, None));
    let images = futures::future::try_join_all(imports).await.expect("imported");
    let made = fs::metadata(&images[0].path).expect("there").modified().expect("known");
    let again = fixture.import(&store, None).await.expect("imported");
    assert_eq!(fs::metadata(&again.path).expect("there").modified().expect("known"), made);
    assert!(images.iter().all(|image| image.path == again.path));
    assert_eq!(store.list().len(), 1);
}

#[tokio::test]
async fn an_image_in_use_stays() {
    let fixture = Fixture::with_image();
    let store = fixture.store();
    let image = fixture.import(&store, None).await.expect("imported");
    let digest = image.digest.clone();
    assert!(matches!(store.remove(&digest), Err(ImageError::InUse { .. })));
    assert!(store.list()[0].in_use);
    drop(image);
    store.remove(&digest).expect("removed");
    assert!(matches!(store.remove(&digest), Err(ImageError::NotFound { .. })));
    assert_eq!(store.find("web:v1").expect("a name").map(|image| image.digest), None);
    assert_eq!(fixture.store().list(), []);
}

#[tokio::test]
async fn a_tar_of_a_layout_works_as_well() {
    let fixture = Fixture::with_image();
    let tar = fixture.dir.path().join("image.tar");
    let mut builder = tar::Builder::new(File::create(&tar).expect("made"));
    builder.append_dir_all("./", &fixture.layout.dir).expect("packed");
    builder.into_inner().expect("packed");
    let image = fixture.store().import_layout(&tar, Some("v1"), "web").await.expect("imported");
    assert_eq!(image.config.env, ["A=b"]);
    fixture.check_nothing_left();
}

#[tokio::test]
async fn damaged_and_foreign_images_are_refused() {
    let mut fixture = Fixture::new();
    let manifest = fixture.layout.image("v1", "amd64", json!({}), &[layer(&[Node::Dir("etc")])]);
    let hex = manifest["digest"].as_str().expect("text")[7..].to_owned();
    let text = fs::read_to_string(fixture.layout.blob_path(&hex)).expect("there");
    let parsed: serde_json::Value = serde_json::from_str(&text).expect("json");
    let layer_digest = parsed["layers"][0]["digest"].as_str().expect("text").to_owned();
    fs::write(fixture.layout.blob_path(&layer_digest[7..]), layer(&[Node::Dir("evil")])).expect("written");
    let actual = ImageDigest::of(&layer(&[Node::Dir("evil")]));
    fixture.check_refused(&format!("Blob has digest {actual}, but {layer_digest} was expected")).await;

    fs::write(fixture.layout.blob_path(&hex), text.replace("schemaVersion", "schemaversion"))
        .expect("written");
    fixture.check_refused(&format!("but sha256:{hex} was expected")).await;

    let mut fixture = Fixture::new();
    fixture.layout.image("v1", "arm64", json!({}), &[]);
    fixture
        .check_refused("Image docker.io/library/web:v1 is for linux/arm64, this node runs linux/amd64")
        .await;

    let mut fixture = Fixture::new();
    let mut descriptor = fixture.layout.blob("application/vnd.oci.image.manifest.v1+json", b"{}");
    descriptor["platform"] = json!({"os": "linux", "architecture": "s390x"});
    fixture.layout.add(descriptor);
    fixture.check_refused("is for linux/s390x").await;

    let mut fixture = Fixture::new();
    let blob = fixture.layout.blob("application/vnd.oci.image.manifest.v1+json", b"[]");
    fixture.layout.add(blob);
    fixture.check_refused("manifest is not valid").await;

    let mut fixture = Fixture::new();
    let digest = format!("sha256:{}", "0".repeat(64));
    let missing =
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 2});
    fixture.layout.add(missing);
    fixture.check_refused("Cannot open DIR/layout/blobs/sha256/0000").await;

    Fixture::new()
        .check_refused("Image DIR/layout was not found as an OCI layout: it has no index.json")
        .await;
}

#[tokio::test]
async fn tags_choose_and_are_listed_when_they_do_not() {
    let mut fixture = Fixture::with_image();
    fixture.layout.image("v2", "amd64", json!({"Cmd": ["two"]}), &[]);
    let store = fixture.store();
    let two = fixture.import(&store, Some("v2")).await.expect("imported");
    assert_eq!(two.config.cmd, ["two"]);
    for tag in [None, Some("v3")] {
        let error = fixture.import(&store, tag).await.expect_err("ambiguous or unknown").to_string();
        assert!(error.contains("its tags are [v1, v2]"), "{error}");
    }
}

#[tokio::test]
async fn names_and_policies() {
    let fixture = Fixture::with_image();
    let store = fixture.store();
    for bad in ["", "UPPER", "a b", "web@sha512:00"] {
        assert!(matches!(store.find(bad), Err(ImageError::InvalidName { .. })), "{bad}");
    }
    let error = store.pull("web:v1", PullPolicy::Never, nobody()).await.expect_err("not here");
    assert!(error.to_string().contains("its pull policy is Never"), "{error}");
    let image = fixture.import(&store, None).await.expect("imported");
    for policy in [PullPolicy::Never, PullPolicy::IfNotPresent] {
        assert_eq!(store.pull("web:v1", policy, nobody()).await.expect("here").digest, image.digest);
    }
}

/// QEMU finds nothing wrong with a disk that was made over this image: it holds what that holds, takes what is written at its end,
/// and is whole afterwards.
fn check_disk(image: &Path, disk: &Path) {
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).arg(disk).output().expect("qemu-utils");
        let said = String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{program} {args:?}: {said}");
    };
    run("qemu-img", &["compare", "-q", image.to_str().expect("text")]);
    run("qemu-img", &["check", "-q"]);
    let info = Command::new("qemu-img").args(["info", "--output=json"]).arg(disk).output().expect("run");
    let info: serde_json::Value = serde_json::from_slice(&info.stdout).expect("json");
    let last = info["virtual-size"].as_u64().expect("a size") - (64 << 10);
    run("qemu-io", &["-f", "qcow2", "-c", &format!("write -q -P 0xab {last} 64k")]);
    run("qemu-io", &["-f", "qcow2", "-c", &format!("read -q -P 0xab {last} 64k")]);
    run("qemu-img", &["check", "-q"]);
}

#[tokio::test]
async fn an_overlay_lies_on_the_image() {
    let fixture = Fixture::with_image();
    let image = fixture.import(&fixture.store(), None).await.expect("imported");
    let overlay = fixture.dir.path().join("disk.qcow2");
    super::super::create_overlay(&image.path, &overlay, 1 << 30).expect("made");
    let info =
        Command::new("qemu-img").args(["info", "--output=json"]).arg(&overlay).output().expect("qemu-utils");
    let info: serde_json::Value = serde_json::from_slice(&info.stdout).expect("json");
    assert_eq!(info["virtual-size"], json!(1 << 30));
    assert_eq!(info["backing-filename"], json!(image.path.canonicalize().expect("there")));
    assert_eq!(info["backing-filename-format"], json!("raw"));
    check_disk(&image.path, &overlay);
    // One whose first table is longer than a cluster.
    let large = fixture.dir.path().join("large.qcow2");
    super::super::create_overlay(&image.path, &large, 5 << 40).expect("made");
    check_disk(&image.path, &large);
    let error = super::super::create_overlay(&image.path, &overlay, 1 << 30).expect_err("exists");
    assert!(error.to_string().starts_with("Cannot make"), "{error}");
    let missing = fixture.dir.path().join("none.ext4");
    assert!(super::super::create_overlay(&missing, &fixture.dir.path().join("x"), 1).is_err());
}

/// A registry that answers what it is told.
mod registry {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::{BufRead as _, BufReader};
    use std::net::TcpListener;

    /// Serves these paths; returns `host:port` and the list of requested paths.
    pub(super) fn serve(content: BTreeMap<String, (String, Vec<u8>)>) -> (String, Arc<Mutex<Vec<String>>>) {
        serve_cut(content, |_, _| None, false)
    }

    /// What a registry says to a request for a path with an `Authorization` (empty: without).
    pub(super) enum Door {
        /// It gets what it asks for.
        Open,
        /// It has to bring credentials, as this `WWW-Authenticate` says.
        Shut(String),
        /// It gets this JSON.
        Answer(String),
    }

    /// Serves those that a door lets in, which is told the registry's address, the path and the `Authorization`.
    pub(super) fn serve_behind(
        content: BTreeMap<String, (String, Vec<u8>)>,
        door: impl Fn(&str, &str, &str) -> Door + Send + Sync + 'static,
    ) -> (String, Arc<Mutex<Vec<String>>>) {
        serve_all(content, |_, _| None, false, door)
    }

    /// The same; `cut` says of a path and how often it was asked for before after how many bytes the connection breaks. Without
    /// `ranges`, whoever asks for a part gets everything.
    pub(super) fn serve_cut(
        content: BTreeMap<String, (String, Vec<u8>)>,
        cut: impl Fn(&str, usize) -> Option<usize> + Send + Sync + 'static,
        ranges: bool,
    ) -> (String, Arc<Mutex<Vec<String>>>) {
        serve_all(content, cut, ranges, |_, _, _| Door::Open)
    }

    /// All of that together.
    pub(super) fn serve_all(
        content: BTreeMap<String, (String, Vec<u8>)>,
        cut: impl Fn(&str, usize) -> Option<usize> + Send + Sync + 'static,
        ranges: bool,
        door: impl Fn(&str, &str, &str) -> Door + Send + Sync + 'static,
    ) -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, own) = (Arc::clone(&requests), address.clone());
        // Ends with the test's process.
        let answer = move |stream: std::net::TcpStream| {
            let mut reader = BufReader::new(&stream);
            let mut line = String::new();
            let _ = reader.read_line(&mut line);
            let (mut header, mut from, mut authorization) = (String::new(), None, String::new());
            while reader.read_line(&mut header).is_ok_and(|length| length > 2) {
                if let Some((name, value)) = header.split_once(':')
                    && name.eq_ignore_ascii_case("authorization")
                {
                    value.trim().clone_into(&mut authorization);
                }
                let range = header.to_ascii_lowercase();
                let first = range.trim().strip_prefix("range: bytes=").and_then(|r| r.strip_suffix('-'));
                from = first.and_then(|first| first.parse::<usize>().ok()).filter(|_| ranges).or(from);
                header.clear();
            }
            let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            let before = seen.lock().expect("no panic").iter().filter(|known| **known == path).count();
            seen.lock().expect("no panic").push(path.clone());
            let missing =
                (String::from("application/json"), br#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#.to_vec());
            let mut challenge = String::new();
            let asked = (door(&own, &path, &authorization), path.as_str(), content.get(&path));
            let (mut status, (kind, mut body)) = match asked {
                (Door::Shut(wanted), ..) => {
                    challenge = format!("WWW-Authenticate: {wanted}\r\n");
                    ("401 Unauthorized", (kind_json(), br#"{"errors":[{"code":"UNAUTHORIZED"}]}"#.to_vec()))
                }
                (Door::Answer(json), ..) => ("200 OK", (kind_json(), json.into_bytes())),
                (Door::Open, "/v2/", _) => ("200 OK", (kind_json(), b"{}".to_vec())),
                (Door::Open, _, Some(found)) => ("200 OK", found.clone()),
                (Door::Open, _, None) => ("404 Not Found", missing),
            };
            if let Some(from) = from {
                status = "206 Partial Content";
                body = body.split_off(from.min(body.len()));
            }
            let head = format!(
                "HTTP/1.1 {status}\r\n{challenge}Content-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            body.truncate(cut(&path, before).unwrap_or(usize::MAX));
            let _ = (&stream).write_all(head.as_bytes()).and_then(|()| (&stream).write_all(&body));
        };
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || answer(stream));
            }
        });
        (address, requests)
    }

    fn kind_json() -> String {
        "application/json".into()
    }

    /// What a registry would serve of this layout's images, by their tags.
    pub(super) fn content(fixture: &Fixture) -> BTreeMap<String, (String, Vec<u8>)> {
        let mut content = BTreeMap::new();
        for entry in fs::read_dir(fixture.layout.dir.join("blobs/sha256")).expect("there").flatten() {
            let hex = entry.file_name().into_string().expect("hex");
            let bytes = fs::read(entry.path()).expect("there");
            content.insert(format!("/v2/web/blobs/sha256:{hex}"), ("application/octet-stream".into(), bytes));
        }
        let index: serde_json::Value =
            serde_json::from_slice(&fs::read(fixture.layout.dir.join("index.json")).expect("there"))
                .expect("json");
        for entry in index["manifests"].as_array().expect("a list") {
            let digest = entry["digest"].as_str().expect("text");
            let tag = entry["annotations"]["org.opencontainers.image.ref.name"].as_str().expect("text");
            let manifest = fs::read(fixture.layout.blob_path(&digest[7..])).expect("there");
            let kind = "application/vnd.oci.image.manifest.v1+json";
            content.insert(format!("/v2/web/manifests/{tag}"), (kind.into(), manifest));
        }
        content
    }
}

#[tokio::test]
async fn an_image_is_pulled_once_from_a_registry() {
    let fixture = Fixture::with_image();
    let (address, requests) = registry::serve(registry::content(&fixture));
    let store = fixture.store();
    let name = format!("{address}/web:v1");
    let pulls = (0..3).map(|_| store.pull(&name, PullPolicy::IfNotPresent, nobody()));
    let images = futures::future::try_join_all(pulls).await.expect("pulled");
    assert_eq!(debugfs(&images[0].path, "cat /etc/passwd"), "web:x:33:34::/srv:\n");
    let count =
        |part: &str| requests.lock().expect("no panic").iter().filter(|path| path.contains(part)).count();
    assert_eq!(
        (count("/manifests/"), count("/blobs/")),
        (1, 3),
        "one manifest, one configuration, two layers"
    );
    store.pull(&name, PullPolicy::Always, nobody()).await.expect("pulled");
    assert_eq!((count("/manifests/"), count("/blobs/")), (2, 3), "Always asks what the name means, no more");
    fixture.check_nothing_left();
}

#[tokio::test]
async fn a_lying_registry_is_found_out() {
    let fixture = Fixture::with_image();
    let mut content = registry::content(&fixture);
    let damaged = content.iter_mut().find(|(_, (_, bytes))| bytes.len() > 1024).expect("a layer");
    damaged.1.1[600] ^= 1;
    let (address, _) = registry::serve(content);
    let store = fixture.store();
    let error =
        store.pull(&format!("{address}/web:v1"), PullPolicy::Always, nobody()).await.expect_err("damaged");
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
    let error =
        store.pull(&format!("{address}/web:v2"), PullPolicy::Always, nobody()).await.expect_err("unknown");
    assert!(matches!(error, ImageError::NotFound { .. }), "{error}");
    assert_eq!(store.list(), []);
    fixture.check_nothing_left();

    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let error = store
        .pull(&format!("{closed}/web:v1"), PullPolicy::Always, nobody())
        .await
        .expect_err("nobody there");
    assert!(error.to_string().contains("onnect"), "{error}");
}

#[tokio::test]
async fn imports_beside_a_running_agent_are_whole_and_found_at_once() {
    let mut fixture = Fixture::with_image();
    fixture.layout.image("v2", "amd64", json!({"Cmd": ["two"]}), &[]);
    let agent = fixture.store();
    let held = fixture.import(&agent, Some("v1")).await.expect("imported");
    let node = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).expect("there"));
    let inode = node(&held.path);
    // Each import is a process of its own, as far as the files know.
    let import = async |tag: &'static str, name: &'static str| {
        let options = ImageStoreOptions { free_bytes: 8 << 20, ..Default::default() };
        let store = ImageStore::open_beside(&fixture.data(), options).expect("opened");
        store.import_layout(&fixture.layout.dir, Some(tag), name).await.expect("imported")
    };
    let (one, two, again) =
        tokio::join!(import("v2", "one:v2"), import("v2", "two:v2"), import("v1", "again:v1"));
    assert_eq!((&one.digest, &one.path), (&two.digest, &two.path));
    // What guests run from stays the same file.
    assert_eq!((&again.digest, node(&again.path)), (&held.digest, inode));
    for (name, digest) in [("one:v2", &one.digest), ("two:v2", &one.digest), ("again:v1", &held.digest)] {
        let found = agent.find(name).expect("a name").expect("found without a restart");
        assert_eq!(found.digest, *digest, "{name}");
    }
    // A name that comes to mean another image does so at once; whoever holds the former one keeps it.
    let moved = import("v2", "web:v1").await;
    assert_eq!(agent.find("web:v1").expect("a name").expect("found").digest, moved.digest);
    assert!(held.path.exists());
    // What the agent names afterwards does not undo what was imported.
    fixture.import(&agent, Some("v1")).await.expect("imported");
    assert!(agent.find("two:v2").expect("a name").is_some());
    // Nothing is left of the imports, and an agent that starts now clears only what is dead.
    let incoming = || fs::read_dir(fixture.data().join("images/incoming")).map_or(0, Iterator::count);
    assert_eq!(incoming(), 0);
    let options = ImageStoreOptions::default();
    let living = ImageStore::open_beside(&fixture.data(), options).expect("opened");
    drop(fixture.store());
    assert_eq!(incoming(), 1, "an import goes on while an agent starts");
    drop(living);
    fs::create_dir_all(fixture.data().join("images/incoming/dead")).expect("made");
    drop(fixture.store());
    assert_eq!(incoming(), 0);
}

#[tokio::test]
async fn a_registry_that_is_gone_in_mid_pull_is_named_and_the_pull_goes_on_where_it_was() {
    for ranges in [true, false] {
        let fixture = Fixture::with_image();
        let content = registry::content(&fixture);
        // Both layers break off once; the configuration is shorter than that.
        let once = |path: &str, before| (path.contains("/blobs/") && before == 0).then_some(700);
        let (address, requests) = registry::serve_cut(content, once, ranges);
        let store = fixture.store();
        let image = store
            .pull(&format!("{address}/web:v1"), PullPolicy::IfNotPresent, nobody())
            .await
            .expect("pulled");
        assert_eq!(debugfs(&image.path, "cat /etc/passwd"), "web:x:33:34::/srv:\n");
        let blobs = requests.lock().expect("no panic").iter().filter(|path| path.contains("/blobs/")).count();
        assert_eq!(blobs, 5, "one configuration, and two layers in two parts each");
        fixture.check_nothing_left();
    }
}

#[tokio::test]
async fn a_registry_that_is_gone_for_good_leaves_nothing_half_pulled_and_no_wrong_word() {
    let fixture = Fixture::with_image();
    // Each time it is the same: nothing comes after so many bytes.
    let (address, _) = registry::serve_cut(
        registry::content(&fixture),
        |path, before| path.contains("/blobs/").then_some(if before == 0 { 600 } else { 0 }),
        true,
    );
    let store = fixture.store();
    let error =
        store.pull(&format!("{address}/web:v1"), PullPolicy::Always, nobody()).await.expect_err("cut");
    // It is neither damaged nor tampered with.
    assert!(matches!(error, ImageError::Registry { .. }), "{error}");
    assert!(error.to_string().contains("bytes of a blob"), "{error}");
    assert_eq!(store.list(), []);
    fixture.check_nothing_left();
    // It comes back, as another attempt finds out.
    let (address, _) = registry::serve(registry::content(&fixture));
    store.pull(&format!("{address}/web:v1"), PullPolicy::Always, nobody()).await.expect("pulled");
}

#[tokio::test]
async fn a_damaged_cache_is_noticed_and_the_image_fetched_again() {
    let fixture = Fixture::with_image();
    let (address, requests) = registry::serve(registry::content(&fixture));
    let name = format!("{address}/web:v1");
    let pull = async |store: &ImageStore, policy| store.pull(&name, policy, nobody()).await;
    let manifests =
        || requests.lock().expect("no panic").iter().filter(|path| path.contains("/manifests/")).count();
    let image = pull(&fixture.store(), PullPolicy::IfNotPresent).await.expect("pulled");
    // Another life finds it as it was.
    pull(&fixture.store(), PullPolicy::IfNotPresent).await.expect("here");
    assert_eq!(manifests(), 1);

    // One bit of a file in it, as a disk may lose it.
    let bytes = fs::read(&image.path).expect("read");
    let at = bytes.windows(9).position(|bytes| bytes == b"web:x:33:").expect("it is in there");
    flip(&image.path, at);
    let again = pull(&fixture.store(), PullPolicy::IfNotPresent).await.expect("fetched again");
    assert_eq!((manifests(), again.digest), (2, image.digest.clone()));
    assert_eq!(debugfs(&image.path, "cat /etc/passwd"), "web:x:33:34::/srv:\n");

    // One of a place where nothing was.
    let empty =
        bytes.chunks(4096).rposition(|block| block.iter().all(|&byte| byte == 0)).expect("room") * 4096;
    flip(&image.path, empty);
    pull(&fixture.store(), PullPolicy::IfNotPresent).await.expect("fetched again");
    assert_eq!(manifests(), 3);

    // One of what the image runs.
    let record = image.path.with_extension("json");
    let text = fs::read_to_string(&record).expect("read");
    fs::write(&record, text.replace("/bin/app", "/bin/apq")).expect("written");
    let again = pull(&fixture.store(), PullPolicy::IfNotPresent).await.expect("fetched again");
    assert_eq!((manifests(), again.config.entrypoint.clone()), (4, image.config.entrypoint.clone()));

    // Where nobody may be asked, it is not given out.
    flip(&image.path, at);
    let refused = pull(&fixture.store(), PullPolicy::Never).await.expect_err("damaged");
    assert!(matches!(refused, ImageError::NotFound { .. }), "{refused}");
}

/// Changes one bit of a file.
fn flip(path: &Path, at: usize) {
    use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("ours");
    let file = File::options().read(true).write(true).open(path).expect("opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).expect("read");
    file.write_all_at(&[byte[0] ^ 1], at as u64).expect("written");
}
