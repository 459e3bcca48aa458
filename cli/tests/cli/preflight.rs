//! What a machine has for guests, on the command line.

use expect_test::{Expect, expect};

use super::{bulkhead_on, text, write};

/// A machine with one GPU, as its files show it.
fn machine() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    let function = "sys/devices/pci0000:3a/0000:3b:00.0";
    for (file, content) in [
        ("vendor", "0x10de\n"),
        ("device", "0x20b5\n"),
        ("subsystem_vendor", "0x10de\n"),
        ("subsystem_device", "0x1533\n"),
        ("class", "0x030200\n"),
        ("numa_node", "1\n"),
        ("reset_method", "flr bus\n"),
    ] {
        write(&dir, &format!("{function}/{file}"), content);
    }
    write(&dir, "sys/fs/cgroup/cgroup.controllers", "cpu io memory pids\n");
    write(&dir, "sys/class/iommu/dmar0/version", "1:0\n");
    write(&dir, "sys/kernel/iommu_groups/7/type", "identity\n");
    let devices = dir.path().join("sys/bus/pci/devices");
    std::fs::create_dir_all(&devices).expect("a directory");
    let target = "../../../devices/pci0000:3a/0000:3b:00.0";
    std::os::unix::fs::symlink(target, devices.join("0000:3b:00.0")).expect("a link");
    dir
}

