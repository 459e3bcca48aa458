//! Interfaces in a copy of sysfs, and the kernel's own in a network namespace.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::process::Command;

use bulkhead_guest_protocol::host::RouteConfig;
use nix::sched::{CloneFlags, unshare};

use super::*;

#[test]
fn cidr() {
    assert_eq!(parse_cidr("10.0.2.15/24").expect("valid"), (Ipv4Addr::new(10, 0, 2, 15).into(), 24));
    assert_eq!(parse_cidr("fd00::7/64").expect("valid"), ("fd00::7".parse().expect("valid"), 64));
    for bad in ["10.0.2.15", "10.0.2.15/33", "10.0.2/24", "x/8", "fd00::/129", "10.0.2.15/-1"] {
        parse_cidr(bad).expect_err(bad);
    }
}

#[test]
fn name_files() {
    let primary = InterfaceConfig { address: "10.1.0.7/16".into(), ..Default::default() };
    let second = InterfaceConfig { name: "net1".into(), address: "10.9.0.7/16".into(), ..Default::default() };
    let mut pod = PodConfig {
        hostname: "web-0".into(),
        interfaces: vec![second, primary],
        nameservers: vec!["10.0.0.2".into()],
        search_domains: vec!["a.b".into(), "b".into()],
        host_aliases: vec!["10.9.9.9 db".into()],
        resolver_options: vec!["ndots:5".into(), "rotate".into()],
        ..Default::default()
    };
    assert!(hosts_file(&pod).ends_with("10.1.0.7\tweb-0\n10.9.9.9 db\n"));
    assert_eq!(resolv_conf(&pod), "nameserver 10.0.0.2\nsearch a.b b\noptions ndots:5 rotate\n");
    pod.fqdn = "web-0.front.shop.svc.cluster.local".into();
    pod.hostname.clone_from(&pod.fqdn);
    assert!(hosts_file(&pod).contains("10.1.0.7\tweb-0.front.shop.svc.cluster.local\tweb-0\n"));
    (pod.hostname, pod.fqdn) = ("web-0".into(), String::new());
    pod.interfaces.pop();
    assert!(hosts_file(&pod).contains("127.0.1.1\tweb-0\n"), "no primary interface");
}

/// A guest's sysfs with what a test puts there.
struct Sysfs(std::path::PathBuf);

impl Sysfs {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("bulkhead-guest-sysfs-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("class/net")).expect("a folder");
        Self(dir)
    }

    fn file(&self, path: &str, content: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("below")).expect("a folder");
        fs::write(path, content).expect("a file");
    }

    fn interface(&self, dir: &str, index: u32, mac: &str) {
        self.file(&format!("{dir}/ifindex"), &format!("{index}\n"));
        self.file(&format!("{dir}/address"), &format!("{mac}\n"));
    }

    /// The interface's number and address, or what is missing.
    fn check(&self, pci_port: &str, mac: &str, expected: Result<u32, &str>) {
        let config = InterfaceConfig { pci_port: pci_port.into(), mac: mac.into(), ..Default::default() };
        let found = find::find(&self.0, &config).map(|found| found.index);
        assert_eq!(found, expected.map_err(str::to_owned), "{config:?}");
    }
}

impl Drop for Sysfs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn interfaces_are_found_by_port_or_mac() {
    let sysfs = Sysfs::new("find");
    sysfs.interface("class/net/eth0", 2, "52:54:00:12:34:56");
    sysfs.check("", "52:54:00:12:34:56", Ok(2));
    sysfs.check("", "52:54:00:12:34:AB", Err("no device with this MAC address; is its driver's module loaded and the device in QEMU's arguments?"));
    let port = "0000:00:10.0";
    sysfs.check(port, "", Err("no device is behind the root port 0000:00:10.0"));
    let device = format!("bus/pci/devices/{port}/0000:01:00.0");
    sysfs.file(&format!("bus/pci/devices/{port}/pci_bus/0000:01/x"), "");
    sysfs.file(&format!("{device}/vendor"), "0x8086\n");
    sysfs.file(&format!("{device}/device"), "0x1889\n");
    sysfs.check(port, "", Err("no driver for 8086:1889 in the guest's kernel"));
    symlink("../../../bus/pci/drivers/iavf", sysfs.0.join(&device).join("driver")).expect("a link");
    sysfs.check(
        port,
        "",
        Err("the driver iavf of 8086:1889 shows no network interface; see the guest's console"),
    );
    sysfs.interface(&format!("{device}/net/eth1"), 3, "02:aa:00:00:00:01");
    sysfs.check(port, "another", Ok(3));
    let virtio = "bus/pci/devices/0000:00:10.1/0000:02:00.0/virtio3/net/eth2";
    sysfs.interface(virtio, 4, "02:aa:00:00:00:02");
    sysfs.check("0000:00:10.1", "", Ok(4));
}

