//! Which cluster this agent belongs to: learnt at the first registration, kept in the data directory.
//!
//! A cluster that was restored from a backup, or recovered, has a new identity although its servers may listen
//! where the old one's did. What this agent runs is the old one's, so it does not follow by itself.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The file in the data directory: the cluster's id in one line.
const FILE: &str = "cluster";

/// Which cluster this agent belongs to.
#[derive(Debug)]
pub(crate) struct Belonging {
    path: PathBuf,
    cluster_id: String,
}

impl Belonging {
    /// Reads what is known; an operator's word goes before it.
    pub(crate) fn open(data_dir: &Path, adopt: Option<&str>) -> io::Result<Self> {
        let path = data_dir.join(FILE);
        let cluster_id = match fs::read_to_string(&path) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut belonging = Self { path, cluster_id };
        if let Some(adopted) = adopt.filter(|adopted| *adopted != belonging.cluster_id) {
            belonging.write(adopted)?;
        }
        Ok(belonging)
    }

    /// The cluster's id; empty while it is not known.
    pub(crate) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// A server says which cluster it is of. An older server says nothing, and learns nothing either.
    pub(crate) fn learn(&mut self, found: &str) -> Result<(), String> {
        if found.is_empty() || found == self.cluster_id {
            return Ok(());
        }
        if !self.cluster_id.is_empty() {
            return Err(format!(
                "this agent belongs to cluster {}, that server to cluster {found}; start the agent with \
                 --adopt-cluster {found} if it is to follow it",
                self.cluster_id
            ));
        }
        self.write(found).map_err(|error| format!("{}: {error}", self.path.display()))
    }

    fn write(&mut self, cluster_id: &str) -> io::Result<()> {
        let partial = self.path.with_extension("partial");
        let mut file = File::create(&partial)?;
        writeln!(file, "{cluster_id}")?;
        file.sync_all()?;
        fs::rename(&partial, &self.path)?;
        self.cluster_id = cluster_id.to_owned();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_stays_with_its_cluster_until_an_operator_says_otherwise() {
        let dir = tempfile::tempdir().expect("a folder");
        let open = |adopt| Belonging::open(dir.path(), adopt).expect("readable");
        let mut fresh = open(None);
        assert_eq!(fresh.cluster_id(), "");
        assert_eq!(fresh.learn(""), Ok(()), "an older server");
        assert_eq!(fresh.learn("a"), Ok(()));
        let mut known = open(None);
        assert_eq!(known.cluster_id(), "a");
        assert!(known.learn("b").is_err_and(|error| error.contains("--adopt-cluster b")));
        assert_eq!(open(None).cluster_id(), "a");
        assert_eq!(open(Some("b")).cluster_id(), "b");
        assert_eq!(open(None).cluster_id(), "b");
    }
}
