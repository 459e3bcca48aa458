//! The user's terminal while a command in a pod has it.

use std::io::IsTerminal as _;

use bulkhead_proto::v1;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::failure::Failure;

/// Whether standard input is one.
pub(in crate::commands) fn is_one() -> bool {
    std::io::stdin().is_terminal()
}

/// Its size, where it tells one.
pub(in crate::commands) fn size() -> Option<v1::TerminalSize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdin())
        .or_else(|_| rustix::termios::tcgetwinsize(std::io::stdout()))
        .ok()?;
    Some(v1::TerminalSize { rows: size.ws_row.into(), columns: size.ws_col.into() })
}

/// Sends every new size, as long as somebody else holds the requests: the command's input must not stay open because of
/// this.
pub(super) async fn tell_sizes(requests: mpsc::WeakSender<v1::ExecRequest>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    while changes.recv().await.is_some() {
        let (Some(requests), Some(size)) = (requests.upgrade(), size()) else { return };
        let message = Some(v1::exec_request::Message::Resize(size));
        if requests.send(v1::ExecRequest { message }).await.is_err() {
            return;
        }
    }
}

/// The terminal, raw: every key goes to the command. Dropping it restores what was.
pub(super) struct Terminal(Termios);

impl Terminal {
    pub(super) fn make_raw() -> Result<Self, Failure> {
        let failed = |error| Failure::failed(format!("the terminal cannot be changed: {error}"));
        let before = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &raw).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // There is nobody to tell: the terminal is gone.
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}
