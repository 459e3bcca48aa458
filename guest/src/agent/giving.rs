//! The pod waits until what is in its volumes belongs to its group.

use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::unistd::Gid;

use super::{Agent, TOKEN_GIVER};
use crate::ownership::{Giver, News};
use crate::supervisor::Event;

/// What takes longer than this is said, in milliseconds.
const SAID_AFTER_MS: u64 = 3_000;

impl Agent {
    /// The pod begins, at once or when its volumes' content is given to its group.
    pub(super) fn begin(&mut self, group: Option<u32>) {
        let (volumes, Some(group)) = (self.volumes.take_ungiven(), group) else {
            return self.supervise(Event::Begin);
        };
        if volumes.is_empty() {
            return self.supervise(Event::Begin);
        }
        let started = Giver::start(&volumes, Gid::from_raw(group), self.now.monotonic_ms);
        let watched = started.and_then(|giver| {
            self.epoll.add(giver.fd(), EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_GIVER))?;
            Ok(giver)
        });
        match watched {
            Ok(giver) => self.giver = Some(giver),
            Err(error) => self.fail(format!("give the volumes to group {group}: {error:#}")),
        }
    }

    pub(super) fn on_giver(&mut self) {
        let Some(giver) = &mut self.giver else { return };
        let news = giver.news();
        let (group, took_ms) = (giver.group, self.now.monotonic_ms.saturating_sub(giver.began_ms));
        match news {
            None => {}
            Some(News::Going { seen }) => {
                eprintln!(
                    "bulkhead-guest: {seen} files and folders belong to group {group}, after {took_ms} ms"
                );
                // Once, and without a number: each word is one in the cluster's log.
                if took_ms >= SAID_AFTER_MS {
                    let message = format!(
                        "what is in the pod's volumes is being given to group {group} (fsGroup), file by file; with \
                         fsGroupChangePolicy: OnRootMismatch that is done once"
                    );
                    self.supervise(Event::Preparing { message });
                }
            }
            Some(News::Done) => {
                self.forget_giver();
                self.supervise(Event::Begin);
            }
            Some(News::Failed(why)) => {
                self.forget_giver();
                self.fail(why);
            }
        }
    }

    /// The process ends, if it is not over. What was made meanwhile may have a copy of the socket.
    pub(super) fn forget_giver(&mut self) {
        if let Some(giver) = self.giver.take() {
            let _ = self.epoll.delete(giver.fd());
        }
    }
}
