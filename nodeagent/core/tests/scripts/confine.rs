//! The calls that shut a guest's QEMU in, and the limits of its groups: all of them, in order.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use bulkhead_nodeagent_core::{
    Controller, DeviceNode, GuestSize, HostLimits, Jail, NodeKind, Piece, QemuUser, Rights, SystemPath,
    Version,
};
use bulkhead_types::{ObjectId, PodIntent, Shared};
use expect_test::{Expect, expect};

use crate::support::{MIB, pod};

fn jail(pieces: &[Piece]) -> Jail {
    Jail {
        pieces: pieces.iter().copied().collect(),
        user: Some((70_007, 70_007)),
        groups: vec!["/sys/fs/cgroup/b/n/7.1/cgroup.procs".to_owned()],
        root: "/data/root".to_owned(),
        dir: "/data/pods/7/1".to_owned(),
        system: vec![
            SystemPath::Folder("/usr".to_owned()),
            SystemPath::Link("/lib".to_owned(), "usr/lib".to_owned()),
            SystemPath::File("/etc/ld.so.cache".to_owned()),
        ],
        files: [
            ("/data/images/a.ext4".to_owned(), Rights::Read),
            ("/data/volumes/b.img".to_owned(), Rights::ReadWrite),
            ("/usr/bin/qemu".to_owned(), Rights::ReadExecute),
        ]
        .into(),
        devices: vec![DeviceNode {
            path: "/dev/kvm".to_owned(),
            major: 10,
            minor: 232,
            kind: NodeKind::Character,
        }],
        locked_bytes: None,
        tap: None,
        memory_fd: None,
    }
}

fn check(jail: &Jail, expected: Expect) {
    expected.assert_eq(&jail_steps(jail));
}

/// One step a line.
fn jail_steps(jail: &Jail) -> String {
    match jail.steps() {
        Ok(steps) => steps.iter().fold(String::new(), |mut text, step| {
            let _ = writeln!(text, "{step:?}");
            text
        }),
        Err(error) => error,
    }
}

