//! Guests on their node's network: whom they reach, and whom they do not.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use bulkhead_tests::{find_program, skip, wait};

use super::{BOOT_SECONDS, CHANGE_SECONDS, Fleet, fleet, pod};

/// A neighbour of this machine: a network namespace with a server that sends back what it gets, which knows no way to guests.
struct Neighbour {
    name: String,
    address: Ipv4Addr,
    host: Ipv4Addr,
    server: Child,
}

fn ip(args: &str) {
    let done = Command::new("ip").args(args.split(' ')).status().expect("ip starts");
    assert!(done.success(), "ip {args}");
}

impl Neighbour {
    fn new() -> Self {
        // Of 198.18.0.0/15, which is for such things (RFC 2544).
        let [.., high, low] = std::process::id().to_be_bytes();
        let (host, address) =
            (Ipv4Addr::new(198, 18, high, low & !3 | 1), Ipv4Addr::new(198, 18, high, low & !3 | 2));
        let name = format!("bhn{}", std::process::id());
        ip(&format!("netns add {name}"));
        ip(&format!("link add {name} type veth peer name eth0 netns {name}"));
        ip(&format!("addr add {host}/30 dev {name}"));
        ip(&format!("link set {name} up"));
        ip(&format!("-n {name} addr add {address}/30 dev eth0"));
        ip(&format!("-n {name} link set eth0 up"));
        let mut server = Command::new("ip");
        server.args(["netns", "exec", &name, "busybox", "nc", "-ll", "-p", "7000", "-e", "/bin/cat"]);
        let server = server.stdin(Stdio::null()).spawn().expect("started");
        Self { name, address, host, server }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        for args in [["link", "del", &self.name], ["netns", "del", &self.name]] {
            let _ = Command::new("ip").args(args).status();
        }
    }
}

/// Two pods that know their addresses; the second may change what its card says of itself.
fn two_pods() -> String {
    let server = "echo at $POD_IP on $HOST_IP; /bin/busybox cat /etc/hosts /etc/resolv.conf; exec /bin/busybox nc -ll -p 7000 -e /bin/busybox cat";
    let told = "name: main\n      env:\n      - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}\n      \
                - {name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}";
    let server = pod("server", "Never", &[], server).replace("name: main", told);
    let may = "name: main\n      securityContext: {capabilities: {add: [NET_ADMIN]}}";
    let client = pod("client", "Never", &[], super::FOREVER).replace("name: main", may);
    format!("{server}---\n{client}")
}

/// Whether a command in the client gets back what it sends.
fn reaches(fleet: &Fleet, to: Ipv4Addr, port: u16) -> bool {
    let script = format!("echo hello | /bin/busybox nc -w 3 {to} {port}");
    let done = fleet.cluster.cli().run(&["exec", "client", "--", "sh", "-c", &script]);
    done.stdout == "hello\n"
}

fn in_client(fleet: &Fleet, script: &str) {
    let script = script.replace("ip ", "/bin/busybox ip ");
    let _ = fleet.cluster.cli().run(&["exec", "client", "--", "sh", "-c", &format!("set -e; {script}")]).ok();
}

fn address_of(pod: &serde_json::Value) -> Ipv4Addr {
    let text = pod["status"]["podIP"].as_str().unwrap_or_else(|| panic!("no address: {pod}"));
    text.parse().expect("an address")
}

#[test]
fn pods_reach_each_other_and_what_they_may_and_nobody_in_anothers_name() {
    if !nix::unistd::geteuid().is_root() {
        return skip("a network for guests needs root");
    }
    if find_program("nft").is_none() || find_program("ip").is_none() {
        return skip("nft or ip is missing; remedy: make deps");
    }
    let Some(mut fleet) = fleet(&["--network=bridge", "--cluster-dns=192.0.2.53"]) else { return };
    let neighbour = Neighbour::new();
    fleet.apply(&two_pods());
    let server = address_of(&fleet.await_pod("server", BOOT_SECONDS, &["\"ready\":true"]));
    let client = address_of(&fleet.await_pod("client", BOOT_SECONDS, &["\"ready\":true"]));
    assert_ne!(server, client);
    wait::until_true("the pod's server", CHANGE_SECONDS, || reaches(&fleet, server, 7000));
    let said = fleet.logs(&["server"]);
    for words in [
        format!("at {server} on 127.0.0.1\n"),
        format!("{server}\tserver\n"),
        "nameserver 192.0.2.53\n".into(),
    ] {
        assert!(said.contains(&words), "{words:?} is not in {said}");
    }
    let wide = fleet.cluster.cli().run(&["get", "pods", "-o", "wide"]).ok();
    assert!(wide.contains(&server.to_string()) && wide.contains(&client.to_string()), "{wide}");
    assert!(reaches(&fleet, neighbour.address, 7000), "masqueraded");
    check_host(&fleet, &neighbour, server);
    check_spoofing(&fleet, server, client);

    // The agent's next life finds bridge, taps and addresses as they were.
    fleet.agent.take().kill();
    fleet.agent.start();
    let again = fleet.await_pod("server", CHANGE_SECONDS, &["\"ready\":true", &server.to_string()]);
    assert_eq!(address_of(&again), server);
    wait::until_true("the agent", CHANGE_SECONDS, || reaches(&fleet, server, 7000));
    fleet.delete(&["pod", "server", "client"]);
    fleet.await_nothing_left();
    let links = |of: Ipv4Addr| {
        let [a, b, c, _] = of.octets();
        let args = ["-o", "-4", "addr", "show", "to", &format!("{a}.{b}.{c}.0/24")];
        let shown = Command::new("ip").args(args).output().expect("ip starts");
        String::from_utf8_lossy(&shown.stdout).into_owned()
    };
    assert!(links(server).contains("bulkhead"), "{}", links(server));
    fleet.agent.take().terminate();
    assert_eq!(links(server), "", "the bridge goes with an agent that has no guests");
}

/// The node itself answers nobody, at none of its addresses.
fn check_host(fleet: &Fleet, neighbour: &Neighbour, server: Ipv4Addr) {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    listener.set_nonblocking(true).expect("set");
    let [a, b, c, _] = server.octets();
    for address in [Ipv4Addr::new(a, b, c, 1), neighbour.host] {
        assert!(!reaches(fleet, address, port), "{address}");
        assert!(listener.accept().is_err(), "{address}: a guest got through");
    }
}

/// With another's address or MAC address nothing leaves the guest; with its own again it does.
fn check_spoofing(fleet: &Fleet, server: Ipv4Addr, client: Ipv4Addr) {
    let [a, b, c, d] = client.octets();
    let other = Ipv4Addr::new(a, b, c, 200);
    in_client(fleet, &format!("ip addr del {client}/24 dev eth0; ip addr add {other}/24 dev eth0"));
    assert!(!reaches(fleet, server, 7000), "as {other}");
    in_client(fleet, &format!("ip addr del {other}/24 dev eth0; ip addr add {client}/24 dev eth0"));
    assert!(reaches(fleet, server, 7000), "as itself again");
    let set = |mac: &str| {
        in_client(
            fleet,
            &format!("ip link set eth0 down; ip link set eth0 address {mac}; ip link set eth0 up"),
        )
    };
    set("0a:58:00:00:00:99");
    assert!(!reaches(fleet, server, 7000), "with another MAC address");
    set(&format!("0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x}"));
    wait::until_true("the card as it was", CHANGE_SECONDS, || reaches(fleet, server, 7000));
}
