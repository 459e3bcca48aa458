//! Figures: on the terminal, and as JSON lines in a file.

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;

use super::load::Sample;
use super::{OutputArgs, print_figure, print_samples};
use crate::failure::Failure;
use crate::output::emit_line;

/// One measured figure. Field names are those of the results file.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    /// What it is compared with, such as `etcd`.
    pub(super) peer: Option<String>,
    pub(super) peer_value: Option<f64>,
    /// `value / peer_value`.
    pub(super) ratio: Option<f64>,
    cores: usize,
    /// Of the measurement, UTC, `YYYY-MM-DD`.
    date: String,
}

impl Figure {
    pub(super) fn new(name: &str, value: f64, unit: &'static str) -> Self {
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (peer, peer_value, ratio) = (None, None, None);
        Self { name: name.to_owned(), value: rounded(value), unit, peer, peer_value, ratio, cores, date }
    }

    pub(super) fn throughput(name: &str, per_second: f64) -> Self {
        Self::new(name, per_second, "1/s")
    }

    pub(super) fn milliseconds(name: &str, ms: f64) -> Self {
        Self::new(name, ms, "ms")
    }

    /// The same figure beside a peer's.
    pub(super) fn beside(self, peer: &str, peer_value: f64) -> Self {
        let ratio = (peer_value > 0.0).then(|| rounded(self.value / peer_value));
        Self { peer: Some(peer.to_owned()), peer_value: Some(rounded(peer_value)), ratio, ..self }
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.value, self.unit)?;
        if let (Some(peer), Some(value), Some(ratio)) = (&self.peer, self.peer_value, self.ratio) {
            write!(f, ", {peer} {value} {}, ratio {ratio}", self.unit)?;
        }
        Ok(())
    }
}

/// Where figures go.
pub(super) struct Results {
    json: bool,
    file: Option<PathBuf>,
    figures: Vec<Figure>,
    samples: Vec<(String, Sample)>,
}

impl Results {
    /// Checks that the results file can be written, before anything takes its time.
    pub(super) fn open(args: &OutputArgs) -> Result<Self, Failure> {
        let results =
            Self { json: args.json, file: args.results.clone(), figures: Vec::new(), samples: Vec::new() };
        results.append("")?;
        Ok(results)
    }

    fn append(&self, line: &str) -> anyhow::Result<()> {
        let Some(path) = &self.file else { return Ok(()) };
        let cannot = || format!("cannot write {}", path.display());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(cannot)?;
        }
        let mut file =
            std::fs::OpenOptions::new().create(true).append(true).open(path).with_context(cannot)?;
        file.write_all(line.as_bytes()).with_context(cannot)
    }

    /// Writes a figure down.
    pub(super) fn add(&mut self, figure: Figure) -> Result<(), Failure> {
        let line = serde_json::to_string(&figure).context("a figure cannot be written as JSON")?;
        self.append(&format!("{line}\n"))?;
        if self.json {
            emit_line(&line)?;
        }
        self.figures.push(figure);
        Ok(())
    }

    /// Keeps a sample for the table at the end.
    pub(super) fn show(&mut self, name: &str, sample: &Sample) -> Result<(), Failure> {
        self.samples.push((name.to_owned(), sample.clone()));
        Ok(())
    }

    /// Prints what was measured, unless it was printed as JSON.
    pub(super) fn finish(self) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        if !self.samples.is_empty() {
            print_samples(&self.samples)?;
        }
        for figure in self.figures.iter().filter(|f| f.peer.is_some() || self.samples.is_empty()) {
            print_figure(figure)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_one_json_line_with_the_agreed_fields() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("deep/results.jsonl");
        let args = OutputArgs { json: false, results: Some(file.clone()) };
        let mut results = Results::open(&args).expect("a file that can be written");
        results
            .add(Figure::throughput("log.unary.c1.throughput", 3000.0).beside("etcd", 1000.0))
            .expect("written");
        results.add(Figure::milliseconds("failover.next_ack", 12.3456)).expect("written");
        let text = std::fs::read_to_string(file).expect("the file");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        assert_eq!(lines.len(), 2);
        for field in ["name", "value", "unit", "peer", "peer_value", "ratio", "cores", "date"] {
            assert!(lines.iter().all(|l| l.get(field).is_some()), "{field}");
        }
        assert_eq!(lines[0]["ratio"], 3.0);
        assert_eq!(lines[1]["value"], 12.346);
        assert_eq!(lines[1]["peer"], serde_json::Value::Null);
    }
}
