//! Boot files from made-up inputs in a temporary directory.

use super::*;
use std::os::unix::fs::symlink;

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        for sub in
            ["boot", "lib/modules/6.1.0-1/kernel/drivers/virtio", "lib/modules/6.1.0-1/kernel/net", "data"]
        {
            fs::create_dir_all(root.join(sub)).expect("made");
        }
        fs::write(root.join("boot/vmlinuz-6.1.0-1"), b"kernel").expect("written");
        for name in modules::LOAD_ORDER {
            let path = root.join(format!("lib/modules/6.1.0-1/kernel/drivers/virtio/{name}.ko"));
            fs::write(path, format!("module {name}")).expect("written");
        }
        let mut guest = vec![0; 64];
        guest[..6].copy_from_slice(b"\x7fELF\x02\x01");
        guest[18] = 62;
        fs::write(root.join("guest"), guest).expect("written");
        Self { dir }
    }

    fn path(&self, sub: &str) -> PathBuf {
        self.dir.path().join(sub)
    }

    fn module(&self, name: &str) -> PathBuf {
        self.path(&format!("lib/modules/6.1.0-1/kernel/drivers/virtio/{name}"))
    }

    fn prepare(&self) -> Result<BootAssets, BootError> {
        let sources = BootSources::from_kernel_dir(self.dir.path(), &self.path("guest"))?;
        BootAssets::prepare(&self.path("data"), &sources)
    }

    fn check_refused(&self, expected: &str) {
        let text = self.prepare().expect_err("must be refused").to_string();
        let text = text.replace(&self.dir.path().display().to_string(), "DIR");
        assert!(text.starts_with(expected), "{text}");
    }
}

#[test]
fn the_same_inputs_give_the_same_files() {
    let fixture = Fixture::new();
    let first = fixture.prepare().expect("prepared");
    let written = fs::metadata(&first.initramfs).expect("there").modified().expect("known");
    let second = fixture.prepare().expect("prepared");
    assert_eq!(first, second);
    assert_eq!(fs::metadata(&second.initramfs).expect("there").modified().expect("known"), written);
    assert_eq!(fs::read(&first.kernel).expect("there"), b"kernel");
    let archive = String::from_utf8_lossy(&fs::read(&first.initramfs).expect("there")).into_owned();
    let list: String = modules::LOAD_ORDER.iter().map(|name| format!("/lib/modules/{name}.ko\n")).collect();
    assert!(archive.contains(&list));
    assert!(archive.contains("module virtio_console"));

    fs::write(fixture.module("virtio.ko"), b"other").expect("written");
    let third = fixture.prepare().expect("prepared");
    assert_ne!(third.digest, first.digest);
    assert!(first.initramfs.exists(), "a running guest keeps its files");
    let names: Vec<_> = fs::read_dir(fixture.path("data/boot")).expect("there").flatten().collect();
    assert_eq!(names.len(), 2, "no temporary directory is left: {names:?}");
}

#[test]
fn compressed_and_built_in_modules_are_found() {
    let fixture = Fixture::new();
    let packed = zstd::encode_all(b"module virtio_ring".as_slice(), 3).expect("packed");
    fs::remove_file(fixture.module("virtio_ring.ko")).expect("removed");
    fs::write(fixture.module("virtio-ring.ko.zst"), packed).expect("written");
    fs::remove_file(fixture.module("virtio_net.ko")).expect("removed");
    fs::write(fixture.path("lib/modules/6.1.0-1/modules.builtin"), "kernel/drivers/net/virtio_net.ko\n")
        .expect("written");
    let assets = fixture.prepare().expect("prepared");
    let archive = String::from_utf8_lossy(&fs::read(assets.initramfs).expect("there")).into_owned();
    assert!(archive.contains("module virtio_ring") && !archive.contains("virtio_net.ko"));
}

#[test]
fn what_is_missing_is_named_with_its_remedy() {
    let fixture = Fixture::new();
    fs::remove_file(fixture.module("virtio_blk.ko")).expect("removed");
    fixture.check_refused(
        "Kernel module virtio_blk is neither below DIR/lib/modules/6.1.0-1 nor built in; use Debian's",
    );

    let fixture = Fixture::new();
    fs::remove_file(fixture.path("guest")).expect("removed");
    fixture.check_refused("No guest binary at DIR/guest; build it with");
    symlink("/bin/sh", fixture.path("guest")).expect("linked");
    fixture.check_refused("DIR/guest is dynamically linked, the guest needs a static");

    let fixture = Fixture::new();
    fs::remove_file(fixture.path("boot/vmlinuz-6.1.0-1")).expect("removed");
    fixture.check_refused("No kernel image at DIR/boot/vmlinuz-*; fetch one with");
}

#[test]
fn of_several_kernels_the_last_with_modules_is_taken() {
    let fixture = Fixture::new();
    fs::write(fixture.path("boot/vmlinuz-7.0"), b"no modules").expect("written");
    let sources = BootSources::from_kernel_dir(fixture.dir.path(), &fixture.path("guest")).expect("found");
    assert_eq!(sources.kernel, fixture.path("boot/vmlinuz-6.1.0-1"));
}
