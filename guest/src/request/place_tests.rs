//! Where redirections lead.

use bulkhead_guest_http::{Next, Place};
use proptest::prelude::*;

/// From `https://127.0.0.1:8443/a/b?c=d`, asked as `web.example`: where it leads as scheme, port, target and name.
fn check(location: &str, expected: &str) {
    check_at("127.0.0.1", location, expected);
}

/// The same of the guest at another of its addresses.
fn check_at(host: &str, location: &str, expected: &str) {
    let place = Place {
        tls: true,
        host: host.parse().expect("an address"),
        port: 8443,
        target: "/a/b?c=d".into(),
        authority: Some("web.example".into()),
    };
    let found = match place.follow(location) {
        Err(error) => format!("! {error}"),
        Ok(Next::Elsewhere) => "elsewhere".to_owned(),
        Ok(Next::Within(next)) => {
            let scheme = if next.tls { "https" } else { "http" };
            format!("{scheme} {} {} {}", next.port, next.target, next.authority())
        }
    };
    assert_eq!(found, expected, "{location}");
}

#[test]
fn what_leads_to_the_guest_itself_is_followed() {
    check("/x", "https 8443 /x web.example");
    check("x?y=z#part", "https 8443 /a/x?y=z web.example");
    check("?y", "https 8443 /a/b?y web.example");
    check("#part", "https 8443 /a/b?c=d web.example");
    check("../x/./y/..", "https 8443 /x/ web.example");
    check("../../../x", "https 8443 /x web.example");
    check("http://127.0.0.1/x", "http 80 /x 127.0.0.1");
    check("HTTPS://user:word@localhost?q", "https 443 /?q localhost");
    check("//127.0.0.1:9000", "https 9000 / 127.0.0.1:9000");
    check("http://web.example/x", "elsewhere");
    check("https://127.0.0.1.example/", "elsewhere");
    check("https://[::1]:8443/", "elsewhere");
    check("//x@10.0.0.1@127.0.0.1.example/", "elsewhere");
    check("ftp://127.0.0.1/", "! the redirection leads to ftp:, which is not HTTP");
    check("https:x", "! the redirection leads to \"https:x\", which is no address");
    check("http://127.0.0.1:0/", "! the redirection leads to \"http://127.0.0.1:0/\", which is no address");
    check("http://127.0.0.1:x/", "! the redirection leads to \"http://127.0.0.1:x/\", which is no address");
    check_at("10.1.0.7", "http://10.1.0.7:81/x", "http 81 /x 10.1.0.7:81");
    check_at("fd00::7", "http://[fd00:0::7]:81/x", "http 81 /x [fd00:0::7]:81");
    // The kubelet's rule: what is called by another name is elsewhere.
    check_at("10.1.0.7", "http://localhost/x", "elsewhere");
    check_at("10.1.0.7", "http://127.0.0.1/x", "elsewhere");
    check("/a b", "! the redirection leads to \"/a b\", which is no address");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Whatever a server says, the next request is one that can be made, and of the guest itself.
    #[test]
    fn no_text_leads_astray(location in "[ -~]{0,40}", base in "/[a-z/.?]{0,20}") {
        let place = Place { tls: false, host: std::net::Ipv4Addr::LOCALHOST.into(), port: 80, target: base, authority: None };
        if let Ok(Next::Within(next)) = place.follow(&location) {
            prop_assert!(next.target.starts_with('/'), "{location}: {}", next.target);
            prop_assert!(next.target.bytes().all(|b| b.is_ascii_graphic()) && next.port > 0);
        }
    }
}