async fn check(dir: &tempfile::TempDir, words: &[&str], expected: Expect) {
    let root = dir.path().display().to_string();
    let output = bulkhead_on("127.0.0.1:1", &[&["preflight", "--root", &root], words].concat()).await;
    let code = output.status.code().unwrap_or(-1);
    expected.assert_eq(&format!("exit {code}\n{}{}", text(&output.stdout), text(&output.stderr)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_machine_lacks_is_said_with_its_remedy() {
    let dir = machine();
    check(&dir, &[], expect![[r#"
        exit 1
        PRECONDITION            NEEDED FOR          STATE        FOUND
        kvm                     speed               missing      there is no /dev/kvm: guests are emulated, which is slow
        cgroup-controllers      limits              ok           cgroup version 2 with cpu, memory, pids, io
        confinement             confinement         unknown      what this user may do is not told
        huge-pages              speed               missing      the kernel has no huge pages
        iommu                   devices             ok           dmar0
        iommu-pass-through      devices             ok           devices of the host are not translated
        vfio                    devices             missing      the driver vfio-pci is not loaded
        vfio-file               devices             missing      there is no /dev/vfio/vfio
        network-drivers         virtual functions   not needed   no network card with virtual functions that pods could have
        sriov-firmware          virtual functions   not needed   no network card with virtual functions that pods could have
        virtual-functions       virtual functions   not needed   no network card with virtual functions that pods could have
        network-tun             network             missing      there is no /dev/net/tun: guests have no card
        network-bridge          network             unknown      no bridge is there: the kernel loads them when the agent makes its own
        network-packet-filter   network             missing      there is no program nft
        network-forwarding      network             missing      whether the host forwards packets cannot be read
        network-range           network             ok           addresses below 10.128.0.0/9 are free
        network-mtu             network             ok           no default route: guests' cards have 1500 bytes
        kvm: turn virtualisation on in the firmware (VT-x, AMD-V), then: modprobe kvm_intel or kvm_amd
        confinement: run the agent as root, or with the capabilities that are missing; see the node's warnings once it has joined
        huge-pages: for hugepages-2Mi: echo N > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages (vm.nr_hugepages in /etc/sysctl.d keeps it); for hugepages-1Gi: boot with hugepagesz=1G hugepages=N
        vfio: modprobe vfio-pci, and for the next boot: echo vfio-pci > /etc/modules-load.d/vfio-pci.conf
        vfio-file: modprobe vfio_iommu_type1, and see that /dev is a devtmpfs
        network-tun: modprobe tun; in a container give it the device: mkdir -p /dev/net && mknod /dev/net/tun c 10 200
        network-bridge: modprobe bridge, and look at the node's warnings once it has joined
        network-packet-filter: apt-get install nftables
        network-forwarding: where /proc/sys is read-only to the agent: sysctl -w net.ipv4.ip_forward=1; or run it with --egress false

        ADDRESS        RESOURCE         ID          CLASS   DRIVER   NUMA   GROUP   RESET     SR-IOV
        0000:3b:00.0   nvidia.com/gpu   10de:20b5   0302    -        1      -       flr,bus   -
        error: this machine lacks vfio, vfio-file
    "#]]).await;
    write(&dir, "sys/bus/pci/drivers/vfio-pci/bind", "");
    write(&dir, "dev/vfio/vfio", "");
    check(&dir, &["--all"], expect![[r#"
        exit 0
        PRECONDITION            NEEDED FOR          STATE        FOUND
        kvm                     speed               missing      there is no /dev/kvm: guests are emulated, which is slow
        cgroup-controllers      limits              ok           cgroup version 2 with cpu, memory, pids, io
        confinement             confinement         unknown      what this user may do is not told
        huge-pages              speed               missing      the kernel has no huge pages
        iommu                   devices             ok           dmar0
        iommu-pass-through      devices             ok           devices of the host are not translated
        vfio                    devices             ok           vfio-pci is loaded
        vfio-file               devices             ok           /dev/vfio/vfio is there
        network-drivers         virtual functions   not needed   no network card with virtual functions that pods could have
        sriov-firmware          virtual functions   not needed   no network card with virtual functions that pods could have
        virtual-functions       virtual functions   not needed   no network card with virtual functions that pods could have
        network-tun             network             missing      there is no /dev/net/tun: guests have no card
        network-bridge          network             unknown      no bridge is there: the kernel loads them when the agent makes its own
        network-packet-filter   network             missing      there is no program nft
        network-forwarding      network             missing      whether the host forwards packets cannot be read
        network-range           network             ok           addresses below 10.128.0.0/9 are free
        network-mtu             network             ok           no default route: guests' cards have 1500 bytes
        kvm: turn virtualisation on in the firmware (VT-x, AMD-V), then: modprobe kvm_intel or kvm_amd
        confinement: run the agent as root, or with the capabilities that are missing; see the node's warnings once it has joined
        huge-pages: for hugepages-2Mi: echo N > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages (vm.nr_hugepages in /etc/sysctl.d keeps it); for hugepages-1Gi: boot with hugepagesz=1G hugepages=N
        network-tun: modprobe tun; in a container give it the device: mkdir -p /dev/net && mknod /dev/net/tun c 10 200
        network-bridge: modprobe bridge, and look at the node's warnings once it has joined
        network-packet-filter: apt-get install nftables
        network-forwarding: where /proc/sys is read-only to the agent: sysctl -w net.ipv4.ip_forward=1; or run it with --egress false

        ADDRESS        RESOURCE         ID          CLASS   DRIVER   NUMA   GROUP   RESET     SR-IOV
        0000:3b:00.0   nvidia.com/gpu   10de:20b5   0302    -        1      -       flr,bus   -
    "#]]).await;
}

/// Whether lvm2 is here or not: nothing of it can be used.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_of_volumes_is_looked_for_when_it_is_named() {
    let dir = machine();
    write(&dir, "sys/bus/pci/drivers/vfio-pci/bind", "");
    let root = dir.path().display().to_string();
    let pool = "--volume-group=bulkhead-test-none/thin";
    let output = bulkhead_on("127.0.0.1:1", &["preflight", "--root", &root, pool]).await;
    let said = text(&output.stdout);
    let row = said.lines().find(|line| line.starts_with("volumes-lvm ")).expect("a row");
    assert!(row.contains("there is no program lvm") || row.contains("bulkhead-test-none"), "{row}");
    let remedy = said.lines().find(|line| line.starts_with("volumes-lvm: ")).expect("a remedy");
    let remedies =
        ["apt-get install lvm2 thin-provisioning-tools", "vgcreate bulkhead-test-none", "run it as root"];
    assert!(remedies.iter().any(|one| remedy.contains(one)), "{remedy}");
    let wrong = bulkhead_on("127.0.0.1:1", &["preflight", "--volume-group", "vg0"]).await;
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("expected VG/THINPOOL"), "{}", text(&wrong.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn device_classes_are_an_administrators_word() {
    let dir = machine();
    let wrong =
        r#"[{"name": "x", "spec": {"extendedResourceName": "e.com/x", "selector": {"vendors": ["10dg"]}}}]"#;
    let classes = write(&dir, "classes.json", wrong);
    let output = bulkhead_on("127.0.0.1:1", &["preflight", "--device-classes", &classes]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("expected four hexadecimal digits"), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_as_json() {
    let dir = machine();
    let root = dir.path().display().to_string();
    let output = bulkhead_on("127.0.0.1:1", &["preflight", "--root", &root, "-o", "json"]).await;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let gpu = &report["inventory"]["functions"]["0000:3b:00.0"];
    assert_eq!((gpu["numa_node"].as_u64(), gpu["reset_methods"][0].as_str()), (Some(1), Some("flr")));
    assert_eq!(report["preconditions"][0]["name"], "kvm");
}

/// A machine with a card that was not looked at by its library, and one without any: nothing passes that was not done.
#[tokio::test(flavor = "multi_thread")]
async fn cards_are_checked_as_far_as_it_can_be_done_and_the_rest_is_said() {
    let dir = machine();
    check(&dir, &["--gpu"], expect![[r#"
        exit 4
        ok           0000:3b:00.0 discovered: 10de:20b5, no driver
        not met      kvm: there is no /dev/kvm: guests are emulated, which is slow (turn virtualisation on in the firmware (VT-x, AMD-V), then: modprobe kvm_intel or kvm_amd)
        met          cgroup-controllers: cgroup version 2 with cpu, memory, pids, io
        undetermined confinement: what this user may do is not told (run the agent as root, or with the capabilities that are missing; see the node's warnings once it has joined)
        not met      huge-pages: the kernel has no huge pages (for hugepages-2Mi: echo N > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages (vm.nr_hugepages in /etc/sysctl.d keeps it); for hugepages-1Gi: boot with hugepagesz=1G hugepages=N)
        met          iommu: dmar0
        met          iommu-pass-through: devices of the host are not translated
        not met      vfio: the driver vfio-pci is not loaded (modprobe vfio-pci, and for the next boot: echo vfio-pci > /etc/modules-load.d/vfio-pci.conf)
        not met      vfio-file: there is no /dev/vfio/vfio (modprobe vfio_iommu_type1, and see that /dev is a devtmpfs)
        not needed   network-drivers: no network card with virtual functions that pods could have
        not needed   sriov-firmware: no network card with virtual functions that pods could have
        not needed   virtual-functions: no network card with virtual functions that pods could have
        not met      network-tun: there is no /dev/net/tun: guests have no card (modprobe tun; in a container give it the device: mkdir -p /dev/net && mknod /dev/net/tun c 10 200)
        undetermined network-bridge: no bridge is there: the kernel loads them when the agent makes its own (modprobe bridge, and look at the node's warnings once it has joined)
        not met      network-packet-filter: there is no program nft (apt-get install nftables)
        not met      network-forwarding: whether the host forwards packets cannot be read (where /proc/sys is read-only to the agent: sysctl -w net.ipv4.ip_forward=1; or run it with --egress false)
        met          network-range: addresses below 10.128.0.0/9 are free
        met          network-mtu: no default route: guests' cards have 1500 bytes
        NOT DONE     0000:3b:00.0: isolation: it is in no IOMMU group (see iommu)
        NOT DONE     0000:3b:00.0: number, health and usage: NVML: it knows this machine's cards, and these are another one's files (run it there, without --root)
        NOT DONE     guests with cards, for want of kvm: there is no /dev/kvm: guests are emulated, which is slow (turn virtualisation on in the firmware (VT-x, AMD-V), then: modprobe kvm_intel or kvm_amd)
        NOT DONE     whether confinement is met: what this user may do is not told (run the agent as root, or with the capabilities that are missing; see the node's warnings once it has joined)
        NOT DONE     guests with cards, for want of vfio: the driver vfio-pci is not loaded (modprobe vfio-pci, and for the next boot: echo vfio-pci > /etc/modules-load.d/vfio-pci.conf)
        NOT DONE     guests with cards, for want of vfio-file: there is no /dev/vfio/vfio (modprobe vfio_iommu_type1, and see that /dev is a devtmpfs)
        NOT DONE     whether network-bridge is met: no bridge is there: the kernel loads them when the agent makes its own (modprobe bridge, and look at the node's warnings once it has joined)
        NOT DONE     attachment to a guest, reset and return: this command binds nothing; an agent's pods do
        error: 7 checks could not be done
    "#]]).await;
    let empty = tempfile::tempdir().expect("temporary directory");
    check(&empty, &["--gpu"], expect![[r#"
        exit 3
        not met      kvm: there is no /dev/kvm: guests are emulated, which is slow (turn virtualisation on in the firmware (VT-x, AMD-V), then: modprobe kvm_intel or kvm_amd)
        not met      cgroup-controllers: no controllers below /sys/fs/cgroup (boot without cgroup_disable=, with systemd or by hand: mount -t cgroup2 none /sys/fs/cgroup)
        undetermined confinement: what this user may do is not told (run the agent as root, or with the capabilities that are missing; see the node's warnings once it has joined)
        not met      huge-pages: the kernel has no huge pages (for hugepages-2Mi: echo N > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages (vm.nr_hugepages in /etc/sysctl.d keeps it); for hugepages-1Gi: boot with hugepagesz=1G hugepages=N)
        not needed   iommu: no IOMMU is on; no device that pods could have
        not needed   iommu-pass-through: there are no IOMMU groups; no device that pods could have
        not needed   vfio: the driver vfio-pci is not loaded; no device that pods could have
        not needed   vfio-file: there is no /dev/vfio/vfio; no device that pods could have
        not needed   network-drivers: no network card with virtual functions that pods could have
        not needed   sriov-firmware: no network card with virtual functions that pods could have
        not needed   virtual-functions: no network card with virtual functions that pods could have
        not met      network-tun: there is no /dev/net/tun: guests have no card (modprobe tun; in a container give it the device: mkdir -p /dev/net && mknod /dev/net/tun c 10 200)
        undetermined network-bridge: no bridge is there: the kernel loads them when the agent makes its own (modprobe bridge, and look at the node's warnings once it has joined)
        not met      network-packet-filter: there is no program nft (apt-get install nftables)
        not met      network-forwarding: whether the host forwards packets cannot be read (where /proc/sys is read-only to the agent: sysctl -w net.ipv4.ip_forward=1; or run it with --egress false)
        met          network-range: addresses below 10.128.0.0/9 are free
        met          network-mtu: no default route: guests' cards have 1500 bytes
        NOT DONE     every check of a card: this machine has no NVIDIA GPU (if one should be there: lspci -d 10de:, and see that it has power)
        NOT DONE     what the driver's library tells: NVML: it knows this machine's cards, and these are another one's files (run it there, without --root)
        NOT DONE     guests with cards, for want of kvm: there is no /dev/kvm: guests are emulated, which is slow (turn virtualisation on in the firmware (VT-x, AMD-V), then: modprobe kvm_intel or kvm_amd)
        NOT DONE     whether confinement is met: what this user may do is not told (run the agent as root, or with the capabilities that are missing; see the node's warnings once it has joined)
        NOT DONE     whether network-bridge is met: no bridge is there: the kernel loads them when the agent makes its own (modprobe bridge, and look at the node's warnings once it has joined)
        NOT DONE     attachment to a guest, reset and return: this command binds nothing; an agent's pods do
        error: this machine has no NVIDIA GPU: no card was checked
    "#]]).await;
    let root = dir.path().display().to_string();
    let output = bulkhead_on("127.0.0.1:1", &["preflight", "--root", &root, "--gpu", "-o", "json"]).await;
    assert_eq!(output.status.code(), Some(4));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["cards"][0]["checks"][0]["passed"], true);
    assert!(report["library"]["remedy"].as_str().is_some_and(|remedy| remedy.contains("--root")));
    assert_eq!(report["preconditions"].as_array().map(Vec::len), Some(17));
}

/// Whatever this machine has: each precondition has a line, and what was not done is said last.
#[tokio::test(flavor = "multi_thread")]
async fn this_machines_cards_are_checked() {
    let output = bulkhead_on("127.0.0.1:1", &["preflight", "--gpu"]).await;
    let said = text(&output.stdout);
    let states = ["met ", "not met ", "undetermined ", "not needed "];
    let lines: Vec<&str> = said.lines().collect();
    let of_machine = lines.iter().filter(|line| states.iter().any(|state| line.starts_with(state)));
    assert_eq!(of_machine.count(), 17, "{said}");
    let last = lines.last().expect("some");
    assert!(last.starts_with("NOT DONE") && last.contains("this command binds nothing"), "{said}");
    let has_card = lines[0].contains(" discovered: ");
    match output.status.code() {
        Some(3) => assert!(!has_card && said.contains("NOT DONE     every check of a card"), "{said}"),
        Some(0 | 1 | 4) => assert!(has_card, "{said}"),
        code => panic!("{code:?}: {said}"),
    }
}
