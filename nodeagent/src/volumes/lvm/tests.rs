//! The driver with LVM in memory, and what lvs says in its own words.

use std::fs;

use bulkhead_nodeagent_core::hardware::Outcome;
use bulkhead_nodeagent_core::qemu::BlockDriver;
use uuid::Uuid;

use super::driver::precondition;
use super::fake::FakeLvm;
use super::note::{Note, Notes};
use super::report::{self, LogicalVolume, PoolState, problem};
use super::*;
use crate::volumes::conformance::check_published;
use crate::volumes::driver::{Content, VolumeDriver, VolumeError};
use crate::volumes::{FileDriver, Volumes};

const MIB: u64 = 1 << 20;

fn pool() -> ThinPoolName {
    "vg0/thin".parse().expect("a pool")
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// A machine with a group and a data directory.
struct World {
    lvm: FakeLvm,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(dir.path().join("dev")).expect("made");
        Self { lvm: FakeLvm::new(&dir.path().join("dev")), dir }
    }

    /// An agent's life, with a pool for new volumes or without one.
    fn life(&self, pool: Option<ThinPoolName>) -> ThinDriver {
        ThinDriver::with(Box::new(self.lvm.clone()), self.dir.path(), pool)
    }

    fn agent(&self) -> ThinDriver {
        self.life(Some(pool()))
    }

    fn notes(&self) -> Notes {
        Notes::new(self.dir.path())
    }

    /// Names of all logical volumes, without the prefix that is common to them and zeros.
    fn left(&self) -> String {
        let group = self.lvm.group();
        let short = |one: &LogicalVolume| {
            let name = one.name.replace("bulkhead-", "").replace("00000000-0000-0000-0000-00000000000", "");
            format!("{name} [{}]", one.tags.join(" "))
        };
        group.volumes.values().map(short).collect::<Vec<_>>().join(", ")
    }

    /// Somebody else's, or one of an agent that lost its notes.
    fn put(&self, name: &str, tags: &[&str]) {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let (name, pool) = (name.to_owned(), "thin".to_owned());
        fs::write(self.lvm.device("vg0", &name), "theirs").expect("written");
        let volume = LogicalVolume { name: name.clone(), tags, size_bytes: 64 * MIB, pool, written: None };
        self.lvm.group().volumes.insert(name, volume);
    }
}

#[test]
fn thin_volumes_conform() {
    let world = World::new();
    check_published(&world.agent());
    let left = "volume-1 [bulkhead.volume], volume-3 [bulkhead.volume], volume-9 [bulkhead.volume]";
    assert_eq!(world.left(), left);
    let notes = fs::read_dir(world.dir.path().join("volumes")).expect("listed").count();
    assert_eq!(notes, 3, "three volumes, and nothing half made");
}

/// What a few objects want, in order; each may be asked for again.
fn wishes(driver: &ThinDriver) -> [Box<dyn Fn() -> Result<(), VolumeError> + '_>; 6] {
    [
        Box::new(|| driver.create_volume(id(1), 16 * MIB, Content::Empty)),
        Box::new(|| driver.create_snapshot(id(1), id(4))),
        Box::new(|| driver.create_volume(id(2), 16 * MIB, Content::Snapshot(id(4)))),
        Box::new(|| driver.expand_volume(id(2), 90 * MIB)),
        Box::new(|| Ok(driver.delete_volume(id(1))?)),
        Box::new(|| Ok(driver.delete_snapshot(id(4))?)),
    ]
}

