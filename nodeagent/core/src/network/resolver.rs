//! Which name servers a node asks, and so its guests: resolv.conf(5).

use std::net::{IpAddr, Ipv4Addr};

/// Most name servers that a resolver asks (MAXNS of resolv.conf(5)).
const NAMESERVERS_MAX: usize = 3;
/// Most search domains, and bytes of all of them with blanks (Kubernetes' limits).
const SEARCHES_MAX: usize = 32;
const SEARCH_BYTES_MAX: usize = 2048;
/// Longest file that is looked at, in lines, and most options of it.
const LINES_MAX: usize = 1024;
const OPTIONS_MAX: usize = 16;

/// What a resolver does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Whom it asks.
    pub nameservers: Vec<Ipv4Addr>,
    /// What it tries to append to names.
    pub searches: Vec<String>,
    /// Further options, such as `ndots:5`.
    pub options: Vec<String>,
    /// Name servers that guests cannot ask: of the host's own loopback, or by IPv6.
    pub unusable: Vec<IpAddr>,
}

impl Resolver {
    /// What a resolv.conf says, without what a guest has no use for. Lines that say nothing are passed over, as the resolver does.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines().take(LINES_MAX) {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().unwrap_or_default();
                    // fe80::1%eth0 has a zone, which means nothing in a guest.
                    let address = address.split('%').next().unwrap_or_default();
                    found.add_server(address.parse().ok());
                }
                // The last one counts.
                Some("search") => found.searches = bounded(words),
                Some("domain") => found.searches = bounded(words.take(1)),
                Some("options") => {
                    let room = OPTIONS_MAX.saturating_sub(found.options.len());
                    found.options.extend(words.take(room).map(str::to_owned));
                }
                _ => {}
            }
        }
        found
    }

    fn add_server(&mut self, address: Option<IpAddr>) {
        let Some(address) = address else { return };
        let usable = match address {
            IpAddr::V4(address) if !address.is_loopback() && !address.is_unspecified() => address,
            other => return self.unusable.push(other),
        };
        if self.nameservers.len() < NAMESERVERS_MAX && !self.nameservers.contains(&usable) {
            self.nameservers.push(usable);
        }
    }
}

fn bounded<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut bytes = 0;
    let fits = |word: &&str| {
        bytes += word.len() + 1;
        bytes <= SEARCH_BYTES_MAX
    };
    words.take(SEARCHES_MAX).take_while(fits).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, nameservers: &[[u8; 4]], searches: &[&str], options: &[&str], unusable: usize) {
        let found = Resolver::parse(text);
        let expected: Vec<_> = nameservers.iter().map(|ip| Ipv4Addr::from(*ip)).collect();
        assert_eq!(found.nameservers, expected, "{text}");
        assert_eq!(
            (found.searches, found.options),
            (
                searches.iter().map(|s| (*s).to_owned()).collect(),
                options.iter().map(|s| (*s).to_owned()).collect()
            ),
            "{text}"
        );
        assert_eq!(found.unusable.len(), unusable, "{text}");
    }

    #[test]
    fn what_a_guest_can_use_of_the_hosts_file() {
        check("", &[], &[], &[], 0);
        check(
            "# made by\nnameserver 10.0.0.2 # first\nnameserver 10.0.0.2\nsearch a.b b\noptions ndots:5 rotate\n",
            &[[10, 0, 0, 2]],
            &["a.b", "b"],
            &["ndots:5", "rotate"],
            0,
        );
        // systemd-resolved's stub, and one by IPv6.
        check("nameserver 127.0.0.53\nnameserver fe80::1%eth0\noptions edns0", &[], &[], &["edns0"], 2);
        check("search a\ndomain b c\nnameserver x\nnameserver", &[], &["b"], &[], 0);
        check(
            "nameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\nnameserver 4.4.4.4",
            &[[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]],
            &[],
            &[],
            0,
        );
        let many = format!("search {}", "x".repeat(3000));
        check(&many, &[], &[], &[], 0);
    }
}
