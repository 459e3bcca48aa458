//! Where a data directory came from, when it was not a new cluster's: a small text file in it.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use bulkhead_types::MemberId;
use smol_str::SmolStr;
use uuid::Uuid;

use super::directory::write_durably;
use super::members_text;

const FILE: &str = "origin";

/// Where a data directory came from. Its founders start with the same `--initial-cluster` as with the restore,
/// but their cluster's identity does not follow from that: this file connects the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    cluster_id: Uuid,
    initial_cluster: String,
    source: String,
}

impl Origin {
    pub(super) fn new(cluster_id: Uuid, founders: &[(MemberId, SmolStr)], source: &str) -> Self {
        Self { cluster_id, initial_cluster: members_text(founders), source: source.replace('\n', " ") }
    }

    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let mut text = String::new();
        for (name, value) in [
            ("cluster_id", self.cluster_id.to_string()),
            ("initial_cluster", self.initial_cluster.clone()),
            ("source", self.source.clone()),
        ] {
            writeln!(text, "{name} = {value}").map_err(io::Error::other)?;
        }
        write_durably(dir, FILE, &text)
    }

    /// Reads it; `None` when there is none, or when it is of another cluster than the directory.
    pub(crate) fn read(dir: &Path, cluster_id: Uuid) -> io::Result<Option<Self>> {
        let text = match std::fs::read_to_string(dir.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let field = |name: &str| {
            let fields = text.lines().filter_map(|line| line.split_once(" = "));
            fields.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
        };
        let read = || {
            Some(Self {
                cluster_id: Uuid::parse_str(&field("cluster_id")?).ok()?,
                initial_cluster: field("initial_cluster")?,
                source: field("source")?,
            })
        };
        Ok(read().filter(|origin| origin.cluster_id == cluster_id))
    }

    /// Whether the directory was made for a cluster of these founders.
    pub(crate) fn is_of(&self, founders: &[(MemberId, SmolStr)]) -> bool {
        self.initial_cluster == members_text(founders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_read_back_and_only_counts_for_its_own_cluster() {
        let dir = tempfile::tempdir().expect("a folder");
        let (a, b) = ((MemberId(1), SmolStr::new("a:1")), (MemberId(2), SmolStr::new("b:1")));
        let cluster_id = Uuid::from_u128(5);
        assert_eq!(Origin::read(dir.path(), cluster_id).expect("no file"), None);
        Origin::new(cluster_id, &[b.clone(), a.clone()], "x").write(dir.path()).expect("written");
        let read = Origin::read(dir.path(), cluster_id).expect("readable").expect("there");
        assert!(read.is_of(&[a.clone(), b]));
        assert!(!read.is_of(&[a]));
        assert_eq!(Origin::read(dir.path(), Uuid::from_u128(6)).expect("readable"), None);
    }
}