fn ip(args: &str) -> String {
    let output = Command::new("ip").args(args.split(' ')).output().expect("iproute2");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Two interfaces that drivers named the other way round get their names, addresses of both families and routes.
#[test]
fn the_kernel_does_what_is_configured() {
    let may = nix::unistd::geteuid().is_root() && Command::new("ip").arg("-V").output().is_ok();
    if !may {
        println!("skipped: needs root and iproute2");
        return;
    }
    let done = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own");
        ip("link add eth0 type veth peer name peer");
        ip("link add eth1 type veth peer name net1");
        let links = LinkSocket::open().expect("a socket");
        let index = |name: &str| links.index_of(name).expect("it is there");
        let (vf, primary) = (index("eth0"), index("eth1"));
        ip("link set peer up");
        ip("link set net1 up");
        let primary_config = InterfaceConfig {
            mac: "02:00:00:00:00:01".into(),
            address: "10.0.2.15/24".into(),
            gateway: "10.0.2.2".into(),
            ..Default::default()
        };
        let route = |destination: &str, gateway: &str| RouteConfig {
            destination: destination.into(),
            gateway: gateway.into(),
        };
        let vf_config = InterfaceConfig {
            mac: "02:aa:00:00:00:01".into(),
            name: "net2".into(),
            mtu: 1400,
            more_addresses: vec!["10.9.0.7/32".into(), "fd00::7/64".into()],
            routes: vec![
                route("10.10.0.0/16", "10.9.255.1"),
                route("fd01::/48", "fd00::1"),
                route("10.11.0.0/16", ""),
            ],
            ..Default::default()
        };
        let at = |index| Found { index, mac: "02:00:00:00:00:99".into() };
        let found = [(at(primary), &primary_config), (at(vf), &vf_config)];
        name_all(&links, &found).expect("named");
        assert_eq!((index("eth0"), index("net2")), (primary, vf));
        for (one, config) in &found {
            configure_one(&links, one, config).expect("configured");
        }
        let shown = ip("-o addr show");
        for expected in ["eth0    inet 10.0.2.15/24", "net2    inet 10.9.0.7/32", "net2    inet6 fd00::7/64"]
        {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
        assert!(!shown.contains("fd00::7/64 scope global tentative"), "{shown}");
        let link = ip("-o link show net2");
        assert!(link.contains("mtu 1400") && link.contains("02:aa:00:00:00:01"), "{link}");
        let routes = ip("route show") + &ip("-6 route show");
        for expected in [
            "default via 10.0.2.2 dev eth0",
            "10.10.0.0/16 via 10.9.255.1 dev net2",
            "10.11.0.0/16 dev net2",
            "fd01::/48 via fd00::1 dev net2",
        ] {
            assert!(routes.contains(expected), "{expected}: {routes}");
        }
        let twice = configure_one(&links, &at(vf), &vf_config).expect_err("it has that address");
        assert!(format!("{twice:#}").starts_with("add the address 10.9.0.7/32: File exists"), "{twice:#}");
        let gone = links.set_mtu(9999, 1400).expect_err("no such interface");
        assert_eq!(gone.raw_os_error(), Some(nix::libc::ENODEV));
    });
    done.join().expect("done");
}
