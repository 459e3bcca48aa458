//! Faults of a simulated disk. Nothing here draws random numbers: a simulator draws the plan from its seed.

use crate::Operation;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The disk is full. Nothing is written. Batches that free more than they take still pass, as they do on a real
    /// disk out of the reserve.
    Full,
    /// The device fails. Nothing is written, a sync makes nothing durable.
    Io,
    /// The operation works and takes this much virtual time; see [`MemDisk::take_delay_ms`](crate::MemDisk::take_delay_ms).
    Slow {
        /// Virtual milliseconds.
        delay_ms: u64,
    },
}

/// A fault on some of the operations of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultRule {
    /// Which kind of operation.
    pub operation: Operation,
    /// How many of them pass first, counted from when the plan was set.
    pub skip: u64,
    /// How many of them are hit then; `u64::MAX` for all until the plan is replaced.
    pub count: u64,
    /// What happens to them.
    pub fault: Fault,
}

/// Faults to come, in the order in which they are looked at. Of several rules that hit one operation the delays add
/// up, and the first failure counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FaultPlan {
    rules: Vec<FaultRule>,
}

impl FaultPlan {
    /// A plan without faults.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// A full disk, until the plan is replaced.
    #[must_use]
    pub fn full() -> Self {
        [Operation::LogWrite, Operation::EventWrite, Operation::SnapshotWrite]
            .into_iter()
            .fold(Self::none(), |plan, operation| plan.with(operation, 0, u64::MAX, Fault::Full))
    }

    /// This plan and one more rule.
    #[must_use]
    pub fn with(mut self, operation: Operation, skip: u64, count: u64, fault: Fault) -> Self {
        self.rules.push(FaultRule { operation, skip, count, fault });
        self
    }

    /// Counts an operation: its delay in milliseconds, and its failure if it has one.
    pub(super) fn hit(&mut self, operation: Operation) -> (u64, Option<Fault>) {
        let (mut delay_ms, mut failure) = (0_u64, None);
        for rule in self.rules.iter_mut().filter(|rule| rule.operation == operation) {
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if rule.count == 0 {
                continue;
            }
            if rule.count != u64::MAX {
                rule.count -= 1;
            }
            match rule.fault {
                Fault::Slow { delay_ms: more } => delay_ms = delay_ms.saturating_add(more),
                fault => failure = failure.or(Some(fault)),
            }
        }
        (delay_ms, failure)
    }

    /// Whether the next operation of a kind would find the disk full; counts nothing.
    pub(super) fn is_full(&self, operation: Operation) -> bool {
        self.rules.iter().any(|rule| {
            rule.operation == operation && rule.skip == 0 && rule.count > 0 && rule.fault == Fault::Full
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_hits_exactly_the_operations_it_names() {
        let mut plan = FaultPlan::none().with(Operation::LogSync, 1, 2, Fault::Io).with(
            Operation::LogSync,
            0,
            u64::MAX,
            Fault::Slow { delay_ms: 5 },
        );
        let hits: Vec<_> = (0..4).map(|_| plan.hit(Operation::LogSync)).collect();
        assert_eq!(hits, [(5, None), (5, Some(Fault::Io)), (5, Some(Fault::Io)), (5, None)]);
        assert_eq!(plan.hit(Operation::LogWrite), (0, None));
    }
}
