//! Where a request goes to within the guest, and where a redirection leads.
//!
//! Source: RFC 3986, section 5 (references and how they are resolved); `RedirectChecker` of the kubelet, which follows what leads to
//! the host that was asked, whatever scheme and port.

use std::net::{IpAddr, SocketAddr};

/// Where a request goes to: always the guest itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// By TLS.
    pub tls: bool,
    /// One of the guest's own addresses.
    pub host: IpAddr,
    /// 1 to 65535.
    pub port: u16,
    /// Path and query.
    pub target: String,
    /// What the server is called; `None` means its address and port.
    pub authority: Option<String>,
}

/// Where a redirection leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// To the guest itself.
    Within(Place),
    /// To another host.
    Elsewhere,
}

impl Place {
    /// What the server is told that it is called.
    #[must_use]
    pub fn authority(&self) -> String {
        self.authority.clone().unwrap_or_else(|| SocketAddr::new(self.host, self.port).to_string())
    }

    /// Whether a redirection to a host of this name leads to the address that was asked.
    fn is_called(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        bare.parse() == Ok(self.host) || (self.host.is_loopback() && host == "localhost")
    }

    /// Resolves a reference that this place's answer held.
    ///
    /// # Errors
    /// That it is none, for people.
    pub fn follow(&self, location: &str) -> Result<Next, String> {
        let bad = || format!("the redirection leads to {:?}, which is no address", cut(location));
        if location.bytes().any(|b| !b.is_ascii_graphic()) {
            return Err(bad());
        }
        let location = location.split('#').next().unwrap_or_default();
        let (scheme, rest) = scheme_of(location);
        let tls = match scheme.map(str::to_ascii_lowercase).as_deref() {
            None => self.tls,
            Some("http") => false,
            Some("https") => true,
            // Go's client has no transport for it, and says so.
            Some(other) => return Err(format!("the redirection leads to {other}:, which is not HTTP")),
        };
        let Some(rest) = rest.strip_prefix("//") else {
            // A scheme without a host leads nowhere.
            if scheme.is_some() {
                return Err(bad());
            }
            // The name by which the server was asked stays, as for a relative reference in Go's client.
            return Ok(Next::Within(Self { target: resolve(&self.target, rest), ..self.clone() }));
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = match host_and_port.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (host_and_port, ""),
        };
        let port = match port {
            "" if tls => 443,
            "" => 80,
            port => port.parse().ok().filter(|port| *port > 0).ok_or_else(bad)?,
        };
        if !self.is_called(host) {
            return Ok(Next::Elsewhere);
        }
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let authority = Some(host_and_port.to_owned());
        Ok(Next::Within(Self { tls, host: self.host, port, target, authority }))
    }
}

/// The scheme of a reference, and what is behind its colon.
fn scheme_of(location: &str) -> (Option<&str>, &str) {
    let is_scheme = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    match location.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
        _ => (None, location),
    }
}

/// Path and query of a reference without scheme and host.
fn resolve(base: &str, reference: &str) -> String {
    let base_path = base.split('?').next().unwrap_or_default();
    let (path, query) = match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference, None),
    };
    let merged = if path.is_empty() {
        if query.is_none() {
            return base.to_owned();
        }
        base_path.to_owned()
    } else if path.starts_with('/') {
        without_dots(path)
    } else {
        let folder = base_path.rfind('/').map_or("/", |at| &base_path[..=at]);
        without_dots(&format!("{folder}{path}"))
    };
    match query {
        Some(query) => format!("{merged}?{query}"),
        None => merged,
    }
}

/// Takes `.` and `..` out of a path; it stays absolute.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        match part {
            "." | ".." => {
                if part == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            part => kept.push(part),
        }
    }
    format!("/{}", kept.join("/"))
}

/// As much of a text as a message shows.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(100)]
}
