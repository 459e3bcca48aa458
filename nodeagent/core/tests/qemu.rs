//! Golden command lines, one per feature.

use bulkhead_nodeagent_core::GuestSize;
use bulkhead_nodeagent_core::qemu::*;
use bulkhead_types::{Container, PodSpec, ResourceRequirements};
use expect_test::{Expect, expect};
use uuid::Uuid;

fn base() -> QemuCommand {
    QemuCommand {
        name: Name { guest: "web".to_owned(), debug_threads: true },
        uuid: MachineUuid(Uuid::from_u128(1)),
        machine: Machine { machine_type: MachineType::Q35, usb: false, dump_guest_core: false },
        accel: Accel::Tcg { multi: true },
        cpu: Cpu::Max,
        smp: Smp { cpus: 2 },
        memory: Memory { size_bytes: (128 << 20) + 1 },
        kernel: Kernel {
            kernel: "/k/vmlinuz".to_owned(),
            initrd: "/k/initrd".to_owned(),
            append: vec!["console=ttyS0".to_owned(), "quiet".to_owned()],
        },
        chardevs: vec![],
        serial: None,
        qmp: None,
        blockdevs: vec![],
        devices: vec![],
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
        q35,usb=off,dump-guest-core=off
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
            c.devices.push(Device::VirtioBlkPci(VirtioBlkPci {
                id: "disk0".to_owned(),
                drive: "d0".to_owned(),
                serial: "c0".to_owned(),
            }));
        },
        expect![[r#"
            -blockdev driver=qcow2,node-name=d0,read-only=off,discard=unmap,cache.direct=off,cache.no-flush=on,file.driver=file,file.filename=/pods/a,,b.qcow2
            -device virtio-blk-pci,id=disk0,drive=d0,serial=c0
        "#]],
    );
}

#[test]
fn devices_of_the_host() {
    check(
        |c| {
            c.devices.push(Device::PcieRootPort(PcieRootPort { id: "rp0".to_owned(), chassis: 1, slot: 0 }));
            c.devices.push(Device::VfioPci(VfioPci {
                id: "vf0".to_owned(),
                host: "0000:3b:00.1".parse().expect("valid"),
                bus: "rp0".to_owned(),
            }));
            c.devices.push(Device::VirtioRngPci(VirtioRngPci { id: "rng0".to_owned() }));
        },
        expect![[r#"
            -device pcie-root-port,id=rp0,chassis=1,slot=0
            -device vfio-pci,id=vf0,host=0000:3b:00.1,bus=rp0
            -device virtio-rng-pci,id=rng0
        "#]],
    );
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