#[test]
fn whenever_an_agent_dies_the_next_one_makes_it_right() {
    for left in 0.. {
        let world = World::new();
        world.lvm.group().left = Some(left);
        let first = world.agent();
        let died = wishes(&first).iter().position(|wish| wish().is_err());
        world.lvm.group().left = None;
        let next = world.agent();
        // The one under which it died is asked for again, and then the rest.
        for wish in &wishes(&next)[died.unwrap_or(6)..] {
            wish().unwrap_or_else(|error| panic!("dead after {left} commands: {error}"));
        }
        assert_eq!(world.left(), "volume-2 [bulkhead.volume]", "dead after {left} commands");
        assert_eq!(next.length(id(2)).expect("there"), next.disk_bytes(90 * MIB));
        assert!(!next.keeps_volume(id(1)).expect("asked") && !next.keeps_snapshot(id(4)).expect("asked"));
        if died.is_none() {
            assert!(left > 6, "each wish is a command at least");
            return;
        }
    }
}

#[test]
fn what_was_made_and_not_noted_is_noted() {
    let world = World::new();
    world.agent().create_volume(id(1), 16 * MIB, Content::Empty).expect("made");
    world.notes().write(Kind::Volume, id(1), &Note::new(&pool(), false)).expect("written");
    fs::write(world.agent().publish(id(1)).file, "data").expect("written");
    assert!(world.agent().has_volume(id(1)).expect("asked"));
    world.agent().create_volume(id(1), 16 * MIB, Content::Empty).expect("it is there");
    assert_eq!(fs::read(world.agent().publish(id(1)).file).expect("read"), b"data", "it is not made anew");
    let note = world.notes().read(Kind::Volume, id(1)).expect("read").expect("there");
    assert!(note.made);
}

#[test]
fn what_was_begun_is_made_whatever_the_options_are_by_then() {
    let world = World::new();
    world.lvm.group().left = Some(1);
    world.agent().create_volume(id(1), 16 * MIB, Content::Empty).expect_err("the agent dies");
    assert_eq!(world.left(), "volume-1 [bulkhead.making]");
    world.lvm.group().left = None;
    let next = world.life(None);
    assert!(next.keeps_volume(id(1)).expect("asked") && !next.has_volume(id(1)).expect("asked"));
    next.create_volume(id(1), 16 * MIB, Content::Empty).expect("made");
    assert_eq!(world.left(), "volume-1 [bulkhead.volume]");
    let refused = next.create_volume(id(2), 16 * MIB, Content::Empty).expect_err("nowhere to make it");
    assert!(refused.to_string().contains("no --volume-group"), "{refused}");
}

#[test]
fn an_agent_without_its_notes_finds_what_is_its_own() {
    let world = World::new();
    world.agent().create_volume(id(1), 16 * MIB, Content::Empty).expect("made");
    world.agent().create_snapshot(id(1), id(4)).expect("taken");
    fs::remove_dir_all(world.dir.path().join("volumes")).expect("somebody empties it");
    world.put("bulkhead-volume-00000000-0000-0000-0000-000000000007", &[]);
    world.put("bulkhead-volume-00000000-0000-0000-0000-000000000008", &[MAKING]);
    world.put("root", &["bulkhead.volume"]);
    let agent = world.agent();
    assert_eq!(agent.warning(), None);
    let found = [1, 4, 7, 8].map(|number| agent.has_volume(id(number)).expect("asked"));
    assert_eq!(found, [true, false, false, false]);
    agent.create_volume(id(2), 16 * MIB, Content::Snapshot(id(4))).expect("the snapshot is known");
    for number in [1, 2, 7, 8] {
        agent.delete_volume(id(number)).expect("gone is fine");
    }
    agent.delete_snapshot(id(4)).expect("deleted");
    assert_eq!(world.left(), "volume-7 [], volume-8 [bulkhead.making], root [bulkhead.volume]");
}

