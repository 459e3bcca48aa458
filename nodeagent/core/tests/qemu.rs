//! Golden command lines, one per feature.

use bulkhead_nodeagent_core::qemu::*;
use bulkhead_nodeagent_core::{GuestNuma, GuestSize};
use bulkhead_types::{Container, HugePages, PodSpec, ResourceRequirements};
use expect_test::{Expect, expect};
use uuid::Uuid;

fn base() -> QemuCommand {
    QemuCommand {
        name: Name { guest: "web".to_owned(), debug_threads: true },
        uuid: MachineUuid(Uuid::from_u128(1)),
        machine: Machine {
            machine_type: MachineType::Q35,
            usb: false,
            dump_guest_core: false,
            mem_merge: false,
        },
        accel: Accel::Tcg { multi: true },
        cpu: Cpu::Max,
        smp: Smp { cpus: 2 },
        memory: Memory { size_bytes: (128 << 20) + 1 },
        ram: Ram::Board,
        kernel: Kernel {
            kernel: "/k/vmlinuz".to_owned(),
            initrd: "/k/initrd".to_owned(),
            append: vec!["console=ttyS0".to_owned(), "quiet".to_owned()],
        },
        incoming: false,
        chardevs: vec![],
        serial: None,
        qmp: None,
        blockdevs: vec![],
        netdevs: vec![],
        devices: vec![],
        pci_hole64_bytes: None,
        growth: None,
        sandbox: None,
        pidfile: None,
    }
}

/// Shows what `change` adds to the smallest command line, one switch a line.
fn check(change: impl FnOnce(&mut QemuCommand), expected: Expect) {
    let mut command = base();
    change(&mut command);
    let plain = base().to_args();
    let args = command.to_args();
    let added: Vec<&str> = args
        .chunks(2)
        .skip(2)
        .filter(|pair| !plain.chunks(2).any(|known| known == *pair))
        .flatten()
        .map(String::as_str)
        .collect();
    let text: String = added.chunks(2).map(|pair| format!("{}\n", pair.join(" "))).collect();
    expected.assert_eq(&text);
}

#[test]
fn a_board_has_places_for_so_many_disks() {
    let check = |disks: usize, devices: usize, growth: bool, expected: Option<&str>| {
        let mut command = base();
        command.devices = vec![Device::VirtioSerialPci(VirtioSerialPci { id: "serial0".to_owned() })];
        command.connect(9, "02:00:00:00:00:01");
        command.devices.extend((0..disks).map(|n| {
            let (id, drive, serial) = (format!("disk{n}"), format!("file{n}"), format!("c{n}"));
            Device::VirtioBlkPci(VirtioBlkPci { id, drive, serial })
        }));
        command.growth = growth.then(|| bulkhead_nodeagent_core::Growth::of(SMALL));
        let device = HostDevice {
            address: "0000:3b:00.0".parse().expect("one"),
            numa_node: None,
            memory_bars_bytes: vec![],
        };
        command.pass_through(&vec![device; devices]);
        assert_eq!(command.check_places().err().as_deref(), expected);
    };
    // What QEMU 7.2 takes, and one more.
    assert_eq!(bulkhead_types::GUEST_DISKS_MAX, 28);
    check(28, 0, false, None);
    let too_many = "the pod needs 29 disks, one for each container and each volume on disk, and its guest has places for 28";
    check(29, 0, false, Some(too_many));
    check(26, 0, true, None);
    let too_many = "the pod needs 27 disks, one for each container and each volume on disk, and its guest has places for 26";
    check(27, 0, true, Some(too_many));
    // Eight root ports have one place together.
    check(27, 8, false, None);
    check(26, 9, false, None);
    let too_many = "the pod needs 28 disks, one for each container and each volume on disk, and its guest has places for 27";
    check(28, 8, false, Some(too_many));
}

const SMALL: GuestSize = GuestSize { cpus: 1, memory_bytes: 128 << 20 };

