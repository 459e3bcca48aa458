//! The table of planted bugs, the manifests and the sources agree; and no product has a planted bug in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use simulations::canaries::CANARIES;

/// Crates that may have planted bugs.
const CRATES: [&str; 4] = ["controlplane/core", "controlplane/disk", "nodeagent/core", "storage"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's root").to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// The lines of `[features]`: name and the rest.
fn features(manifest: &str) -> BTreeMap<String, String> {
    let lines = manifest.lines().skip_while(|line| *line != "[features]").skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    lines
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, on)| (name.to_owned(), on.to_owned()))
        .collect()
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Names that are planted in a file.
fn planted(text: &str) -> impl Iterator<Item = &str> {
    text.split("planted!(\"").skip(1).filter_map(|rest| rest.split('"').next())
}

#[test]
fn every_planted_bug_is_in_the_table_the_manifests_and_the_source() {
    let table: BTreeSet<&str> = CANARIES.iter().map(|canary| canary.name).collect();
    assert_eq!(table.len(), CANARIES.len(), "a name twice");
    assert!(table.len() >= 20, "{}", table.len());
    for canary in CANARIES {
        let text = read(&root().join(canary.place));
        assert!(planted(&text).any(|name| name == canary.name), "{} is not in {}", canary.name, canary.place);
    }
    let mut in_crates = BTreeMap::new();
    for directory in CRATES {
        let manifest = read(&root().join(directory).join("Cargo.toml"));
        let mut files = Vec::new();
        sources(&root().join(directory).join("src"), &mut files);
        let texts: Vec<String> = files.iter().map(|path| read(path)).collect();
        let in_source: BTreeSet<&str> = texts.iter().flat_map(|text| planted(text)).collect();
        let features = features(&manifest);
        let canaries: BTreeSet<&str> = features.keys().map(String::as_str).collect();
        assert_eq!(canaries, in_source, "features and sources of {directory}");
        assert!(features.values().all(|on| on == "[\"bulkhead-canary/armed\"]"), "{directory}: {features:?}");
        for name in features.into_keys() {
            assert_eq!(in_crates.insert(name, directory), None, "a feature of two crates");
        }
    }
    assert_eq!(in_crates.keys().map(String::as_str).collect::<BTreeSet<_>>(), table);
    let own = read(&root().join("simulations/Cargo.toml"));
    let forwarded: BTreeSet<String> =
        features(&own).into_keys().filter(|name| name.starts_with("canary_")).collect();
    assert_eq!(forwarded, in_crates.into_keys().collect());
    for name in &table {
        assert!(own.contains(&format!("  \"{name}\",\n")), "{name} is not among `canaries`");
    }
}

#[test]
fn nothing_turns_a_planted_bug_on_but_the_simulator_s_own_features() {
    let workspace = read(&root().join("Cargo.toml"));
    let members = workspace.lines().skip_while(|line| *line != "members = [").skip(1);
    let members = members
        .take_while(|line| *line != "]")
        .map(|line| line.trim().trim_matches([',', '"']).trim_matches('"'));
    let mut seen = 0;
    for member in members {
        seen += 1;
        let manifest = read(&root().join(member).join("Cargo.toml"));
        assert!(!features(&manifest).contains_key("default"), "{member} has default features");
        let uses = manifest.lines().any(|line| line.contains("canary_") || line.contains("armed"));
        let allowed = CRATES.contains(&member) || member.starts_with("simulations");
        assert!(!uses || allowed, "{member} names a planted bug");
    }
    assert!(seen > 10, "{seen} members");
    assert!(!workspace.contains("canary_") && !workspace.contains("armed"));
    for product in ["controlplane/src/lib.rs", "nodeagent/src/lib.rs"] {
        assert!(read(&root().join(product)).contains("bulkhead_canary::unarmed!();"), "{product}");
    }
}