#[test]
fn what_is_somebody_elses_is_never_touched() {
    let world = World::new();
    let name = "bulkhead-volume-00000000-0000-0000-0000-000000000007";
    world.put(name, &["precious"]);
    let agent = world.agent();
    let refused = agent.create_volume(id(7), 16 * MIB, Content::Empty).expect_err("the name is taken");
    assert!(refused.to_string().contains("already exists"), "{refused}");
    assert!(!agent.has_volume(id(7)).expect("asked"));
    // Also where a note says that it is this agent's.
    for made in [false, true] {
        world.notes().write(Kind::Volume, id(7), &Note::new(&pool(), made)).expect("written");
        let refused = agent.has_volume(id(7)).expect_err("it is not");
        assert!(refused.to_string().contains("rename or remove it"), "{refused}");
        agent.create_volume(id(7), 16 * MIB, Content::Empty).expect_err("it is not");
        world.notes().write(Kind::Volume, id(7), &Note::new(&pool(), made)).expect("written");
        agent.delete_volume(id(7)).expect("there is nothing to delete");
    }
    assert_eq!(world.left(), "volume-7 [precious]");
    assert_eq!(fs::read(world.lvm.device("vg0", name)).expect("read"), b"theirs");
}

#[test]
fn every_volume_stays_with_its_driver() {
    let world = World::new();
    let files = FileDriver::new(world.dir.path());
    files.create_volume(id(1), 16 * MIB, Content::Empty).expect("made before");
    let volumes = |pool: Option<ThinPoolName>| {
        let fresh = usize::from(pool.is_some());
        Volumes::with(world.dir.path(), std::sync::Arc::new(world.life(pool)), fresh)
    };
    let with = volumes(Some(pool()));
    let driver =
        |volumes: &Volumes, number| volumes.of(id(number)).expect("asked").publish(id(number)).driver;
    assert_eq!((driver(&with, 1), driver(&with, 2)), (BlockDriver::Raw, BlockDriver::HostDevice));
    let thin = with.of(id(2)).expect("asked");
    thin.create_volume(id(2), 16 * MIB, Content::Empty).expect("made");
    with.of(id(1)).expect("asked").create_snapshot(id(1), id(5)).expect("taken");
    assert!(files.keeps_snapshot(id(5)).expect("asked"), "a copy is of its driver");
    // Without the option all of them go on, and new ones are files.
    let without = volumes(None);
    let drivers = [1, 2, 3].map(|number| driver(&without, number));
    assert_eq!(drivers, [BlockDriver::Raw, BlockDriver::HostDevice, BlockDriver::Raw]);
    let thin = without.of(id(2)).expect("asked");
    thin.create_snapshot(id(2), id(6)).expect("taken");
    without
        .of_snapshot(id(6))
        .expect("asked")
        .create_volume(id(4), MIB, Content::Snapshot(id(6)))
        .expect("made");
    thin.expand_volume(id(2), 90 * MIB).expect("grown");
    assert!(without.way_back(id(2)).starts_with("bring logical volume vg0/bulkhead-volume-"));
    assert!(without.way_back(id(1)).starts_with("put volumes/"));
    assert!(with.way_back(id(3)).contains("back into the agent's data directory, or bring logical volume"));
    for number in [1, 2, 4, 5, 6] {
        without.delete(id(number)).expect("deleted");
    }
    assert_eq!(world.left(), "");
    assert_eq!(fs::read_dir(world.dir.path().join("volumes")).expect("listed").count(), 0);
}

#[test]
fn what_is_not_active_is_made_so_for_a_guest() {
    let world = World::new();
    let agent = world.agent();
    agent.create_volume(id(1), 16 * MIB, Content::Empty).expect("made");
    // The machine boots.
    world.lvm.group().active.clear();
    assert!(agent.has_volume(id(1)).expect("asked"));
    assert_eq!(agent.length(id(1)).expect("there"), agent.disk_bytes(16 * MIB));
    agent.stage_volume(id(1), true).expect("nobody has it");
    assert!(world.lvm.is_active("vg0", "bulkhead-volume-00000000-0000-0000-0000-000000000001"));
}

