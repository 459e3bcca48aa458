use std::process::{Command, Stdio};

use super::fake::FakeFiles;
use super::*;

const LIMITS: HostLimits = HostLimits { cpu_shares: 512, cpu_millis: 1500, memory_bytes: 32 << 20, pids: 8 };

/// A name that no other test process uses.
fn own_parent(test: &str) -> String {
    format!("/bulkhead-test-{}-{test}", std::process::id())
}

/// The groups of this machine below a parent of one test, which is removed with them.
struct Real {
    cgroups: Cgroups,
    parent: String,
}

impl Real {
    /// `None`, with a word on what is missing, where this process may make none.
    fn open(test: &str) -> Option<Self> {
        let parent = own_parent(test);
        let cgroups = Cgroups::open(Arc::new(KernelFiles), Some(&parent), "node");
        let real = Self { cgroups, parent };
        if real.cgroups.problems().is_empty() {
            return Some(real);
        }
        eprintln!("skipped: {}", real.cgroups.problems().join("; "));
        None
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.cgroups.keep_only(&BTreeSet::new());
        self.cgroups.remove_parent(&self.parent);
    }
}

/// What agents count on, whoever keeps the files.
fn check_conformance(cgroups: &Cgroups, join: impl Fn(&[PathBuf]) -> Box<dyn FnOnce()>) {
    assert_eq!(cgroups.problems(), [] as [String; 0]);
    let all: BTreeSet<_> = cgroups.places.iter().flat_map(|place| place.controllers.clone()).collect();
    assert_eq!(all, BTreeSet::from(Controller::ALL));
    let procs = cgroups.create("7.1", LIMITS).expect("made");
    assert_eq!(procs.len(), cgroups.places.len());
    for place in &cgroups.places {
        for setting in place.controllers.iter().flat_map(|one| LIMITS.settings(*one, place.version)) {
            let file = place.base.join("7.1").join(setting.file);
            match cgroups.files.read(&file) {
                Ok(text) => assert_eq!(text.trim(), setting.value, "{}", file.display()),
                Err(error) => assert!(setting.optional, "{}: {error}", file.display()),
            }
            assert!(cgroups.files.write(&file, "nonsense").is_err(), "{}", file.display());
        }
        let nothing = cgroups.files.write(&place.base.join("7.1/no.such.file"), "1");
        assert!(nothing.is_err_and(|error| error.kind() == io::ErrorKind::NotFound
            || error.kind() == io::ErrorKind::PermissionDenied));
    }
    assert_eq!(cgroups.out_of_memory("7.1"), None);
    assert_eq!(cgroups.out_of_memory("8.1"), None, "no such group");
    // Groups with a process stay, and are not made anew.
    let end = join(&procs);
    assert!(cgroups.remove("7.1").is_err());
    assert!(cgroups.create("7.1", LIMITS).is_err());
    end();
    cgroups.create("9.2", LIMITS).expect("made");
    cgroups.keep_only(&BTreeSet::from(["9.2".to_owned()]));
    for place in &cgroups.places {
        assert_eq!(cgroups.files.below(&place.base).expect("listed"), ["9.2"]);
    }
    cgroups.create("9.2", LIMITS).expect("made anew");
    cgroups.close();
    assert!(cgroups.places.iter().all(|place| place.base.is_dir()), "a guest is left");
    cgroups.remove("9.2").expect("removed");
    cgroups.remove("9.2").expect("removed twice");
    cgroups.close();
    assert!(cgroups.places.iter().all(|place| !place.base.is_dir()), "nobody is left");
}

#[test]
fn a_fake_of_each_version_conforms() {
    for version in [Version::V1, Version::V2] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let files = Arc::new(FakeFiles::new(dir.path(), version));
        let cgroups = Cgroups::open(files, Some("/a/b"), "node");
        check_conformance(&cgroups, |procs| {
            let procs = procs.to_vec();
            procs.iter().for_each(|file| std::fs::write(file, "17\n").expect("written"));
            Box::new(move || procs.iter().for_each(|file| std::fs::write(file, "").expect("written")))
        });
    }
}