#[test]
fn a_whole_jail_shows_one_pod_and_gives_nothing_back() {
    check(
        &jail(&Piece::ALL),
        expect![[r#"
            Join("/sys/fs/cgroup/b/n/7.1/cgroup.procs")
            Unshare({Mounts, Network, Ipc})
            MakePrivate
            Mask(0)
            Memory("/data/root", "mode=0755,size=1m,nr_inodes=4096")
            Folder("/data/root/usr")
            Bind("/usr", "/data/root/usr")
            Restrict("/data/root/usr", ReadExecute)
            Link("usr/lib", "/data/root/lib")
            Folder("/data/root/etc")
            File("/data/root/etc/ld.so.cache")
            Bind("/etc/ld.so.cache", "/data/root/etc/ld.so.cache")
            Restrict("/data/root/etc/ld.so.cache", ReadExecute)
            Folder("/data/root/dev")
            Node("/data/root/dev/null", 1, 3)
            Node("/data/root/dev/zero", 1, 5)
            Node("/data/root/dev/full", 1, 7)
            Node("/data/root/dev/random", 1, 8)
            Node("/data/root/dev/urandom", 1, 9)
            Node("/data/root/dev/kvm", 10, 232)
            Give("/data/root/dev/kvm", 70007, 70007)
            Folder("/data/root/data")
            Folder("/data/root/data/images")
            File("/data/root/data/images/a.ext4")
            Bind("/data/images/a.ext4", "/data/root/data/images/a.ext4")
            Restrict("/data/root/data/images/a.ext4", Read)
            Folder("/data/root/data/volumes")
            File("/data/root/data/volumes/b.img")
            Bind("/data/volumes/b.img", "/data/root/data/volumes/b.img")
            Restrict("/data/root/data/volumes/b.img", ReadWrite)
            Folder("/data/root/proc")
            Folder("/data/root/proc/sys")
            Folder("/data/root/proc/sys/vm")
            File("/data/root/proc/sys/vm/overcommit_memory")
            Bind("/proc/sys/vm/overcommit_memory", "/data/root/proc/sys/vm/overcommit_memory")
            Restrict("/data/root/proc/sys/vm/overcommit_memory", Read)
            Folder("/data/root/data/pods")
            Folder("/data/root/data/pods/7")
            Folder("/data/root/data/pods/7/1")
            Bind("/data/pods/7/1", "/data/root/data/pods/7/1")
            Restrict("/data/root/data/pods/7/1", ReadWrite)
            Pivot("/data/root")
            Restrict("/", ReadDevices)
            Enter("/data/pods/7/1")
            Mask(63)
            Limit(Core, 0)
            Limit(OpenFiles, 8192)
            Limit(LockedMemory, 8388608)
            DropCapabilities
            Become(70007, 70007)
            NoNewPrivileges
            CloseFiles
        "#]],
    );
}

/// The lines of a jail's steps about nodes of disks.
fn disk_steps(jail: &Jail) -> String {
    let text = jail_steps(jail);
    let is_disk = |line: &&str| line.contains("/vg0/") || line.contains("/dm-3");
    text.lines().filter(is_disk).fold(String::new(), |text, line| text + line + "\n")
}

#[test]
fn disks_that_are_devices_are_nodes_of_its_own() {
    let mut jail = jail(&Piece::ALL);
    let node = |path: &str, minor, kind| DeviceNode { path: path.to_owned(), major: 254, minor, kind };
    jail.devices =
        vec![node("/dev/vg0/data", 4, NodeKind::Block), node("/dev/dm-3", 3, NodeKind::BlockToRead)];
    expect![[r#"
        BlockNode("/data/root/dev/vg0/data", 254, 4, 384)
        Own("/data/root/dev/vg0/data", 70007, 70007)
        BlockNode("/data/root/dev/dm-3", 254, 3, 256)
        Own("/data/root/dev/dm-3", 70007, 70007)
    "#]]
    .assert_eq(&disk_steps(&jail));
    // As the agent's user, who has no capabilities there and may not be the owner.
    jail.user = None;
    expect![[r#"
        BlockNode("/data/root/dev/vg0/data", 254, 4, 438)
        BlockNode("/data/root/dev/dm-3", 254, 3, 292)
    "#]]
    .assert_eq(&disk_steps(&jail));
}

#[test]
fn without_rights_what_is_left_is_done() {
    let mut poor = jail(&[]);
    poor.groups.clear();
    poor.locked_bytes = Some(5 << 30);
    check(
        &poor,
        expect![[r#"
        Mask(63)
        Limit(Core, 0)
        Limit(OpenFiles, 8192)
        Limit(LockedMemory, 5368709120)
        NoNewPrivileges
        CloseFiles
    "#]],
    );
}

#[test]
fn what_can_be_written_to_is_never_shown_with_the_system() {
    let mut below = jail(&Piece::ALL);
    below.dir = "/usr/local/bulkhead/pods/7/1".to_owned();
    check(
        &below,
        expect![
            "/usr/local/bulkhead/pods/7/1 lies within the folders of the system that every guest's QEMU sees"
        ],
    );
    below.pieces = BTreeSet::new();
    assert!(below.steps().is_ok(), "nothing is shown at all");
}

#[test]
fn pods_are_users_of_their_own() {
    let of = |user: QemuUser, pod| user.of(ObjectId(pod));
    assert_eq!(of(QemuUser::Agent, 7), None);
    assert_eq!(of(QemuUser::One { uid: 1, gid: 2 }, 7), Some((1, 2)));
    let range = QemuUser::Range { first: 100, last: 102 };
    let users: BTreeSet<_> = (5..8).map(|pod| of(range, pod)).collect();
    assert_eq!(users, [Some((100, 100)), Some((101, 101)), Some((102, 102))].into());
    assert_ne!(of(QemuUser::DEFAULT_RANGE, 1), of(QemuUser::DEFAULT_RANGE, 2));
}

fn check_limits(pod: &PodIntent, emulated: bool, version: Version, expected: Expect) {
    let limits = HostLimits::new(pod, GuestSize::new(&pod.spec), emulated);
    let settings = Controller::ALL.into_iter().flat_map(|controller| limits.settings(controller, version));
    let text: String = settings
        .map(|one| format!("{}={}{}\n", one.file, one.value, if one.optional { "?" } else { "" }))
        .collect();
    expected.assert_eq(&text);
}

fn sized(requests: u64, limit: Option<u64>, batch: bool) -> PodIntent {
    let mut pod = pod(7);
    let mut spec = (*pod.spec).clone();
    spec.containers[0].requests.cpu_millis = Some(requests);
    spec.containers[0].limits.cpu_millis = limit;
    spec.containers[0].limits.memory_bytes = Some(1024 * MIB);
    pod.spec = Shared::new(spec);
    pod.batch = batch;
    pod
}

#[test]
fn limits_follow_from_the_pod_and_what_qemu_needs_itself() {
    check_limits(
        &sized(1500, Some(2500), false),
        false,
        Version::V2,
        expect![[r#"
        cpu.weight=59
        cpu.max=275000 100000
        memory.max=1393746247
        memory.swap.max=0?
        memory.oom.group=1?
        pids.max=163
    "#]],
    );
    check_limits(
        &sized(1500, Some(2500), false),
        false,
        Version::V1,
        expect![[r#"
        cpu.shares=1536
        cpu.cfs_period_us=100000
        cpu.cfs_quota_us=275000
        memory.limit_in_bytes=1393746247
        memory.memsw.limit_in_bytes=1393746247?
        pids.max=163
    "#]],
    );
    // Without a limit, and emulated, its processors are the limit.
    check_limits(
        &sized(100, None, false),
        false,
        Version::V2,
        expect![[r#"
        cpu.weight=4
        cpu.max=125000 100000
        memory.max=1389551943
        memory.swap.max=0?
        memory.oom.group=1?
        pids.max=161
    "#]],
    );
    check_limits(
        &sized(100, Some(200), false),
        true,
        Version::V2,
        expect![[r#"
        cpu.weight=4
        cpu.max=125000 100000
        memory.max=2463293767
        memory.swap.max=0?
        memory.oom.group=1?
        pids.max=161
    "#]],
    );
}

#[test]
fn a_batch_pod_has_the_least_weight() {
    // It is the last to run whatever it asked for.
    check_limits(
        &sized(4000, Some(4000), true),
        false,
        Version::V2,
        expect![[r#"
        cpu.weight=1
        cpu.max=425000 100000
        memory.max=1395843399
        memory.swap.max=0?
        memory.oom.group=1?
        pids.max=164
    "#]],
    );
    check_limits(
        &sized(4000, Some(4000), true),
        false,
        Version::V1,
        expect![[r#"
        cpu.shares=2
        cpu.cfs_period_us=100000
        cpu.cfs_quota_us=425000
        memory.limit_in_bytes=1395843399
        memory.memsw.limit_in_bytes=1395843399?
        pids.max=164
    "#]],
    );
}

#[test]
fn memory_that_guests_begin_with_together_is_a_descriptor_and_no_path_of_the_host() {
    let pieces = [Piece::Mounts, Piece::User];
    let steps = |memory_fd| jail_steps(&Jail { memory_fd, ..jail(&pieces) });
    let (with, without) = (steps(Some(17)), steps(None));
    let added: Vec<&str> = with.lines().filter(|line| !without.lines().any(|known| known == *line)).collect();
    expect![[r#"
        Folder("/data/root/proc/self")
        Folder("/data/root/proc/self/fd")
        Bind("/proc/self/fd", "/data/root/proc/self/fd")
        Restrict("/data/root/proc/self/fd", Read)
        KeepFile(17)
    "#]]
    .assert_eq(&(added.join("\n") + "\n"));
    let last: Vec<&str> = with.lines().rev().take(3).collect();
    assert_eq!(last, ["KeepFile(17)", "CloseFiles", "NoNewPrivileges"], "after all others were closed");
}
