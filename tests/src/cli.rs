//! The command line, as an operator uses it.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::process::bulkhead;

/// Commands against some servers.
#[derive(Clone, Debug)]
pub struct Cli {
    servers: String,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Done {
    /// The exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Done {
    /// Insists on success.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Insists on an exit code and on words on standard error.
    ///
    /// # Panics
    /// When either is otherwise.
    #[track_caller]
    pub fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in: {}", self.stderr);
        }
    }
}

impl Cli {
    /// Asks these servers in turn.
    #[must_use]
    pub fn new(servers: &[String]) -> Self {
        Self { servers: servers.join(",") }
    }

    /// A command with nothing started yet.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(bulkhead());
        command.env_remove("BULKHEAD_NAMESPACE").env_remove("BULKHEAD_ACTOR");
        command.args(["--server", &self.servers]).args(args).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// When the program cannot be started or dies of a signal.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Done {
        let output = self.command(args).output().expect("the program starts");
        Done {
            code: output.status.code().unwrap_or_else(|| panic!("{args:?} died: {}", output.status)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Applies manifests that are right.
    ///
    /// # Panics
    /// When they are refused.
    #[track_caller]
    pub fn apply(&self, dir: &Path, text: &str) {
        let file = dir.join("applied.yaml");
        std::fs::write(&file, text).expect("a manifest file");
        // An election on a busy machine is waited out.
        let _ = self.run(&["--timeout", "90s", "apply", "-f", file.to_str().expect("a path in UTF-8")]).ok();
    }

    /// One object as JSON, if it is there.
    ///
    /// # Panics
    /// When the answer is neither an object nor `not found`.
    #[must_use]
    pub fn object(&self, kind: &str, name: &str) -> Option<Value> {
        let done = self.run(&["--timeout", "90s", "get", kind, name, "-o", "json"]);
        if done.code == 3 {
            return None;
        }
        Some(serde_json::from_str(&done.ok()).expect("JSON"))
    }
}