#[test]
fn the_kernels_groups_conform() {
    let Some(real) = Real::open("conform") else { return };
    check_conformance(&real.cgroups, |procs| {
        let script = format!("for file in {}; do echo 0 > $file; done; echo joined; read word", words(procs));
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = shell.spawn().expect("a shell");
        let mut line = String::new();
        let out = child.stdout.as_mut().expect("piped");
        io::BufRead::read_line(&mut io::BufReader::new(out), &mut line).expect("a line");
        assert_eq!(line, "joined\n");
        Box::new(move || {
            drop(child.stdin.take());
            child.wait().expect("it ends");
        })
    });
}

fn words(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_kernel_holds_a_process_to_its_groups_and_says_why_it_killed_it() {
    let Some(real) = Real::open("hold") else { return };
    let procs = real.cgroups.create("7.1", LIMITS).expect("made");
    let join = format!("for file in {}; do echo 0 > $file; done", words(&procs));
    let forks = format!(
        "{join}; i=0; while [ $i -lt 20 ]; do sleep 30 & i=$((i+1)); done; echo done; kill $(jobs -p)"
    );
    let output = Command::new("/bin/sh").args(["-c", &forks]).output().expect("a shell");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.to_lowercase().contains("fork"), "{output:?}");
    assert_eq!(real.cgroups.out_of_memory("7.1"), None);
    // It reads a block of this size into memory.
    let grows = format!("{join}; exec dd if=/dev/zero of=/dev/null bs=200M count=1");
    let output = Command::new("/bin/sh").args(["-c", &grows]).output().expect("a shell");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(9), "{output:?}");
    assert_eq!(real.cgroups.out_of_memory("7.1"), Some(LIMITS.memory_bytes));
    kill_all(&procs);
    real.cgroups.create("7.1", LIMITS).expect("made anew");
    assert_eq!(real.cgroups.out_of_memory("7.1"), None, "it is another guest");
}

/// Ends what the test left in the groups.
fn kill_all(procs: &[PathBuf]) {
    for _ in 0..100 {
        let left: Vec<i32> = std::fs::read_to_string(&procs[0])
            .map(|text| text.lines().filter_map(|line| line.parse().ok()).collect())
            .unwrap_or_default();
        if left.is_empty() {
            return;
        }
        for pid in left.into_iter().filter_map(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn what_cannot_be_had_is_told_with_a_remedy() {
    #[derive(Debug)]
    struct Denied(FakeFiles);
    impl GroupFiles for Denied {
        fn read(&self, path: &Path) -> io::Result<String> {
            self.0.read(path)
        }
        fn write(&self, _: &Path, _: &str) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
        fn make(&self, _: &Path) -> io::Result<()> {
            Err(io::ErrorKind::ReadOnlyFilesystem.into())
        }
        fn remove(&self, group: &Path) -> io::Result<()> {
            self.0.remove(group)
        }
        fn below(&self, group: &Path) -> io::Result<Vec<String>> {
            self.0.below(group)
        }
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    for (version, count) in [(Version::V1, 3), (Version::V2, 1)] {
        let files = Arc::new(Denied(FakeFiles::new(&dir.path().join(count.to_string()), version)));
        let cgroups = Cgroups::open(Arc::clone(&files) as _, Some("/b"), "node");
        assert_eq!(cgroups.problems().len(), count, "{:?}", cgroups.problems());
        assert!(cgroups.problems().iter().all(|one| one.contains("--cgroup-parent")));
        assert_eq!(cgroups.create("7.1", LIMITS).expect("nothing to do"), [] as [PathBuf; 0]);
        cgroups.remove("7.1").expect("nothing to do");
        assert!(Cgroups::open(files, None, "node").problems().is_empty(), "nobody wants any");
    }
}
