//! Which partitions fit on a card, by the documents' tables.

use super::*;
use crate::builtin_device_classes;

fn partitioning(class: &str) -> DevicePartitioning {
    let class = builtin_device_classes().into_iter().find(|one| one.name == class).expect("it comes along");
    class.spec.partitioning.get().cloned().expect("its cards have partitions")
}

fn model(class: &str, name: &str) -> PartitionModel {
    partitioning(class).models.into_iter().find(|one| one.name == name).expect("a model")
}

/// Where the partitions of a layout are, as `3g.20gb@0 3g.20gb@4`; or why they do not fit.
#[track_caller]
fn check(class: &str, name: &str, layout: &str, expected: &str) {
    let model = model(class, name);
    let shown = match partitioning(class).layout(&model, layout) {
        None => "no such layout".to_owned(),
        Some(Err(reason)) => reason,
        Some(Ok(placed)) => {
            model.check_placed(&placed).expect("what is placed fits");
            let one = |one: &DevicePartition| format!("{}@{}", one.profile, one.start);
            placed.iter().map(one).collect::<Vec<_>>().join(" ")
        }
    };
    assert_eq!(shown, expected, "{layout}");
}

#[test]
fn slices_of_an_a100_fit_as_nvidia_and_alibaba_say() {
    let a100 = |layout, expected| check("nvidia-gpu", "A100-40GB", layout, expected);
    // The most of each profile (alibaba-ack §2.6).
    for (profile, most) in [("1g.5gb", 7), ("2g.10gb", 3), ("3g.20gb", 2), ("4g.20gb", 1), ("7g.40gb", 1)] {
        let model = model("nvidia-gpu", "A100-40GB");
        assert_eq!(model.fill(model.profile(profile).expect("a profile")).len(), most, "{profile}");
    }
    // The sequences that the manual allows.
    a100("3g.20gb-3g.20gb", "3g.20gb@0 3g.20gb@4");
    a100("2g.10gb-2g.10gb-2g.10gb-1g.5gb", "2g.10gb@0 2g.10gb@2 2g.10gb@4 1g.5gb@6");
    a100("4g.20gb-1g.5gb-1g.5gb-1g.5gb", "4g.20gb@0 1g.5gb@4 1g.5gb@5 1g.5gb@6");
    a100("4g.20gb-3g.20gb", "3g.20gb@4 4g.20gb@0");
    a100("all-7g.40gb", "7g.40gb@0");
    a100("1g.5gb+me-1g.5gb", "1g.5gb@0 1g.5gb+me@1");
    a100("3g.20gb-2g.10gb-1g.10gb", "3g.20gb@0 1g.10gb@6 2g.10gb@4");
    // What does not fit: compute, memory, places, media engines, an unknown word.
    a100("4g.20gb-4g.20gb", "more compute is used than the 7 that a A100-40GB has");
    a100("4g.20gb-3g.20gb-1g.5gb", "more compute is used than the 7 that a A100-40GB has");
    a100("3g.20gb-3g.20gb-1g.5gb", "more memory is used than the 8 that a A100-40GB has");
    a100("1g.5gb+me-1g.5gb+me", "more me is used than the 1 that a A100-40GB has");
    a100("all-1g.10gb", "1g.10gb@0 1g.10gb@2 1g.10gb@4 1g.10gb@6");
    a100("all-balanced", "no such layout");
    a100("all-1g-5gb", "no such layout");
}

#[test]
fn slices_of_cards_of_80_and_141_gb() {
    for card in ["A100-80GB", "H100-80GB"] {
        check("nvidia-gpu", card, "all-balanced", "3g.40gb@4 2g.20gb@0 1g.10gb@2 1g.10gb@3");
        check("nvidia-gpu", card, "all-1g.20gb", "1g.20gb@0 1g.20gb@2 1g.20gb@4 1g.20gb@6");
        check("nvidia-gpu", card, "all-2g.20gb", "2g.20gb@0 2g.20gb@2 2g.20gb@4");
    }
    check("nvidia-gpu", "H200-141GB", "all-3g.71gb", "3g.71gb@0 3g.71gb@4");
    check("nvidia-gpu", "A30", "2g.12gb-1g.6gb-1g.6gb", "2g.12gb@0 1g.6gb@2 1g.6gb@3");
}

