//! An agent dies, and the next one dies while it brings right what the first one left: at every pair of steps that there is.

use super::networks::{BLUE, FRESH, VF};
use super::*;
use crate::vf_settings::tests::network;

/// What the agents shall do with a pod's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// The pod runs.
    Give,
    /// It is gone.
    TakeBack,
}

impl World {
    /// What an agent does from its beginning on, as far as it lives.
    fn live(&mut self, task: Task) -> Result<(), String> {
        let is_known = task == Task::Give;
        recover(&mut self.host, &mut self.notes, "boot", &|_| is_known)?;
        match self.apply(&guests(2)) {
            Progress::Settled => {}
            other => return Err(format!("{other:?}")),
        }
        if task == Task::TakeBack {
            return self.release(POD).map(drop);
        }
        let networks = [(bdf(VF), network(VF))].into();
        let take_from = ["nvidia".to_owned()];
        let request =
            Request { pod: POD, boot_id: "boot".into(), take_from: &take_from, networks: &networks };
        let given = attach(&mut self.host, &mut self.notes, &request, &set(&[GPU, VF]));
        given.map(drop).map_err(|error| error.to_string())
    }

    /// A world in which an agent had all the time that it needs.
    fn after(task: Option<Task>) -> Self {
        let mut world = Self::new();
        if let Some(task) = task {
            world.live(task).unwrap();
        }
        world
    }

    /// The same world, with an agent that lives for so many steps.
    fn again(&self, steps: u32) -> Self {
        let host = Wrapped(Mortal {
            kernel: self.host.kernel.clone(),
            life: Life::default(),
            writes: self.host.writes,
        });
        let (bindings, quarantined) = (self.notes.bindings.clone(), self.notes.quarantined.clone());
        let notes = Notes { bindings, quarantined, life: Life::default(), resets: BTreeMap::new() };
        let mut world = Self { host, notes };
        world.lives_for(Some(steps));
        world
    }

    fn all(&self) -> (String, String) {
        (self.state(), self.told())
    }
}

/// Agents that do `before`, die while they do `task` and die again while the next one does `then`; how many pairs there were.
fn check_deaths(before: Option<Task>, task: Task, then: Task) -> usize {
    let expected = World::after(Some(then)).all();
    let (begun, mut pairs) = (World::after(before), 0);
    for first in 0.. {
        let mut left = begun.again(first);
        let has_died = left.live(task).is_err();
        for second in 0.. {
            let what = format!("{task:?}, died after {first}, then {then:?}, died after {second}");
            let mut world = left.again(second);
            let has_died_again = world.live(then).is_err();
            world.lives_for(None);
            assert_eq!(world.live(then), Ok(()), "{what}");
            assert_eq!(world.all(), expected, "{what}");
            assert!(world.notes.quarantined.is_empty(), "{what}");
            match then {
                Task::Give => {
                    let given = world.notes.bindings.values().filter(|one| one.stage == Stage::Given);
                    assert_eq!((given.count(), world.told().as_str()), (3, BLUE), "{what}");
                    assert_eq!(world.release(POD), Ok(vec![]), "{what}");
                }
                Task::TakeBack if before == Some(Task::Give) => {
                    assert!(world.host.kernel.resets(bdf(GPU)) >= 1, "never without a reset: {what}");
                    assert!(world.host.kernel.resets(bdf(VF)) >= 1, "never without a reset: {what}");
                }
                Task::TakeBack => {}
            }
            assert!(world.notes.bindings.is_empty() && world.told() == FRESH, "{what}");
            pairs += 1;
            if !has_died_again {
                break;
            }
        }
        if !has_died {
            break;
        }
    }
    pairs
}

#[test]
fn an_agent_may_die_again_at_every_step_of_its_recovery() {
    let given = check_deaths(None, Task::Give, Task::Give);
    let taken = check_deaths(None, Task::Give, Task::TakeBack);
    let back = check_deaths(Some(Task::Give), Task::TakeBack, Task::TakeBack);
    assert!(given > 300 && taken > 200 && back > 150, "pairs: {given}, {taken}, {back}");
}
