//! Pipes of containers: what they write, what they read, and when either waits.

use std::fs::File;

use bulkhead_guest_protocol::guest::LogStream;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{Agent, LOG_STALL_MS, PUMP_ROUNDS_MAX, TOKEN_CONTAINERS};
use crate::container::{Container, ExecReport};
use crate::supervisor::Event;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pipe {
    Exec = 0,
    Stdout = 1,
    Stderr = 2,
}

fn token(index: usize, pipe: Pipe) -> u64 {
    TOKEN_CONTAINERS + 4 * index as u64 + pipe as u64
}

impl Agent {
    /// Registers the three pipes of a new process.
    pub(super) fn watch(&mut self, index: usize) {
        let Some(process) = self.pod.as_ref().and_then(|pod| pod.containers[index].process.as_ref()) else {
            return;
        };
        let pipes = [
            (Pipe::Exec, &process.exec),
            (Pipe::Stdout, &process.stdio.stdout),
            (Pipe::Stderr, &process.stdio.stderr),
        ];
        // Who has a terminal writes all to it.
        for (pipe, file) in pipes.into_iter().filter_map(|(pipe, file)| Some((pipe, file.as_ref()?))) {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, token(index, pipe));
            self.epoll.add(file, event).expect("a new pipe can be watched");
        }
    }

    pub(super) fn on_pipe(&mut self, index: usize, pipe: Pipe) {
        let Some(container) = self.pod.as_mut().and_then(|pod| pod.containers.get_mut(index)) else { return };
        let stream = match pipe {
            Pipe::Exec => {
                // Closing the pipe removes it from epoll. A failure is told when the process is reaped.
                if container.read_exec_report() == ExecReport::Executing {
                    self.supervise(Event::Started { index });
                }
                return;
            }
            Pipe::Stdout => LogStream::Stdout,
            Pipe::Stderr => LogStream::Stderr,
        };
        let may_wait = self.channel.is_connected() && self.now.monotonic_ms < self.acked_at_ms + LOG_STALL_MS;
        if container.logs.is_full() && may_wait {
            if let Some(file) = output_of(container, pipe) {
                let _ = self.epoll.delete(file);
                self.paused.push((index, pipe));
            }
            return;
        }
        container.read_output(stream, self.now.wall_ms);
    }

    /// Reads paused pipes again once their log has room or the host has been silent for too long.
    pub(super) fn resume_paused(&mut self) {
        let Some(pod) = &self.pod else { return };
        let stalled =
            !self.channel.is_connected() || self.now.monotonic_ms >= self.acked_at_ms + LOG_STALL_MS;
        self.paused.retain(|&(index, pipe)| {
            let container = &pod.containers[index];
            if container.logs.is_full() && !stalled {
                return true;
            }
            if let Some(file) = output_of(container, pipe) {
                let event = EpollEvent::new(EpollFlags::EPOLLIN, token(index, pipe));
                self.epoll.add(file, event).expect("a paused pipe is not watched");
            }
            false
        });
    }

    /// Ends the input of processes whose client has left with it.
    pub(super) fn end_inputs(&mut self) {
        for pid in self.streams.take_ended_inputs() {
            let mut containers = self.pod.iter_mut().flat_map(|pod| &mut pod.containers);
            if containers.any(|one| one.end_input(pid)) {
                self.streams.close_inputs(pid);
            }
        }
    }

    /// Fills the channel with output, one message of each container and stream in turn, and writes. Where the port
    /// takes all of it, there is no event that would make it go on: it goes on by itself, within a bound.
    pub(super) fn pump(&mut self) {
        self.is_behind = false;
        for _ in 0..PUMP_ROUNDS_MAX {
            let found = self.fill();
            self.channel.flush();
            if !found || !self.channel.is_flushed() {
                return;
            }
        }
        self.is_behind = true;
    }

    /// False when there is nothing to send.
    fn fill(&mut self) -> bool {
        let mut found_any = false;
        let mut found = true;
        while found && self.channel.wants_logs() {
            found = false;
            for container in self.pod.iter_mut().flat_map(|pod| &mut pod.containers) {
                if let Some(message) = container.logs.next_message() {
                    found = true;
                    self.channel.send(&message);
                }
            }
            found |= self.streams.pump(&mut |message| {
                self.channel.send(&message);
                self.channel.wants_logs()
            });
            found_any |= found;
        }
        found_any
    }
}

fn output_of(container: &Container, pipe: Pipe) -> Option<&File> {
    let process = container.process.as_ref()?;
    if pipe == Pipe::Stdout { process.stdio.stdout.as_ref() } else { process.stdio.stderr.as_ref() }
}
