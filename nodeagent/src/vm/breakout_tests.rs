//! A guest's process that tries to get out: this test's own program, shut in as QEMU is.
//!
//! QEMU's system call filter keeps out more (it forbids to execute and to make namespaces, for one); here is what holds without it.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_nodeagent_core::TAP_FD;
use bulkhead_nodeagent_core::qemu::{Accel, BlockDriver, Ram};
use bulkhead_nodeagent_core::{GuestSize, HostLimits};
use bulkhead_types::ObjectId;
use rustix::process::{WaitId, WaitIdOptions};
use serde::{Deserialize, Serialize};

use super::command::{Disk, Machinery, build};
use super::process::{Launch, Process, QEMU_LOG};
use super::session;
use crate::AgentConfig;
use crate::boot::BootAssets;
use crate::cgroup::{Cgroups, KernelFiles};
use crate::confinement::{Confinement, Inmate};

/// What the process is to try, in its folder.
const PLAN: &str = "plan.json";
/// What became of it.
const RESULT: &str = "result.json";
/// More threads than its control group allows.
const THREADS: usize = 64;

#[derive(Serialize, Deserialize)]
struct Plan {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    remove: Vec<PathBuf>,
    tcp: u16,
    sockets: Vec<PathBuf>,
    kill: i32,
    /// A tap of another guest, where the process has one of its own.
    tap: Option<CString>,
}

/// The number of the error of each attempt; 0 where it succeeded.
type Outcomes = BTreeMap<String, i32>;

fn number<T>(result: io::Result<T>) -> i32 {
    result.map_or_else(|error| error.raw_os_error().unwrap_or(-1), |_| 0)
}

/// Not a test of its own: what the process in the jail runs. Elsewhere it finds no plan, and says so.
#[test]
#[ignore = "runs in the jail of another test"]
fn inmate() {
    let Ok(plan) = fs::read(PLAN) else { return eprintln!("no plan here") };
    let plan: Plan = serde_json::from_slice(&plan).expect("a plan");
    let mut all = Outcomes::new();
    let mut note = |what: String, outcome: i32| {
        all.insert(what, outcome);
    };
    for path in &plan.read {
        note(format!("read {}", path.display()), number(fs::read(path)));
    }
    for path in &plan.write {
        let file = fs::OpenOptions::new().create(true).append(true).open(path);
        note(format!("write {}", path.display()), number(file));
    }
    for path in &plan.remove {
        note(format!("remove {}", path.display()), number(fs::remove_file(path)));
    }
    note("tcp".to_owned(), number(TcpStream::connect(("127.0.0.1", plan.tcp))));
    for path in &plan.sockets {
        note(format!("socket {}", path.display()), number(UnixStream::connect(path)));
    }
    if let Some(other) = &plan.tap {
        let taken = session::attach_tap(TAP_FD, other).map_err(io::Error::from);
        note("the other tap".to_owned(), number(taken));
    }
    let (packets, raw) = (rustix::net::AddressFamily::PACKET, rustix::net::SocketType::RAW);
    note("packets".to_owned(), number(rustix::net::socket(packets, raw, None).map_err(io::Error::from)));
    let interfaces = nix::ifaddrs::getifaddrs().expect("listed").map(|one| one.interface_name);
    note("interfaces".to_owned(), i32::from(interfaces.into_iter().any(|name| name != "lo")));
    note("user".to_owned(), i32::try_from(rustix::process::geteuid().as_raw()).unwrap_or(-1));
    let root = rustix::process::Uid::ROOT;
    note(
        "setuid".to_owned(),
        number(rustix::thread::set_thread_res_uid(root, root, root).map_err(io::Error::from)),
    );
    let groups = rustix::thread::set_thread_groups(&[rustix::process::Gid::ROOT]);
    note("setgroups".to_owned(), number(groups.map_err(io::Error::from)));
    let sets = rustix::thread::capabilities(None).expect("known");
    let none = sets.effective.is_empty() && sets.permitted.is_empty() && sets.inheritable.is_empty();
    note("capabilities".to_owned(), i32::from(none));
    let bounding = (0..41).filter(|n| {
        let one = rustix::thread::CapabilitySet::from_bits_retain(1 << n);
        rustix::thread::capability_is_in_bounding_set(one).unwrap_or(false)
    });
    note("bounding set".to_owned(), i32::from(bounding.count() == 0));
    note("no new privileges".to_owned(), i32::from(rustix::thread::no_new_privs().unwrap_or(false)));
    let mounted = rustix::mount::mount(c"tmpfs", c"/usr", c"tmpfs", rustix::mount::MountFlags::empty(), None);
    note("mount".to_owned(), number(mounted.map_err(io::Error::from)));
    let kind = rustix::fs::FileType::BlockDevice;
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let made = rustix::fs::mknodat(rustix::fs::CWD, "sda", kind, mode, rustix::fs::makedev(8, 0));
    note("mknod".to_owned(), number(made.map_err(io::Error::from)));
    let victim = rustix::process::Pid::from_raw(plan.kill).expect("not 0");
    let killed = rustix::process::kill_process(victim, rustix::process::Signal::KILL);
    note("kill".to_owned(), number(killed.map_err(io::Error::from)));
    note("environment".to_owned(), i32::try_from(std::env::vars_os().count()).unwrap_or(-1));
    let core = rustix::process::getrlimit(rustix::process::Resource::Core);
    note("core".to_owned(), i32::from(core.maximum == Some(0)));
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = Arc::new(std::sync::Mutex::new(ended));
    let threads = (0..THREADS).map_while(|_| {
        let ended = Arc::clone(&ended);
        let wait = move || drop(ended.lock().map(|ended| ended.recv()));
        std::thread::Builder::new().stack_size(64 << 10).spawn(wait).ok()
    });
    note("threads".to_owned(), i32::try_from(threads.count()).unwrap_or(-1));
    drop(end);
    fs::write(RESULT, serde_json::to_vec(&all).expect("JSON")).expect("its folder can be written to");
}

