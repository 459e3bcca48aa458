//! A server and its disk: what is written and flushed when, and what becomes of a server whose disk fails or is full.

use bulkhead_controlplane_core::server::Input;
use bulkhead_storage::StorageError;
use bulkhead_types::MemberId;

use super::FULL_RETRY_US;
use crate::disk::Written;
use crate::invariants::Violation;
use crate::network::Host;
use crate::world::{Event, World};

impl World {
    /// Writes what waits for the disk, and lets the flush happen later.
    pub(crate) fn write_log(&mut self, member: MemberId, life: u32) {
        let now_us = self.now_us;
        let Some(up) = self.running(member, life) else { return };
        match up.requests.write(&mut up.stores) {
            Ok(Written::Nothing | Written::Answer(0)) => {}
            Ok(Written::Answer(number)) => self.give(member, Input::Persisted { number }),
            Ok(Written::Flush) => {
                let after_us = self.servers.get_mut(&member).map_or(1, |h| h.disk.flush_us(now_us));
                self.queue.push(now_us + after_us, Event::Flushed { member, life });
            }
            Err(error) => self.disk_failed(member, life, &error),
        }
    }

    /// The device has flushed.
    pub(crate) fn flush_log(&mut self, member: MemberId, life: u32) {
        let Some(up) = self.running(member, life) else { return };
        match up.requests.flush(&mut up.stores) {
            Ok(number) => {
                self.note(Host::Server(member), "flushed", u128::from(number.unwrap_or(0)), || {
                    format!("request {number:?}")
                });
                if let Some(number) = number {
                    self.give(member, Input::Persisted { number });
                }
                self.write_log(member, life);
            }
            Err(error) => self.disk_failed(member, life, &error),
        }
    }

    /// A full disk makes the server wait; any other failure ends the process, which starts again.
    pub(crate) fn disk_failed(&mut self, member: MemberId, life: u32, error: &StorageError) {
        self.note(Host::Server(member), "disk failed", u128::from(error.is_full()), || error.to_string());
        let damaged = self.servers.get(&member).is_some_and(|h| h.disk.damaged);
        if error.is_fatal() && damaged {
            return self.give_disk_up(member);
        }
        if matches!(error, StorageError::Invalid { .. }) || error.is_fatal() {
            return self.fail(Violation::new("disk", format!("server {member}: {error}")));
        }
        if error.is_full() {
            let Some(up) = self.running(member, life) else { return };
            let newly = !std::mem::replace(&mut up.full, true);
            if newly {
                self.give(member, Input::DiskFull(true));
            }
            self.queue.push(self.now_us + FULL_RETRY_US, Event::LookForSpace { member, life });
        } else {
            let after_us = self.rng.range(1000, 1_000_000);
            self.crash_server(member, after_us);
        }
    }

    /// Looks whether a full disk has room again.
    pub(crate) fn look_for_space(&mut self, member: MemberId, life: u32) {
        let now_us = self.now_us;
        let Some(up) = self.running(member, life).filter(|up| up.full) else { return };
        if up.stores.log.check_space().is_err() {
            return self.queue.push(now_us + FULL_RETRY_US, Event::LookForSpace { member, life });
        }
        up.full = false;
        self.give(member, Input::DiskFull(false));
        self.write_log(member, life);
    }
}
