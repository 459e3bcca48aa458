//! The driver with the real lvm2, for the hardware lab: the conformance suite, and what only the real one shows.

use std::fs;
use std::path::Path;

use uuid::Uuid;

use super::note::{Note, Notes};
use super::{Commands, Kind, Lvm as _, MAKING, ThinDriver, ThinPoolName};
use crate::volumes::conformance::check_published;
use crate::volumes::driver::{Content, Published, VolumeDriver as _};

/// Ends the process when it is not as it should be. `pool` is there and empty; of it a volume is left, which is the answer.
pub(in crate::volumes) fn check(data: &Path, pool: &ThinPoolName) -> Published {
    let driver = ThinDriver::new(data, Some(pool.clone()));
    check_published(&driver);
    let (volume, foreign) = (Uuid::from_u128(9), Uuid::from_u128(7));
    let (name, group) = (format!("{}{volume}", Kind::Volume.prefix()), &pool.group);
    // Somebody else's is in the way, and stays.
    let theirs = format!("{}{foreign}", Kind::Volume.prefix());
    Commands.create(pool, &theirs, 4 << 20, "precious").expect("made");
    driver.create_volume(foreign, 16 << 20, Content::Empty).expect_err("the name is taken");
    Notes::new(data).write(Kind::Volume, foreign, &Note::new(pool, true)).expect("written");
    driver.delete_volume(foreign).expect("there is nothing to delete: it has not this agent's tag");
    assert!(Commands.is_active(group, &theirs), "it is still there");
    Commands.remove(group, &theirs, "precious").expect("removed");
    // An agent whose data directory was lost finds what is its own, also when it is not active.
    let other = data.join("other");
    fs::create_dir_all(&other).expect("made");
    Commands.deactivate(group, &name).expect("deactivated");
    let next = ThinDriver::new(&other, Some(pool.clone()));
    assert!(next.has_volume(volume).expect("asked"), "it is adopted");
    next.stage_volume(volume, true).expect("nobody has it");
    assert!(Commands.is_active(group, &name), "it is active again");
    // An agent that died while it made it.
    Commands.change_tag(group, &name, Kind::Volume.tag(), MAKING).expect("changed");
    Notes::new(data).write(Kind::Volume, volume, &Note::new(pool, false)).expect("written");
    assert!(!driver.has_volume(volume).expect("asked"), "it is half made");
    driver.create_volume(volume, 16 << 20, Content::Empty).expect("made anew");
    assert_eq!(driver.warning(), None);
    driver.publish(volume)
}