/// A host with everything that a guest needs and much that is none of its business.
struct World {
    dir: tempfile::TempDir,
    confinement: Confinement,
    cgroups: Cgroups,
    parent: String,
}

impl World {
    /// `None`, with a word on what is missing, where this process may not shut anybody in.
    async fn new(test: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut config = AgentConfig::new("n", vec![], dir.path());
        config.qemu = PathBuf::from("/bin/true");
        let confinement = Confinement::find_out(&config, dir.path()).await.expect("tried");
        if !confinement.warnings().is_empty() {
            eprintln!("skipped: {}", confinement.warnings().join("; "));
            return None;
        }
        let parent = format!("/bulkhead-test-{}-{test}", std::process::id());
        let cgroups = Cgroups::open(Arc::new(KernelFiles), Some(&parent), "n");
        if !cgroups.problems().is_empty() {
            eprintln!("not tested: {}", cgroups.problems().join("; "));
        }
        for file in
            ["boot/vmlinuz", "boot/initramfs", "images/base.ext4", "volumes/own.img", "volumes/other.img"]
        {
            let file = dir.path().join(file);
            fs::create_dir_all(file.parent().expect("below")).expect("a folder");
            fs::write(&file, "content").expect("written");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("changed");
        }
        let world = Self { dir, confinement, cgroups, parent };
        for instance in ["pods/7/1", "pods/8/1"] {
            let folder = world.path(instance);
            fs::create_dir_all(&folder).expect("a folder");
            for file in ["pod.bin", "c0.qcow2"] {
                fs::write(folder.join(file), "content").expect("written");
                let private = fs::Permissions::from_mode(0o600);
                fs::set_permissions(folder.join(file), private).expect("changed");
            }
        }
        fs::write(world.path("pods/7/record.json"), "{}").expect("written");
        Some(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn launch(&self, program: &Path, args: &[&str]) -> Launch {
        let volume = self.path("volumes/own.img");
        self.launch_with((&volume, BlockDriver::Raw), self.path("images/base.ext4"), program, args)
    }

    fn launch_with(
        &self,
        (volume, driver): (&Path, BlockDriver),
        image: PathBuf,
        program: &Path,
        args: &[&str],
    ) -> Launch {
        let dir = self.path("pods/7/1");
        let boot = BootAssets {
            digest: "d".to_owned(),
            kernel: self.path("boot/vmlinuz"),
            initramfs: self.path("boot/initramfs"),
        };
        let disk = |file: &str, driver| Disk {
            file: file.to_owned(),
            is_kept: false,
            driver,
            serial: "s".to_owned(),
        };
        let volume = volume.display().to_string();
        let size = GuestSize { cpus: 1, memory_bytes: 256 << 20 };
        let command = build(&Machinery {
            name: "p".to_owned(),
            uuid: uuid::Uuid::from_u128(7),
            accel: Accel::Tcg { multi: true },
            size,
            boot: &boot,
            disks: vec![disk("c0.qcow2", BlockDriver::Qcow2), disk(&volume, driver)],
            devices: Vec::new(),
            dir: &dir,
            ram: Ram::Board,
            mem_merge: false,
            sandbox: true,
            grows: false,
        });
        let limits = HostLimits { cpu_shares: 2, cpu_millis: 2000, memory_bytes: 512 << 20, pids: 16 };
        let groups = self.cgroups.create("7.1", limits).expect("made");
        let images = vec![image];
        let inmate = Inmate { pod: ObjectId(7), dir: &dir, program, command: &command, images, groups };
        let jail = self.confinement.jail(&inmate).expect("made");
        self.confinement.hand_over(&jail, &[dir.join("c0.qcow2"), volume.into()]).expect("given");
        Launch { program: program.to_owned(), args: args.iter().map(ToString::to_string).collect(), jail }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.cgroups.keep_only(&[].into());
        self.cgroups.remove_parent(&self.parent);
    }
}

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const EEXIST: i32 = 17;
const EROFS: i32 = 30;
const ENETUNREACH: i32 = 101;

/// What is none of the process's business, in files and sockets, and what is.
fn files_and_sockets(world: &World, own: &Path, other: &Path) -> Plan {
    Plan {
        read: vec![
            own.join("c0.qcow2"),
            world.path("boot/vmlinuz"),
            world.path("images/base.ext4"),
            world.path("volumes/own.img"),
            own.join("pod.bin"),
            world.path("volumes/other.img"),
            world.path("pods/7/record.json"),
            other.join("c0.qcow2"),
            "/etc/shadow".into(),
            "/etc/passwd".into(),
            "/proc/1/environ".into(),
            "/dev/mem".into(),
            "/dev/net/tun".into(),
            "/dev/vfio/vfio".into(),
            "/dev/kvm".into(),
            "/sys/class/net".into(),
        ],
        write: vec![
            own.join("qmp.sock"),
            world.path("volumes/own.img"),
            own.join("pod.bin"),
            world.path("boot/vmlinuz"),
            world.path("images/base.ext4"),
            "/usr/bin/planted".into(),
            "/planted".into(),
            world.path("pods/7/planted"),
        ],
        remove: vec![own.join("pod.bin"), own.join(QEMU_LOG)],
        sockets: vec![world.path("agent.sock"), other.join("qmp.sock")],
        tcp: 0,
        kill: 0,
        tap: None,
    }
}

#[tokio::test]
async fn whatever_a_shut_in_process_tries_it_reaches_its_own_pod_only() {
    let Some(world) = World::new("try").await else { return };
    let outside = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let _agents = UnixListener::bind(world.path("agent.sock")).expect("a socket");
    let _others = UnixListener::bind(world.path("pods/8/1/qmp.sock")).expect("a socket");
    let mut victim = std::process::Command::new("/bin/sleep").arg("1000").spawn().expect("a program");
    let (own, other) = (world.path("pods/7/1"), world.path("pods/8/1"));
    // The other guest's is there as long as its descriptor is.
    let number = std::process::id() % 1_000_000;
    let other_tap = CString::new(format!("bhother{number}")).expect("a name");
    let others_tap =
        session::open_tap(&other_tap).inspect_err(|error| eprintln!("not tested: taps: {error}"));
    let plan = Plan {
        tcp: outside.local_addr().expect("bound").port(),
        kill: i32::try_from(victim.id()).expect("small"),
        tap: others_tap.is_ok().then_some(other_tap),
        ..files_and_sockets(&world, &own, &other)
    };
    fs::write(own.join(PLAN), serde_json::to_vec(&plan).expect("JSON")).expect("written");
    fs::set_permissions(own.join(PLAN), fs::Permissions::from_mode(0o644)).expect("changed");
    let program = std::env::current_exe().expect("a test has a path");
    let args = ["--exact", "vm::breakout_tests::inmate", "--ignored", "--test-threads=1"];
    let mut launch = world.launch(&program, &args);
    launch.jail.tap = plan.tap.is_some().then(|| format!("bhown{number}"));
    let process = Process::start(&launch, &own).unwrap_or_else(|error| {
        panic!("{error}: {}", fs::read_to_string(own.join(QEMU_LOG)).unwrap_or_default())
    });
    process.wait().await;
    assert!(victim.try_wait().expect("ours").is_none(), "it was killed");
    victim.kill().expect("ours");
    victim.wait().expect("ours");
    let said = fs::read_to_string(own.join(QEMU_LOG)).unwrap_or_default();
    let result = fs::read(own.join(RESULT)).unwrap_or_else(|error| panic!("{error}: {said}"));
    let mut found: Outcomes = serde_json::from_slice(&result).expect("JSON");
    let threads = found.remove("threads").expect("counted");
    if world.cgroups.problems().is_empty() {
        assert!((4..16).contains(&threads), "{threads} threads");
    }
    let user = found.remove("user").expect("told");
    assert_eq!(Some(user.unsigned_abs()), launch.jail.user.map(|(uid, _)| uid));
    let mut expected = expected(&world);
    if plan.tap.is_none() {
        expected.remove("the other tap");
    }
    assert_eq!(found, expected, "{said}");
}

/// A file as a block device, until it is dropped.
struct Loop(PathBuf);

impl Loop {
    /// `None`, with a word on why, where there are none.
    fn of(file: &Path) -> Option<Self> {
        fs::write(file, vec![0; 1 << 20]).expect("written");
        let output = std::process::Command::new("losetup").args(["--find", "--show"]).arg(file).output();
        match output {
            Ok(output) if output.status.success() => {
                Some(Self(String::from_utf8_lossy(&output.stdout).trim().into()))
            }
            other => {
                eprintln!("skipped: no loop device: {other:?}");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

#[tokio::test]
async fn of_the_hosts_disks_a_shut_in_process_reaches_just_its_own() {
    let Some(world) = World::new("disks").await else { return };
    let disk = |name| Loop::of(&world.path(name));
    let (Some(own), Some(base), Some(other)) = (disk("own"), disk("base"), disk("other")) else { return };
    let owner =
        |disk: &Loop| fs::metadata(&disk.0).map(|meta| (meta.uid(), meta.gid(), meta.mode())).expect("there");
    let before = [owner(&own), owner(&base)];
    let mut script = String::new();
    for (name, disk) in [("own", &own), ("base", &base), ("other", &other)] {
        let path = disk.0.display();
        script +=
            &format!("(exec 3<{path}) && echo {name} is read; (exec 3>>{path}) && echo {name} is written; ");
        // What it may do with its node is not its to say.
        script += &format!("chmod 666 {path} && echo {name} is changed; ");
    }
    let shell = Path::new("/bin/sh");
    let launch =
        world.launch_with((&own.0, BlockDriver::HostDevice), base.0.clone(), shell, &["-c", &script]);
    let folder = world.path("pods/7/1");
    Process::start(&launch, &folder).expect("started").wait().await;
    let said = fs::read_to_string(folder.join(QEMU_LOG)).unwrap_or_default();
    let done: Vec<_> = said.lines().filter(|line| line.contains(" is ")).collect();
    assert_eq!(done, ["own is read", "own is written", "base is read"], "{said}");
    assert_eq!([owner(&own), owner(&base)], before, "the host's nodes stay the host's");
}

fn expected(world: &World) -> Outcomes {
    let root = world.dir.path().display().to_string();
    [
        ("read {}/pods/7/1/c0.qcow2", 0),
        ("read {}/boot/vmlinuz", 0),
        ("read {}/images/base.ext4", 0),
        ("read {}/volumes/own.img", 0),
        ("read {}/pods/7/1/pod.bin", EACCES),
        ("read {}/volumes/other.img", ENOENT),
        ("read {}/pods/7/record.json", ENOENT),
        ("read {}/pods/8/1/c0.qcow2", ENOENT),
        ("read /etc/shadow", ENOENT),
        ("read /etc/passwd", ENOENT),
        ("read /proc/1/environ", ENOENT),
        ("read /dev/mem", ENOENT),
        ("read /dev/net/tun", ENOENT),
        ("read /dev/vfio/vfio", ENOENT),
        ("read /dev/kvm", ENOENT),
        ("read /sys/class/net", ENOENT),
        ("write {}/pods/7/1/qmp.sock", 0),
        ("write {}/volumes/own.img", 0),
        ("write {}/pods/7/1/pod.bin", EACCES),
        ("write {}/boot/vmlinuz", EACCES),
        ("write {}/images/base.ext4", EACCES),
        ("write /usr/bin/planted", EROFS),
        ("write /planted", EROFS),
        ("write {}/pods/7/planted", EROFS),
        ("remove {}/pods/7/1/pod.bin", EPERM),
        ("remove {}/pods/7/1/qemu.log", EPERM),
        ("tcp", ENETUNREACH),
        ("socket {}/agent.sock", ENOENT),
        ("socket {}/pods/8/1/qmp.sock", ENOENT),
        ("the other tap", EEXIST),
        ("packets", EPERM),
        ("interfaces", 0),
        ("setuid", EPERM),
        ("setgroups", EPERM),
        ("capabilities", 1),
        ("bounding set", 1),
        ("no new privileges", 1),
        ("mount", EPERM),
        ("mknod", EPERM),
        ("kill", EPERM),
        ("environment", 0),
        ("core", 1),
    ]
    .into_iter()
    .map(|(what, number)| (what.replace("{}", &root), number))
    .collect()
}

#[tokio::test]
async fn a_shut_in_process_is_what_it_is_from_the_outside_too() {
    let Some(world) = World::new("look").await else { return };
    // As a program that this one was started by may leave it: not closed when another is executed.
    let leaked = fs::File::open("/etc/hostname").or_else(|_| fs::File::open("/etc/passwd")).expect("a file");
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).expect("set");
    let own = world.path("pods/7/1");
    let launch = world.launch(Path::new("/bin/sh"), &["-c", "kill -STOP $$"]);
    let process = Process::start(&launch, &own).expect("started");
    // Before it stops itself its loader has libraries open.
    let pid = rustix::process::Pid::from_raw(process.pid).expect("not 0");
    let stops = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    rustix::process::waitid(WaitId::Pid(pid), stops).expect("it is a child");
    let proc = PathBuf::from(format!("/proc/{}", process.pid));
    let status = fs::read_to_string(proc.join("status")).expect("it lives");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let (uid, gid) = launch.jail.user.map(|(uid, gid)| (uid.to_string(), gid.to_string())).expect("one");
    assert_eq!((field("Uid"), field("Gid")), (vec![uid; 4], vec![gid; 4]));
    assert_eq!(field("Groups"), [] as [String; 0]);
    for sets in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(sets), ["0000000000000000"], "{sets}");
    }
    assert_eq!(field("NoNewPrivs"), ["1"]);
    for namespace in ["mnt", "net", "ipc", "uts"] {
        let of =
            |process: &str| fs::metadata(format!("/proc/{process}/ns/{namespace}")).expect("there").ino();
        assert_ne!(of(&process.pid.to_string()), of("self"), "{namespace}");
    }
    let open = fs::read_dir(proc.join("fd")).expect("it lives");
    let mut open: Vec<_> =
        open.map(|entry| entry.expect("entry").file_name().into_string().expect("text")).collect();
    open.sort();
    // A shell may keep its script's own descriptor, but none of ours.
    assert!(open.starts_with(&["0", "1", "2"].map(str::to_owned)) && open.len() == 3, "{open:?}");
    assert_eq!(fs::read(proc.join("environ")).expect("it lives"), b"", "no word of the agent's environment");
    let mounts = fs::read_to_string(proc.join("mountinfo")).expect("it lives");
    let at: Vec<_> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    let data = world.dir.path().display().to_string();
    let ours: Vec<_> = at.iter().filter_map(|at| at.strip_prefix(data.as_str())).collect();
    let all = ["/boot/initramfs", "/boot/vmlinuz", "/images/base.ext4", "/volumes/own.img", "/pods/7/1"];
    assert_eq!(ours, all, "{mounts}");
    if world.cgroups.problems().is_empty() {
        let groups = fs::read_to_string(proc.join("cgroup")).expect("it lives");
        assert!(groups.lines().filter(|line| line.ends_with("/n/7.1")).count() >= 1, "{groups}");
    }
    process.killer().expect("handle").kill().expect("killed");
    process.wait().await;
    world.cgroups.remove("7.1").expect("nobody is in it");
}