#[test]
fn smallest() {
    let args = base().to_args().join("\n");
    expect![[r#"
        -nodefaults
        -no-user-config
        -nographic
        -no-reboot
        -name
        guest=web,debug-threads=on
        -uuid
        00000000-0000-0000-0000-000000000001
        -machine
        q35,usb=off,dump-guest-core=off,mem-merge=off
        -accel
        tcg,thread=multi
        -cpu
        max
        -smp
        cpus=2,maxcpus=2
        -m
        size=129M
        -kernel
        /k/vmlinuz
        -initrd
        /k/initrd
        -append
        console=ttyS0 quiet"#]]
    .assert_eq(&args);
}

#[test]
fn kvm_with_the_hosts_processor() {
    check(
        |c| (c.accel, c.cpu) = (Accel::Kvm, Cpu::Host),
        expect![[r#"
        -accel kvm
        -cpu host
    "#]],
    );
}

#[test]
fn memory_that_the_hosts_kernel_may_merge() {
    check(
        |c| c.machine.mem_merge = true,
        expect![[r#"
            -machine q35,usb=off,dump-guest-core=off,mem-merge=on
        "#]],
    );
}

#[test]
fn a_template_and_its_copies() {
    let memory =
        |copy_on_write| Ram::Template(TemplateMemory { fd: 17, size_bytes: (128 << 20) + 1, copy_on_write });
    check(
        |c| c.ram = memory(false),
        expect![[r#"
            -object memory-backend-file,id=template,size=129M,mem-path=/proc/self/fd/17,share=on
            -machine memory-backend=template
        "#]],
    );
    check(
        |c| (c.ram, c.incoming) = (memory(true), true),
        expect![[r#"
            -object memory-backend-file,id=template,size=129M,mem-path=/proc/self/fd/17,share=off
            -machine memory-backend=template
            -incoming defer
        "#]],
    );
    let mut command = base();
    command.incoming = true;
    let args = command.to_args().join(" ");
    assert!(!args.contains("-kernel") && !args.contains("-append"), "its kernel runs already: {args}");
}

fn memory(number: u32, mib: u64, host_node: u32, policy: HostMemPolicy) -> MemoryBackendRam {
    let (id, size_bytes) = (format!("mem{number}"), mib << 20);
    MemoryBackendRam { id, size_bytes, host_node, policy, prealloc: host_node > 1 }
}

#[test]
fn memory_of_one_numa_node() {
    check(
        |c| c.ram = Ram::One(memory(0, 129, 1, HostMemPolicy::Bind)),
        expect![[r#"
            -object memory-backend-ram,id=mem0,size=129M,host-nodes=1,policy=bind,prealloc=off
            -machine memory-backend=mem0
        "#]],
    );
}

#[test]
fn numa_nodes_of_the_guest() {
    let place = |memory_bytes, own: [&str; 2]| {
        let node = |(id, cpus): (u32, &str)| bulkhead_types::NumaNode {
            id,
            memory_bytes: 1 << 40,
            huge_pages: bulkhead_types::HugePages::NONE,
            cores: vec![bulkhead_types::CpuCore { package: id, core: 0, cpus: cpus.parse().expect("a set") }],
        };
        let numa_nodes: Vec<_> = [1, 4].into_iter().zip(own).map(node).collect();
        let topology = bulkhead_types::CpuTopology { numa_nodes, ..bulkhead_types::CpuTopology::default() };
        let size = GuestSize { cpus: topology.cpus().len(), memory_bytes };
        let left = |node| (node == 4).then_some(1);
        let placed = GuestNuma::place(&topology, &topology.cpus(), size, left).expect("there is room");
        assert_eq!(placed.crowded().collect::<Vec<_>>(), [4]);
        (size, placed)
    };
    check(
        |c| {
            let (size, placed) = place(1 << 30, ["0-3", "8-13"]);
            (c.smp, c.memory) = (Smp { cpus: size.cpus }, Memory { size_bytes: size.memory_bytes });
            c.ram = placed.ram(true);
        },
        expect![[r#"
            -smp cpus=10,maxcpus=10,sockets=5,cores=2,threads=1
            -m size=1024M
            -object memory-backend-ram,id=mem0,size=410M,host-nodes=1,policy=bind,prealloc=on
            -numa node,nodeid=0,cpus=0-3,memdev=mem0
            -object memory-backend-ram,id=mem1,size=614M,host-nodes=4,policy=preferred,prealloc=on
            -numa node,nodeid=1,cpus=4-9,memdev=mem1
        "#]],
    );
}

/// A guest of so much ordinary memory, in MiB, with pages of the host.
fn paged(c: &mut QemuCommand, mib: u64, pages: GuestPages) {
    (c.smp, c.memory) = (Smp { cpus: 2 }, Memory { size_bytes: mib << 20 });
    let free = |node| HugePages { two_mib_bytes: if node == 1 { 1 << 40 } else { 0 }, one_gib_bytes: 0 };
    c.back_with_huge_pages(&pages, free);
}

fn guest_pages(two_mib: u64, one_gib: u64, whole: bool) -> GuestPages {
    let asked = HugePages { two_mib_bytes: two_mib << 20, one_gib_bytes: one_gib << 30 };
    let (_, more) = asked.guest_overhead();
    GuestPages { asked, pages: asked.zip(more, |a, b| a + b), whole }
}

#[test]
fn huge_pages_of_the_host() {
    check(
        |c| paged(c, 256, guest_pages(64, 0, false)),
        expect![[r#"
            -m size=320M
            -object memory-backend-ram,id=mem0,size=256M
            -numa node,nodeid=0,cpus=0-1,memdev=mem0
            -object memory-backend-memfd,id=pages2Mi,size=64M,hugetlb=on,hugetlbsize=2M,prealloc=on
            -numa node,nodeid=1,memdev=pages2Mi
        "#]],
    );
    // Pages of 1 GiB begin at 4 GiB, or a multiple of 1 GiB above that.
    check(
        |c| paged(c, 256, guest_pages(64, 1, false)),
        expect![[r#"
            -m size=2368M
            -object memory-backend-ram,id=mem0,size=256M
            -numa node,nodeid=0,cpus=0-1,memdev=mem0
            -object memory-backend-memfd,id=pages2Mi,size=64M,hugetlb=on,hugetlbsize=2M,prealloc=on
            -numa node,nodeid=1,memdev=pages2Mi
            -object memory-backend-memfd,id=pages1Gi,size=2048M,hugetlb=on,hugetlbsize=1G,prealloc=on
            -numa node,nodeid=2,memdev=pages1Gi
            -machine max-ram-below-4g=335544320
            -append console=ttyS0 quiet hugepagesz=1G hugepages=2:1
        "#]],
    );
    let mut large = base();
    paged(&mut large, 5000, guest_pages(0, 3, false));
    let args = large.to_args().join(" ");
    // 5000 MiB are 1928 MiB below 4 GiB and 3 GiB above.
    assert!(args.contains(&format!("max-ram-below-4g={}", 1928u64 << 20)), "{args}");
    assert!(args.contains("hugepagesz=1G hugepages=1:3"), "{args}");
    // The whole guest, where its NUMA node has the pages.
    let on = |host_node| {
        let policy = HostMemPolicy::Bind;
        MemoryBackendRam { id: "mem0".to_owned(), size_bytes: 255 << 20, host_node, policy, prealloc: true }
    };
    for (host_node, policy) in [(1, "bind"), (0, "preferred")] {
        let mut whole = base();
        whole.ram = Ram::One(on(host_node));
        paged(&mut whole, 255, guest_pages(2, 0, true));
        let args = whole.to_args().join(" ");
        let object = |id: &str, mib: u64| {
            format!(
                "memory-backend-memfd,id={id},size={mib}M,hugetlb=on,hugetlbsize=2M,prealloc=on,host-nodes={host_node},\
                 policy={policy}"
            )
        };
        assert!(args.contains(&object("mem0", 256)) && args.contains(&object("pages2Mi", 2)), "{args}");
        assert!(args.contains("-m size=258M") && !args.contains("memory-backend-ram"), "{args}");
    }
    let free = HugePages { two_mib_bytes: 256 << 20, one_gib_bytes: 1 << 30 };
    let check_free = |pages: GuestPages, expected: Result<(), &str>| {
        assert_eq!(check_huge_pages(free, pages.needed(250 << 20)), expected.map_err(str::to_owned));
    };
    check_free(guest_pages(6, 0, true), Ok(()));
    check_free(
        guest_pages(8, 0, true),
        Err(
            "the guest takes 129 pages of 2Mi, and the machine's pool hugepages-2Mi has 128 left: others use it, or it was made smaller",
        ),
    );
    check_free(
        guest_pages(8, 1, false),
        Err(
            "the guest takes 2 pages of 1Gi, and the machine's pool hugepages-1Gi has 1 left: others use it, or it was made smaller",
        ),
    );
}

#[test]
fn control_channel_and_console() {
    check(
        |c| {
            let backend = ChardevBackend::Socket { path: "/run/q,mp".to_owned(), server: true, wait: false };
            c.chardevs.push(Chardev { id: "qmp".to_owned(), backend });
            let backend = ChardevBackend::File { path: "/run/console".to_owned(), append: true };
            c.chardevs.push(Chardev { id: "console".to_owned(), backend });
            c.chardevs
                .push(Chardev { id: "out".to_owned(), backend: ChardevBackend::Stdio { signal: false } });
            c.serial = Some(Serial { chardev: "console".to_owned() });
            c.qmp = Some(Qmp { chardev: "qmp".to_owned() });
        },
        expect![[r#"
            -chardev socket,id=qmp,path=/run/q,,mp,server=on,wait=off
            -chardev file,id=console,path=/run/console,append=on
            -chardev stdio,id=out,signal=off
            -serial chardev:console
            -mon chardev=qmp,mode=control
        "#]],
    );
}

#[test]
fn guest_channel() {
    check(
        |c| {
            c.devices.push(Device::VirtioSerialPci(VirtioSerialPci { id: "ch".to_owned() }));
            c.devices.push(Device::VirtserialPort(VirtserialPort {
                bus: "ch.0".to_owned(),
                chardev: "guest".to_owned(),
                name: "org.bulkhead.guest.0".to_owned(),
            }));
        },
        expect![[r#"
            -device virtio-serial-pci,id=ch
            -device virtserialport,bus=ch.0,chardev=guest,name=org.bulkhead.guest.0
        "#]],
    );
}

#[test]
fn network_card() {
    check(
        |c| c.connect(1000, "0a:58:0a:80:07:02"),
        expect![[r#"
            -netdev tap,id=net0,fd=1000
            -device virtio-net-pci,id=nic0,netdev=net0,mac=0a:58:0a:80:07:02,romfile=
        "#]],
    );
}

#[test]
fn disks() {
    check(
        |c| {
            c.blockdevs.push(Blockdev {
                node_name: "d0".to_owned(),
                driver: BlockDriver::Qcow2,
                filename: "/pods/a,b.qcow2".to_owned(),
                read_only: false,
                discard: Discard::Unmap,
                cache: Cache { direct: false, no_flush: true },
            });
            c.blockdevs.push(Blockdev {
                node_name: "d1".to_owned(),
                driver: BlockDriver::HostDevice,
                filename: "/dev/vg0/data".to_owned(),
                read_only: false,
                discard: Discard::Unmap,
                cache: Cache { direct: false, no_flush: false },
            });
            c.devices.push(Device::VirtioBlkPci(VirtioBlkPci {
                id: "disk0".to_owned(),
                drive: "d0".to_owned(),
                serial: "c0".to_owned(),
            }));
        },
        expect![[r#"
            -blockdev driver=qcow2,node-name=d0,read-only=off,discard=unmap,cache.direct=off,cache.no-flush=on,file.driver=file,file.filename=/pods/a,,b.qcow2
            -blockdev driver=raw,node-name=d1,read-only=off,discard=unmap,cache.direct=off,cache.no-flush=off,file.driver=host_device,file.filename=/dev/vg0/data
            -device virtio-blk-pci,id=disk0,drive=d0,serial=c0
        "#]],
    );
}

#[test]
fn devices_of_the_host() {
    check(
        |c| {
            c.devices.push(Device::VirtioRngPci(VirtioRngPci { id: "rng0".to_owned() }));
            c.pass_through(&[host_device("0000:3b:00.1", &[1 << 20]), host_device("0000:3b:00.2", &[])]);
        },
        expect![[r#"
            -device pcie-root-port,id=port0,chassis=1,slot=0,addr=0x10.0x0,multifunction=on,io-reserve=0
            -device vfio-pci,id=hostdev0,host=0000:3b:00.1,bus=port0
            -device pcie-root-port,id=port1,chassis=2,slot=1,addr=0x10.0x1,multifunction=on,io-reserve=0
            -device vfio-pci,id=hostdev1,host=0000:3b:00.2,bus=port1
            -device virtio-rng-pci,id=rng0
        "#]],
    );
}

#[test]
fn disks_come_later() {
    check(
        |q| q.add_spare_ports(2),
        expect![[r#"
            -device pcie-root-port,id=spare0,chassis=1,slot=1,addr=0x10.0x0,multifunction=on,io-reserve=0
            -device pcie-root-port,id=spare1,chassis=2,slot=2,addr=0x10.0x1,multifunction=on,io-reserve=0
        "#]],
    );
}

fn host_device(address: &str, memory_bars_bytes: &[u64]) -> HostDevice {
    let address = address.parse().expect("valid");
    HostDevice { address, numa_node: None, memory_bars_bytes: memory_bars_bytes.to_vec() }
}

/// Guests with NUMA nodes of these of the host, each with a CPU.
fn nodes(host_nodes: &[u32]) -> Ram {
    let node = |(first_cpu, host_node): (u32, &u32)| NumaNode {
        first_cpu,
        cpus: 1,
        memdev: memory(first_cpu, 64, *host_node, HostMemPolicy::Bind),
    };
    Ram::Nodes((0..).zip(host_nodes).map(node).collect())
}

#[test]
fn devices_are_on_their_numa_node() {
    let near = |address: &str, numa_node| HostDevice { numa_node, ..host_device(address, &[64 << 30]) };
    check(
        |c| {
            c.ram = nodes(&[1, 4]);
            // What names no bus would be on an expander, also what comes later.
            c.devices.push(Device::VirtioRngPci(VirtioRngPci { id: "rng0".to_owned() }));
            c.pass_through(&[
                near("0000:3b:00.0", Some(4)),
                near("0000:3c:00.0", None),
                near("0000:3d:00.0", Some(1)),
                near("0000:3e:00.0", Some(4)),
                near("0000:3f:00.0", Some(0)),
            ]);
            c.connect(1000, "0a:58:0a:80:07:02");
        },
        expect![[r#"
            -smp cpus=2,maxcpus=2,sockets=2,cores=1,threads=1
            -object memory-backend-ram,id=mem0,size=64M,host-nodes=1,policy=bind,prealloc=off
            -numa node,nodeid=0,cpus=0-0,memdev=mem0
            -object memory-backend-ram,id=mem1,size=64M,host-nodes=4,policy=bind,prealloc=on
            -numa node,nodeid=1,cpus=1-1,memdev=mem1
            -global q35-pcihost.pci-hole64-size=1099511627776
            -netdev tap,id=net0,fd=1000
            -device pxb-pcie,id=pxb0,bus=pcie.0,bus_nr=250,numa_node=0,addr=0x18.0x0,multifunction=on
            -device pxb-pcie,id=pxb1,bus=pcie.0,bus_nr=252,numa_node=1,addr=0x18.0x1,multifunction=on
            -device pcie-root-port,id=port0,bus=pxb1,chassis=1,slot=0,addr=0x0.0x0,multifunction=on,io-reserve=0
            -device vfio-pci,id=hostdev0,host=0000:3b:00.0,bus=port0
            -device pcie-root-port,id=port1,chassis=2,slot=1,addr=0x10.0x0,multifunction=on,io-reserve=0,bus=pcie.0
            -device vfio-pci,id=hostdev1,host=0000:3c:00.0,bus=port1
            -device pcie-root-port,id=port2,bus=pxb0,chassis=3,slot=2,addr=0x0.0x0,multifunction=on,io-reserve=0
            -device vfio-pci,id=hostdev2,host=0000:3d:00.0,bus=port2
            -device pcie-root-port,id=port3,bus=pxb1,chassis=4,slot=3,addr=0x0.0x1,multifunction=on,io-reserve=0
            -device vfio-pci,id=hostdev3,host=0000:3e:00.0,bus=port3
            -device pcie-root-port,id=port4,chassis=5,slot=4,addr=0x10.0x1,multifunction=on,io-reserve=0,bus=pcie.0
            -device vfio-pci,id=hostdev4,host=0000:3f:00.0,bus=port4
            -device virtio-rng-pci,id=rng0,bus=pcie.0
            -device virtio-net-pci,id=nic0,netdev=net0,mac=0a:58:0a:80:07:02,romfile=,bus=pcie.0
        "#]],
    );
}

/// Where the guest finds the ports of devices of these NUMA nodes of the host.
fn check_ports(numa_nodes: &[Option<u32>], ram: &Ram, expected: &str) {
    let plan = PortPlan::new(numa_nodes, ram);
    let ports: Vec<String> = (0..numa_nodes.len()).map(|number| plan.guest_port(number)).collect();
    assert_eq!(ports.join(" "), expected);
}

#[test]
fn the_guest_finds_a_device_by_its_port() {
    let (three, board) = ([Some(4), None, Some(1)], "0000:00:10.0 0000:00:10.1 0000:00:10.2");
    check_ports(&three, &Ram::Board, board);
    check_ports(&three, &Ram::One(memory(0, 129, 4, HostMemPolicy::Bind)), board);
    check_ports(&three, &nodes(&[0, 2]), board);
    check_ports(&three, &nodes(&[1, 4]), "0000:fd:00.0 0000:00:10.0 0000:fb:00.0");
    check_ports(&[], &nodes(&[1, 4]), "");
}

#[test]
fn buses_and_slots_are_enough_for_as_many_devices_as_a_pod_can_have() {
    let host_nodes: Vec<u32> = (0..64).collect();
    for per_node in [1, 4, 64] {
        let numa_nodes: Vec<_> = (0..64).map(|number| Some(number / per_node)).collect();
        let plan = PortPlan::new(&numa_nodes, &nodes(&host_nodes));
        let ports: Vec<String> = (0..64).map(|number| plan.guest_port(number)).collect();
        let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), 64, "{ports:?}");
        let on_board = ports.iter().filter(|port| port.starts_with("0000:00:1")).count();
        assert_eq!(on_board, if per_node == 1 { 64 - EXPANDERS_MAX } else { 0 }, "{ports:?}");
        let slot = |port: &String| u8::from_str_radix(&port[8..10], 16).expect("a number");
        // Device 1f of the board is its bridge to what is older than PCI; expanders are from 18 on.
        assert!(ports.iter().all(|port| slot(port) < 0x18), "{ports:?}");
        // SeaBIOS hangs when the last bus of all is used.
        let bus = |port: &String| usize::from_str_radix(&port[5..7], 16).expect("a number");
        let below_last =
            ports.iter().filter(|port| bus(port) == ports.iter().map(bus).max().unwrap_or_default());
        let last = ports.iter().map(bus).max().unwrap_or_default();
        assert!(last + below_last.count() <= 254, "{ports:?}");
    }
}

#[test]
fn pain_27_large_regions_have_room() {
    let gpu = |n: u8| host_device(&format!("0000:{n:02x}:00.0"), &[16 << 20, 64 << 30, 32 << 20]);
    let gpus: Vec<_> = (0x3b..0x43).map(gpu).collect();
    check(
        |c| c.pass_through(&gpus[..2]),
        expect![[r#"
            -global q35-pcihost.pci-hole64-size=549755813888
            -device pcie-root-port,id=port0,chassis=1,slot=0,addr=0x10.0x0,multifunction=on,io-reserve=0
            -device vfio-pci,id=hostdev0,host=0000:3b:00.0,bus=port0
            -device pcie-root-port,id=port1,chassis=2,slot=1,addr=0x10.0x1,multifunction=on,io-reserve=0
            -device vfio-pci,id=hostdev1,host=0000:3c:00.0,bus=port1
        "#]],
    );
    assert_eq!(
        hole_bytes(&gpus),
        Some(2 << 40),
        "eight of 64 GiB and a little, each where a multiple of it begins"
    );
    assert_eq!(hole_bytes(&[host_device("0000:3b:00.0", &[8 << 30])]), None, "the board's own is enough");
    assert_eq!(hole_bytes(&[]), None);
}

#[test]
fn pain_26_all_memory_of_a_guest_with_devices_is_pinned() {
    assert_eq!(locked_bytes(4 << 30), 5 << 30);
    let meminfo = |kib: u64| format!("MemTotal:       99999999 kB\nMemAvailable:   {kib} kB\n");
    let (guest, tables) = (4 << 20, 16 << 10);
    assert_eq!(check_pinned(&meminfo(guest + tables), 4 << 30), Ok(()));
    let refused = check_pinned(&meminfo(guest + tables - 1), 4 << 30).expect_err("a page is missing");
    assert_eq!(
        refused,
        "a guest with devices has all of its memory pinned: 4112 MiB are needed, and the machine has 4111 MiB left"
    );
    assert_eq!(check_pinned("", 4 << 30), Ok(()), "a machine that does not say how much it has left");
}

#[test]
fn confinement() {
    check(
        |c| {
            c.sandbox = Some(Sandbox::STRICT);
            c.pidfile = Some("/run/pid".to_owned());
        },
        expect![[r#"
            -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
            -pidfile /run/pid
        "#]],
    );
}

#[test]
fn guests_are_sized_by_limits_and_overhead() {
    let check = |cpu: Option<u64>, memory_mib: Option<u64>, expected: (u32, u64)| {
        let limits = ResourceRequirements {
            cpu_millis: cpu,
            memory_bytes: memory_mib.map(|mib| mib << 20),
            ephemeral_storage_bytes: None,
        };
        let container = Container { limits, ..Container::default() };
        let size = GuestSize::new(&PodSpec { containers: vec![container], ..PodSpec::default() });
        assert_eq!((size.cpus, size.memory_bytes >> 20), expected, "{cpu:?} {memory_mib:?}");
        assert_eq!(size.memory_bytes % (1 << 20), 0, "whole MiB");
    };
    check(None, None, (1, 195));
    check(Some(1), Some(64), (1, 130));
    check(Some(1000), Some(100), (1, 166));
    check(Some(1001), Some(100), (2, 166));
    check(Some(4_000_000), Some(1 << 20), (255, (1 << 20) + 512));
}