#[test]
fn an_ascend_310p_is_full_of_what_it_has_least_of() {
    let npu = |layout, expected| check("ascend-310p", "Ascend310P", layout, expected);
    npu("vir02-vir02-vir02", "vir02@0 vir02@0 vir02@0");
    // AICORE 2 of 8 and a quarter of the memory are left, but of AICPU 1 of 7, and VENC 0 of 3 (DCE §4.2).
    npu("vir02-vir02-vir02-vir02", "more aicpu is used than the 7 that a Ascend310P has");
    npu("vir02-vir02-vir02-vir02_1c", "vir02@0 vir02@0 vir02@0 vir02_1c@0");
    let model = model("ascend-310p", "Ascend310P");
    let left =
        |thing: &str| model.capacity[thing] - 3 * model.profile("vir02").expect("a profile").uses[thing];
    let things = ["aicore", "aicpu", "vpc", "venc", "vdec", "jpegd", "jpege"];
    assert_eq!(things.map(left), [2, 1, 3, 0, 3, 4, 2]);
    assert_eq!((left("memoryMiB") / 1024, model.capacity["memoryMiB"] / 1024), (5, 21));
    assert_eq!(model.fill(model.profile("vir02").expect("a profile")).len(), 3);
}

#[test]
fn what_is_there_is_checked_place_by_place() {
    let model = model("nvidia-gpu", "A100-40GB");
    let at = |profile: &str, start| DevicePartition { profile: profile.into(), start };
    let check = |placed: &[DevicePartition], expected: Result<(), &str>| {
        assert_eq!(model.check_placed(placed), expected.map_err(ToOwned::to_owned));
    };
    check(&[at("3g.20gb", 4), at("2g.10gb", 0), at("1g.5gb", 3)], Ok(()));
    check(&[at("3g.20gb", 4), at("2g.10gb", 4)], Err("a 2g.10gb does not fit at slice 4"));
    check(&[at("3g.20gb", 2)], Err("a 3g.20gb does not fit at slice 2"));
    check(&[at("9g", 2)], Err("A100-40GB has no profile 9g"));
    // An agent may say anything.
    check(&[at("3g.20gb", u32::MAX)], Err("a 3g.20gb does not fit at slice 4294967295"));
}

mod laws {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// What is placed fits, and of what does not fit no order would.
        #[test]
        fn any_set_is_placed_or_cannot_be(picks in proptest::collection::vec(0usize..7, 1..7)) {
            let model = model("nvidia-gpu", "A100-40GB");
            let names: Vec<&str> = picks.iter().map(|at| model.profiles[*at].name.as_str()).collect();
            match model.place(&names) {
                Ok(placed) => prop_assert_eq!(model.check_placed(&placed), Ok(())),
                Err(_) => {
                    // Every combination of places, one by one.
                    let profiles: Vec<_> = picks.iter().map(|at| &model.profiles[*at]).collect();
                    let mut sets = vec![Vec::new()];
                    for profile in &profiles {
                        let longer = sets.iter().flat_map(|set: &Vec<DevicePartition>| {
                            profile.placements.iter().map(move |start| {
                                let one = DevicePartition { profile: profile.name.clone(), start: *start };
                                [set.clone(), vec![one]].concat()
                            })
                        });
                        sets = longer.filter(|set| model.check_placed(set).is_ok()).collect();
                    }
                    prop_assert!(sets.is_empty(), "{:?} fits as {:?}", names, sets.first());
                }
            }
        }
    }
}
