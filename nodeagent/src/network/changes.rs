//! Making changes: several at once, each of them wholly or not at all.

use std::io;

use bulkhead_types::ObjectId;

use super::{At as _, Change, GuestCard, Guests, Network, StepError};

/// A guest of a pod.
type Guest = (ObjectId, u32);

/// A change that is being made.
struct Making {
    /// Guests of the pod that went, with their taps.
    gone: Vec<(Guest, GuestCard)>,
    /// The guest that comes, and its tap, of which nothing may be left unless all is done.
    comes: Option<(Guest, GuestCard, String)>,
    outcome: Result<(), StepError>,
}

impl Making {
    /// Whether the rules are to be others.
    fn is_of_rules(&self) -> bool {
        self.connects() || !self.gone.is_empty()
    }

    /// Whether a guest comes that shall stay.
    fn connects(&self) -> bool {
        self.comes.is_some() && self.outcome.is_ok()
    }

    /// Lets the guests be what they are with this change.
    fn put(&self, guests: &mut Guests) {
        for (guest, _) in &self.gone {
            guests.remove(guest);
        }
        if let (Some((guest, card, _)), true) = (&self.comes, self.outcome.is_ok()) {
            guests.insert(*guest, *card);
        }
    }

    /// Lets the guests be what they were before.
    fn take_back(&self, guests: &mut Guests) {
        if let Some((guest, ..)) = &self.comes {
            guests.remove(guest);
        }
        guests.extend(self.gone.iter().copied());
    }

    /// Of the packet filter; what it was to be told.
    fn refused(&mut self, error: io::Error, pod: ObjectId) {
        if self.outcome.is_ok() {
            let what = match &self.comes {
                Some((.., tap)) => format!("with the tap {tap}"),
                None => format!("without the taps of pod {pod}"),
            };
            self.outcome = Err(StepError::new(format!("set the rules of the packet filter {what}"), error));
        }
    }
}

impl Network {
    /// Makes changes that go [`together`](bulkhead_nodeagent_core::network::together): their taps one after the other, the rules of all
    /// at once, then what connects. What fails fails for its own pod alone, and leaves nothing behind: rules of all that
    /// the packet filter does not take are told one after the other.
    pub(super) fn make(&self, changes: &[Change]) -> Vec<Result<(), StepError>> {
        let mut guests = self.guests();
        let mut all: Vec<_> = changes.iter().map(|change| self.begin(&mut guests, *change)).collect();
        self.rule(&mut guests, changes, &mut all);
        let bridge = self.names.bridge();
        for making in all.iter_mut().filter(|making| making.connects()) {
            let Some((.., tap)) = &making.comes else { continue };
            let attached = self.host.attach(tap, &bridge, self.mtu);
            making.outcome = attached.at(|| format!("attach {tap} to {bridge}"));
        }
        let mut is_undone = false;
        for making in all.iter().filter(|making| making.outcome.is_err()) {
            if let Some((guest, _, tap)) = &making.comes {
                guests.remove(guest);
                // Nothing can be sent from it: either it is gone, or no rule knows of it, or it is not on the bridge.
                let _ = self.host.remove(tap);
                is_undone = true;
            }
        }
        if is_undone {
            let _ = self.set_rules(&guests);
        }
        all.into_iter().map(|making| making.outcome).collect()
    }

    /// Whatever comes before the rules.
    fn begin(&self, guests: &mut Guests, change: Change) -> Making {
        let mut making = Making { gone: Vec::new(), comes: None, outcome: Ok(()) };
        making.outcome = self.change_taps(guests, change, &mut making);
        making
    }

    fn change_taps(&self, guests: &mut Guests, change: Change, making: &mut Making) -> Result<(), StepError> {
        let pod = change.pod();
        let own: Vec<_> =
            guests.range((pod, 0)..=(pod, u32::MAX)).map(|(guest, card)| (*guest, *card)).collect();
        for (guest, card) in own {
            let tap = self.tap(guest);
            self.host.remove(&tap).at(|| format!("remove the tap {tap}"))?;
            guests.remove(&guest);
            making.gone.push((guest, card));
        }
        let Change::Attach { instance, card, .. } = change else { return Ok(()) };
        let (guest, tap) = ((pod, instance), self.tap((pod, instance)));
        if let Some(((other, _), _)) = guests.iter().find(|(_, other)| other.address == card.address) {
            let why = format!("the guest of pod {other} has {}", card.address);
            return Err(StepError::refused(format!("add the tap {tap}"), why));
        }
        let (_, _, tap) = making.comes.insert((guest, card, tap));
        // One that an earlier start left may be somewhere else, or of another kind.
        self.host.remove(tap).at(|| format!("remove the tap {tap}"))?;
        self.host.add_tap(tap).at(|| format!("add the tap {tap}"))?;
        guests.insert(guest, card);
        Ok(())
    }

    /// Tells the packet filter of all changes; of each by itself when it does not take all.
    fn rule(&self, guests: &mut Guests, changes: &[Change], all: &mut [Making]) {
        let mut told: Vec<_> =
            all.iter_mut().zip(changes).filter(|(making, _)| making.is_of_rules()).collect();
        if told.is_empty() {
            return;
        }
        let Err(error) = self.set_rules(guests) else { return };
        if let [(making, change)] = told.as_mut_slice() {
            return making.refused(error, change.pod());
        }
        if error.kind() == io::ErrorKind::TimedOut {
            // Each alone would have to wait as long.
            for (making, change) in told {
                let same = io::Error::new(error.kind(), error.to_string());
                making.refused(same, change.pod());
            }
            return;
        }
        tracing::warn!(%error, changes = told.len(), "the packet filter does not take the rules of all: each is told alone");
        told.iter().for_each(|(making, _)| making.take_back(guests));
        for (making, change) in told {
            making.put(guests);
            if let Err(error) = self.set_rules(guests) {
                making.refused(error, change.pod());
                if let Some((guest, ..)) = &making.comes {
                    guests.remove(guest);
                }
            }
        }
    }
}
