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

/// Modules of drivers are only in the files of guests that have such NICs, each after those it needs.
#[test]
fn drivers_of_nics_are_added_with_what_they_need() {
    let fixture = Fixture::new();
    let modules = fixture.path("lib/modules/6.1.0-1");
    let module = |path: &str, modinfo: &str| {
        let path = modules.join("kernel").join(path);
        fs::create_dir_all(path.parent().expect("below")).expect("made");
        fs::write(path, format!("\x7fELF\0{}\0", modinfo.replace(' ', "\0"))).expect("written");
    };
    module(
        "drivers/net/ethernet/mlx5_core.ko",
        "alias=pci:v000015B3d0000101Esv*sd*bc*sc*i* depends=mlxfw,pci-hyperv-intf,virtio",
    );
    module("drivers/net/ethernet/mlxfw.ko", "depends=");
    module("drivers/pci/pci-hyperv-intf.ko", "depends=");
    module("drivers/net/ethernet/ixgbevf.ko", "alias=pci:v00008086d000010EDsv*sd*bc*sc*i* depends=");
    fs::write(modules.join("modules.builtin"), "kernel/drivers/net/x.ko\n").expect("written");
    fs::write(modules.join("modules.builtin.modinfo"), b"x.alias=pci:v00001234d*\0x.license=GPL\0")
        .expect("written");
    let nic = |ids: &str, is_infiniband, is_needed| {
        let (vendor, device) = ids.split_once(':').expect("ids");
        let modalias = format!("pci:v0000{vendor}d0000{device}sv00000000sd00000000bc02sc00i00");
        GuestNic { ids: ids.to_lowercase(), modalias, is_infiniband, is_needed }
    };
    let prepare = |nics: &[GuestNic]| {
        let sources = BootSources::from_kernel_dir(fixture.dir.path(), &fixture.path("guest"))?;
        BootAssets::prepare_for(&fixture.path("data"), &sources, nics, Compression::None)
    };
    let listed = |nics: &[GuestNic]| {
        let archive = fs::read(prepare(nics).expect("prepared").initramfs).expect("there");
        let archive = String::from_utf8_lossy(&archive).into_owned();
        let (_, list) = archive.split_once("/lib/modules/virtio_net.ko\n").expect("the list's end");
        list.lines()
            .take_while(|line| line.starts_with("/lib/modules/"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let large = nic("15B3:101E", false, true);
    let path = |name: &str| format!("/lib/modules/{name}.ko");
    let expected: Vec<String> =
        ["mlxfw", "pci_hyperv_intf", "mlx5_core"].iter().map(|name| path(name)).collect();
    assert_eq!(listed(std::slice::from_ref(&large)), expected);
    assert_eq!(listed(&[]), [""; 0], "other guests pay for none");
    assert_eq!(listed(&[nic("8086:10ED", false, true)]), [path("ixgbevf")]);
    assert_eq!(listed(&[nic("1234:0001", false, true)]), [""; 0], "it is built in");
    assert_eq!(listed(&[nic("8086:1889", false, false)]), [""; 0], "what is not needed may be without");
    let refused = prepare(&[nic("8086:1889", false, true)]).expect_err("no driver").to_string();
    assert!(
        refused.starts_with("no driver for 8086:1889 in the guest's kernel 6.1.0-1; give the agent"),
        "{refused}"
    );
    let refused =
        prepare(&[GuestNic { is_infiniband: true, ..large }]).expect_err("no interfaces").to_string();
    assert!(refused.starts_with("module ib_ipoib is not in the guest's kernel 6.1.0-1"), "{refused}");
}
