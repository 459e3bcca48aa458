//! Many clients for a while, and what each write took.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::LoadArgs;
use super::writer::{ERROR_PAUSE, Pool, Writer};
use crate::failure::{Class, Failure, describe};

/// Longest time that is told apart, in microseconds.
const LONGEST_US: u64 = 600_000_000;
const DIGITS: u8 = 3;

/// What was measured.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) latency_us: Histogram<u64>,
    pub(super) seconds: f64,
    pub(super) errors: u64,
    last_error: Option<String>,
}

impl Sample {
    pub(super) fn new() -> Self {
        let latency_us =
            Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("the bounds are constants that hold");
        Self { latency_us, seconds: 0.0, errors: 0, last_error: None }
    }

    pub(super) fn record(&mut self, took: Duration) {
        self.latency_us.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST_US).max(1));
    }

    pub(super) fn record_error(&mut self, status: &tonic::Status) {
        self.errors += 1;
        self.last_error = Some(describe(status));
    }

    /// Clients that ran side by side.
    pub(super) fn merge_parallel(&mut self, other: &Self) {
        self.latency_us.add(&other.latency_us).expect("both have the same bounds");
        self.errors += other.errors;
        self.seconds = self.seconds.max(other.seconds);
        self.last_error = self.last_error.take().or_else(|| other.last_error.clone());
    }

    /// A further run of the same load.
    pub(super) fn merge_round(&mut self, other: &Self) {
        let seconds = self.seconds + other.seconds;
        self.merge_parallel(other);
        self.seconds = seconds;
    }

    pub(super) fn throughput(&self) -> f64 {
        if self.seconds > 0.0 { self.latency_us.len() as f64 / self.seconds } else { 0.0 }
    }

    pub(super) fn quantile_ms(&self, quantile: f64) -> f64 {
        self.latency_us.value_at_quantile(quantile) as f64 / 1000.0
    }

    pub(super) fn p99_ms(&self) -> f64 {
        self.quantile_ms(0.99)
    }

    /// A figure of nothing would be a lie.
    pub(super) fn checked(self) -> Result<Self, Failure> {
        if !self.latency_us.is_empty() {
            return Ok(self);
        }
        let why = self.last_error.unwrap_or_else(|| "no answer".to_owned());
        Err(Failure::new(
            Class::Unavailable,
            format!("not one write was acknowledged; the last answer: {why}"),
        ))
    }
}

/// Runs `clients` clients: first unmeasured, then measured.
pub(super) async fn run(pool: &Pool, clients: usize, load: &LoadArgs) -> Result<Sample, Failure> {
    let begin = Instant::now() + load.warm_up;
    let end = begin + load.duration;
    let tasks: Vec<_> =
        (0..clients).map(|client| tokio::spawn(drive(pool.writer(client), begin, end))).collect();
    let mut sample = Sample::new();
    for task in tasks {
        let one = task.await.map_err(|e| Failure::failed(format!("a client failed: {e}")))?;
        sample.merge_parallel(&one);
    }
    sample.seconds = load.duration.as_secs_f64();
    sample.checked()
}

async fn drive(mut writer: Writer, begin: Instant, end: Instant) -> Sample {
    let mut sample = Sample::new();
    loop {
        let started = Instant::now();
        if started >= end {
            return sample;
        }
        let outcome = writer.write().await;
        let now = Instant::now();
        match outcome {
            // Counted when it is acknowledged within the measured time.
            Ok(()) if now >= begin && now < end => sample.record(now - started),
            Ok(()) => {}
            Err(status) => {
                sample.record_error(&status);
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_add_up_their_time_and_clients_do_not() {
        let mut one = Sample::new();
        (1..=100).for_each(|ms| one.record(Duration::from_millis(ms)));
        one.seconds = 2.0;
        let mut parallel = one.clone();
        parallel.merge_parallel(&one);
        assert_eq!(parallel.throughput(), 100.0);
        let mut rounds = one.clone();
        rounds.merge_round(&one);
        assert_eq!(rounds.throughput(), 50.0);
        assert!((98.0..=100.1).contains(&rounds.p99_ms()), "{}", rounds.p99_ms());
        assert!(Sample::new().checked().is_err());
    }
}
