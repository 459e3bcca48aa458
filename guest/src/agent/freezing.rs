//! Volumes that stand still, one at a time.

use bulkhead_guest_protocol::TEXT_LENGTH_MAX;
use bulkhead_guest_protocol::guest::{self, GuestMessage};
use bulkhead_guest_protocol::host;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{Agent, TOKEN_FREEZER};
use crate::freeze::{Freezer, News};

impl Agent {
    /// Holds a volume still, or lets it go on; the answer follows.
    pub(super) fn freeze(&mut self, wish: host::FreezeVolume) {
        let refusal = match (&self.freezer, wish.frozen) {
            (Some(freezer), false) if freezer.volume == wish.volume => return freezer.thaw(),
            (_, false) => Some(format!("{} does not stand still", wish.volume)),
            (Some(freezer), true) => Some(format!("{} stands still already", freezer.volume)),
            (None, true) => {
                let path = self.volumes.freezable(&wish.volume);
                let started = path.and_then(|path| Freezer::start(wish.volume.clone(), &path, wish.for_ms));
                let watched = started.and_then(|freezer| {
                    self.epoll.add(freezer.fd(), EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_FREEZER))?;
                    Ok(freezer)
                });
                match watched {
                    Ok(freezer) => {
                        self.freezer = Some(freezer);
                        None
                    }
                    Err(error) => Some(format!("{error:#}")),
                }
            }
        };
        if let Some(error) = refusal {
            self.say_frozen(wish.volume, false, error);
        }
    }

    pub(super) fn on_freezer(&mut self) {
        let Some(freezer) = &mut self.freezer else { return };
        let volume = freezer.volume.clone();
        let (frozen, error) = match freezer.news() {
            News::None => return,
            News::Frozen => return self.say_frozen(volume, true, String::new()),
            News::Over { in_time: true } => (false, String::new()),
            News::Over { in_time: false } => (false, "its time was over before it was let go on".to_owned()),
            News::Failed(error) => (false, error),
        };
        self.let_go();
        self.say_frozen(volume, frozen, error);
    }

    /// The volume that stands still goes on. Processes that were made meanwhile may have a copy of the socket, so that closing
    /// it alone would neither tell the other end nor take it out of epoll.
    pub(super) fn let_go(&mut self) {
        if let Some(freezer) = self.freezer.take() {
            let _ = self.epoll.delete(freezer.fd());
        }
    }

    fn say_frozen(&mut self, volume: String, frozen: bool, mut error: String) {
        error.truncate(error.floor_char_boundary(TEXT_LENGTH_MAX));
        self.channel.send(&GuestMessage::VolumeFrozen(guest::VolumeFrozen { volume, frozen, error }));
    }
}
