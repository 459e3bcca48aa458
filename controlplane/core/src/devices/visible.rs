//! Which of its cards a container sees where containers name them: a card that one names is its own, those that nobody names
//! are seen by all that name none, and when every card is named the others see none.
//!
//! Source: EasyStack's rule for `CXPU_VISIBLE_DEVICES` of Kunlun cards. Which variable it is, is said by the class.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{
    AllocatedDevice, Container, DEVICES_PER_POD_MAX, DeviceClassSpec, Pod, PodSpec, VisibilityRule,
};
use smol_str::SmolStr;

use super::needs::{BadNeed, bad};
use super::{Classes, class_of};
use crate::State;

/// As a container says that it names no card.
const ALL: &str = "all";

/// The variable by which containers name what they see of a class; `None` where they see what they asked for.
pub(super) fn variable(spec: &DeviceClassSpec) -> Option<&SmolStr> {
    let visibility = spec.visibility.get()?;
    (visibility.rule.get() == Some(&VisibilityRule::Named)).then_some(&visibility.env)
}

/// The numbers of the cards that a container names; `None` when it names none.
fn numbers(container: &Container, variable: &str) -> Result<Option<BTreeSet<u32>>, &'static str> {
    // Of two with the same name the last counts.
    let Some(said) = container.env.iter().rev().find(|one| one.name == variable) else { return Ok(None) };
    if said.value_from.get().is_some() {
        return Err("has its value from elsewhere");
    }
    let text = said.value.trim();
    if text.is_empty() || text == ALL {
        return Ok(None);
    }
    let numbers: Result<BTreeSet<u32>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    numbers.map(Some).map_err(|_| "is neither all nor numbers with commas between them")
}

/// Refuses names of cards that the pod does not have or that two containers name, and more than is told to an agent.
///
/// # Errors
/// What is wrong.
pub(super) fn check(spec: &PodSpec, classes: &Classes) -> Result<(), BadNeed> {
    const REMEDY: &str = "say all, or the numbers of cards that no other container names, from 0";
    for (class, variable) in classes.specs().filter_map(|spec| Some((spec, variable(spec)?))) {
        let resource = &class.extended_resource_name;
        let asked = |one: &Container| -> u64 {
            let own = one.extended_resources().filter(|(name, _)| *name == resource);
            own.map(|(_, amount)| amount).sum()
        };
        let cards: u64 = spec.containers.iter().map(asked).sum();
        if cards == 0 {
            continue;
        }
        let mut named = BTreeMap::<u32, &SmolStr>::new();
        let (mut seen, mut sharing) = (0, 0);
        for one in &spec.containers {
            let refuse = |reason: String| bad(&one.name, resource, format!("{variable} {reason}"), REMEDY);
            let Some(numbers) = numbers(one, variable).map_err(|reason| refuse(reason.to_owned()))? else {
                sharing += 1;
                continue;
            };
            seen += numbers.len() as u64;
            for number in numbers {
                if u64::from(number) >= cards {
                    return Err(refuse(format!("names card {number}, and the pod has {cards}")));
                }
                if let Some(other) = named.insert(number, &one.name) {
                    return Err(refuse(format!("names card {number}, which is that of container {other}")));
                }
            }
        }
        seen += sharing * (cards - named.len() as u64);
        if seen > DEVICES_PER_POD_MAX as u64 {
            let reason = format!("and what containers share of it is {seen} devices together");
            let remedy = "no more than 64 are told to an agent: let containers name their cards";
            return Err(bad(&spec.containers[0].name, resource, reason, remedy));
        }
    }
    Ok(())
}

/// What the containers of a pod see of the classes of which they name it, in the order of containers.
pub(super) fn named(state: &State, pod: &Pod) -> Vec<AllocatedDevice> {
    // By variable, each card once, in the order in which the guest counts them.
    let mut cards = BTreeMap::<&SmolStr, Vec<&AllocatedDevice>>::new();
    for given in pod.devices() {
        let Some(variable) = class_of(state, pod, given).and_then(variable) else { continue };
        let of_class = cards.entry(variable).or_default();
        if !of_class.iter().any(|one| one.device == given.device) {
            of_class.push(given);
        }
    }
    let mut seen = Vec::new();
    for (variable, cards) in cards {
        let containers = &pod.spec.containers;
        let numbers = |one: &Container| numbers(one, variable).ok().flatten();
        let mut free: BTreeSet<u32> = (0..cards.len() as u32).collect();
        // The class may say this only since the pod is there: then the first that names a card has it.
        let own: Vec<Option<BTreeSet<u32>>> = containers
            .iter()
            .map(|one| numbers(one).map(|all| all.into_iter().filter(|number| free.remove(number)).collect()))
            .collect();
        for (container, own) in containers.iter().zip(own) {
            for number in own.as_ref().unwrap_or(&free) {
                let given = AllocatedDevice::clone(cards[*number as usize]);
                seen.push(AllocatedDevice { container: container.name.clone(), ..given });
            }
        }
    }
    seen
}
