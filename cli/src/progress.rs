//! A line that says what is being waited for, on terminals only.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is done sooner shows no line.
const SHOW_AFTER: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(120);

/// The line; gone when dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    shown: Option<tokio::task::JoinHandle<()>>,
}

impl Progress {
    /// Shows `message` once a second has passed. Must be called inside of a runtime.
    pub(crate) fn start(message: impl Into<String>) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(message.into());
        let shown = std::io::stderr().is_terminal().then(|| {
            let bar = bar.clone();
            tokio::spawn(async move {
                tokio::time::sleep(SHOW_AFTER).await;
                bar.set_draw_target(ProgressDrawTarget::stderr());
                bar.enable_steady_tick(TICK);
            })
        });
        Self { bar, shown }
    }

    /// Changes the message.
    pub(crate) fn set(&self, message: impl Into<String>) {
        self.bar.set_message(message.into());
    }

    /// Takes the line away while something is printed.
    pub(crate) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(task) = &self.shown {
            task.abort();
        }
        self.bar.finish_and_clear();
    }
}