#[test]
fn what_does_not_fit_says_why() {
    let world = World::new();
    world.lvm.group().pool.as_mut().expect("a pool").data = Some(8_500);
    let agent = world.agent();
    agent.create_volume(id(1), 16 * MIB, Content::Empty).expect("there is room");
    let check = |refused: Result<(), VolumeError>, expected: &str| {
        let error = refused.expect_err("it does not fit");
        assert!(matches!(error, VolumeError::Full(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    let room = "thin pool vg0/thin has 153 MiB of 1024 MiB free, and";
    check(agent.create_volume(id(2), 512 * MIB, Content::Empty), &format!("{room} 544 MiB are wanted"));
    check(agent.expand_volume(id(1), 512 * MIB), &format!("{room} 504 MiB are wanted"));
    assert_eq!(world.left(), "volume-1 [bulkhead.volume]");
    assert!(!agent.keeps_volume(id(2)).expect("asked"));
    world.lvm.group().pool = None;
    let refused = agent.create_volume(id(2), MIB, Content::Empty).expect_err("the pool is gone");
    assert!(refused.to_string().contains("there is no thin pool vg0/thin; run: lvcreate"), "{refused}");
    let elsewhere = world.life(Some("vg1/thin".parse().expect("a pool")));
    let refused = elsewhere.create_volume(id(2), MIB, Content::Empty).expect_err("the group is not there");
    assert_eq!(refused.to_string(), "there is no volume group vg1");
    assert_eq!(elsewhere.warning().as_deref(), Some("there is no volume group vg1"));
    assert!(elsewhere.has_volume(id(1)).expect("its note says where it is"));
}

#[test]
fn pools_are_named_as_lvm_names_them() {
    let check = |text: &str, is_name: bool| {
        let parsed = text.parse::<ThinPoolName>();
        assert_eq!(
            parsed.as_ref().ok().map(ToString::to_string).as_deref(),
            is_name.then_some(text),
            "{text}"
        );
    };
    for good in ["vg0/thin", "VG_1.a+b-c/-".trim_end_matches('-').trim_end_matches('/'), "a/b"] {
        check(good, good.contains('/'));
    }
    for bad in [
        "", "vg0", "/thin", "vg0/", "vg0/a/b", "-y/thin", "vg0/-f", "../thin", "vg0/.", "v g/thin",
        "vg0/a\"b",
    ] {
        check(bad, false);
    }
    check(&format!("{}/p", "v".repeat(NAME_LENGTH_MAX)), true);
    check(&format!("{}/p", "v".repeat(NAME_LENGTH_MAX + 1)), false);
}

/// Of lvm2 2.03.16.
const VOLUMES: &str = r#"
  {
      "report": [
          {
              "lv": [
                  {"lv_name":"bulkhead-vol-1", "lv_tags":"bulkhead.making,x", "lv_size":"67108864", "pool_lv":"pool", "data_percent":"78.12"},
                  {"lv_name":"bulkhead-vol-2", "lv_tags":"", "lv_size":"67108864", "pool_lv":"pool", "data_percent":""}
              ]
          }
      ]
  }
"#;
const POOL: &str = r#"
  {
      "report": [
          {
              "lv": [
                  {"lv_name":"pool", "lv_layout":"thin,pool", "lv_size":"209715200", "data_percent":"2.38", "metadata_percent":"10.94", "zero":"zero", "lv_health_status":"", "vg_extent_size":"4194304"}
              ]
          }
      ]
  }
"#;

#[test]
fn reports_are_read() {
    let volumes = report::volumes(VOLUMES.as_bytes()).expect("a report");
    let read = volumes.iter().map(|one| (one.name.as_str(), one.tags.len(), one.written_bytes()));
    assert_eq!(
        read.collect::<Vec<_>>(),
        [("bulkhead-vol-1", 2, 52_425_444), ("bulkhead-vol-2", 0, 67_108_864)]
    );
    assert!(
        volumes[0].has(MAKING) && volumes.iter().all(|one| one.size_bytes == 64 * MIB && one.pool == "pool")
    );
    let state = report::pool(POOL.as_bytes()).expect("a report").expect("a pool");
    assert_eq!((state.data, state.metadata, state.extent_bytes), (Some(238), Some(1_094), 4 * MIB));
    assert_eq!((state.is_thin_pool, state.zeroes, state.free_bytes()), (true, true, 204_723_978));
    assert_eq!(problem(&pool(), Some(&state)), None);
    let nothing = r#"{"report": [{"lv": []}]}"#;
    assert_eq!(report::pool(nothing.as_bytes()), Ok(None));
    for (text, reason) in [("", "EOF"), ("{}", "missing field"), (&POOL.replace("209715200", "200m"), "200m")]
    {
        let error = report::pool(text.as_bytes()).expect_err("no report");
        assert!(error.contains(reason), "{error}");
    }
    for wrong in ["101.00", "x", "1.x", "-1.00"] {
        report::pool(POOL.replace("10.94", wrong).as_bytes()).expect_err("no percent");
    }
}

#[test]
fn what_a_pool_lacks_is_said_with_its_remedy() {
    let world = World::new();
    let check = |change: &dyn Fn(&mut PoolState), outcome, expected: &str| {
        let fresh = FakeLvm::new(world.dir.path()).group().pool.clone();
        let mut group = world.lvm.group();
        group.pool = fresh;
        change(group.pool.as_mut().expect("a pool"));
        drop(group);
        let found = precondition(&world.lvm, &pool(), true);
        let said = format!("{} | {}", found.found, found.remedy);
        assert_eq!((found.name, found.outcome, said.as_str()), ("volumes-lvm", outcome, expected));
        // What the node says is the same.
        assert_eq!(world.agent().warning().is_some(), outcome != Outcome::Met || said.contains("full"));
    };
    check(&|_| {}, Outcome::Met, "thin pool vg0/thin has 921 MiB free | ");
    check(
        &|pool| pool.is_thin_pool = false,
        Outcome::Missing,
        "vg0/thin is no thin pool | lvcreate --type thin-pool --size SIZE --name thin vg0",
    );
    check(
        &|pool| pool.zeroes = false,
        Outcome::Missing,
        "vg0/thin does not wipe blocks, and a volume would hold what another one held | lvchange --zero y vg0/thin",
    );
    check(
        &|pool| pool.health = "failed".to_owned(),
        Outcome::Missing,
        "lvs says of vg0/thin: failed | lvs -o+lv_health_status vg0/thin; lvmthin(7) says what to do about it",
    );
    check(
        &|pool| pool.data = None,
        Outcome::Missing,
        "vg0/thin is not active | lvchange --activate y vg0/thin",
    );
    check(
        &|pool| pool.data = Some(9_000),
        Outcome::Met,
        "vg0/thin is nearly full: 90 % of its data or more is in use: lvextend --size +SIZE vg0/thin, or delete volumes and \
         snapshots | ",
    );
    check(
        &|pool| pool.metadata = Some(9_990),
        Outcome::Met,
        "vg0/thin is nearly full: 90 % of its metadata or more is in use: lvextend --poolmetadatasize +SIZE vg0/thin, or delete \
         volumes and snapshots | ",
    );
    let said = |pool: &str, has_tools| {
        let found = precondition(&world.lvm, &pool.parse().expect("a pool"), has_tools);
        (found.outcome, format!("{} | {}", found.found, found.remedy))
    };
    let tools = "there is no program thin_check | apt-get install lvm2 thin-provisioning-tools".to_owned();
    assert_eq!(said("vg0/thin", false), (Outcome::Missing, tools));
    let group = "there is no volume group vg1 | vgcreate vg1 DISK, then: lvcreate --type thin-pool --size SIZE --name p vg1";
    assert_eq!(said("vg1/p", true), (Outcome::Missing, group.to_owned()));
    let none = "there is no thin pool vg0/p | lvcreate --type thin-pool --size SIZE --name p vg0".to_owned();
    assert_eq!(said("vg0/p", true), (Outcome::Missing, none));
}
