//! Which credentials are for an image.
//!
//! Source: `BasicDockerKeyring` and `URLsMatch` of the kubelet's credential provider, and "Interpretation of config.json" in the
//! Kubernetes documentation.

use bulkhead_types::RegistryCredential;

/// Docker's own registry as docker writes it in its files.
const DEFAULT_REGISTRY: &str = "index.docker.io";
/// The same as it stands in names of images.
const DEFAULT_HOST: &str = "docker.io";

/// The credentials for a repository, such as `docker.io/library/busybox` or `registry.example.com:5000/team/app`: those for a more
/// specific place first, those for one place in their order.
///
/// An entry is for a host, with a port if the image has one; `*` and `?` stand for letters of one part of the host's name. A path in
/// it is the beginning of the repository's. `https://HOST/v1/` means the host alone. What is for `index.docker.io` is for images of
/// `docker.io` that no other entry is for.
#[must_use]
pub fn matching_credentials<'a>(
    credentials: &'a [RegistryCredential],
    repository: &str,
) -> Vec<&'a RegistryCredential> {
    let mut keyed: Vec<(String, &RegistryCredential)> =
        credentials.iter().map(|one| (key(&one.registry), one)).collect();
    // Later letters are more of a name than earlier ones, and than a `*` (the kubelet's order).
    keyed.sort_by(|(left, _), (right, _)| right.cmp(left));
    let found: Vec<_> =
        keyed.iter().filter(|(key, _)| matches(key, repository)).map(|(_, one)| *one).collect();
    let is_default = repository.split('/').next().is_some_and(|host| host == DEFAULT_HOST);
    if !found.is_empty() || !is_default {
        return found;
    }
    keyed.iter().filter(|(key, _)| key == DEFAULT_REGISTRY).map(|(_, one)| *one).collect()
}

/// An entry's registry without its scheme and the version of its interface.
fn key(registry: &str) -> String {
    let rest = registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://"));
    let (host, path) = split(rest.unwrap_or(registry));
    let version = ["/v1/", "/v2/"].into_iter().any(|version| path.starts_with(version));
    let path = if version { &path[3..] } else { path };
    if path == "/" { host.to_owned() } else { format!("{host}{path}") }
}

/// Host with port, and path with its slash.
fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find('/').unwrap_or(text.len()))
}

/// Host and port; brackets of an IPv6 address are part of the host.
fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    }
}

fn matches(key: &str, repository: &str) -> bool {
    let ((key_host, key_path), (host, path)) = (split(key), split(repository));
    let ((key_name, key_port), (name, port)) = (split_port(key_host), split_port(host));
    let (patterns, parts) = (key_name.split('.'), name.split('.'));
    key_port == port
        && path.starts_with(key_path)
        && patterns.clone().count() == parts.clone().count()
        && patterns.zip(parts).all(|(pattern, part)| fits(pattern.as_bytes(), part.as_bytes()))
}

/// Whether a part of a host's name fits: `*` stands for any letters, `?` for one.
fn fits(pattern: &[u8], part: &[u8]) -> bool {
    let (mut at, mut in_part) = (0, 0);
    // Where the last star was, and up to where it stands for the part.
    let mut star: Option<(usize, usize)> = None;
    while in_part < part.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, in_part));
            at += 1;
        } else if pattern.get(at).is_some_and(|&one| one == b'?' || one == part[in_part]) {
            (at, in_part) = (at + 1, in_part + 1);
        } else if let Some((place, until)) = star {
            star = Some((place, until + 1));
            (at, in_part) = (place + 1, until + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|&one| one == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the entries are for a repository, in the order in which they are tried.
    fn check(entries: &[&str], repository: &str, expected: &[&str]) {
        let credentials: Vec<_> = entries
            .iter()
            .map(|registry| RegistryCredential { registry: (*registry).to_owned(), ..Default::default() })
            .collect();
        let found = matching_credentials(&credentials, repository);
        let found: Vec<&str> = found.iter().map(|one| one.registry.as_str()).collect();
        assert_eq!(found, expected, "{entries:?} for {repository}");
    }

    #[test]
    fn hosts_and_ports_are_those_of_the_image() {
        let image = "r.example.com/team/app";
        for entry in
            ["r.example.com", "https://r.example.com", "http://r.example.com/", "https://r.example.com/v1/"]
        {
            check(&[entry], image, &[entry]);
        }
        check(&["https://r.example.com/v2/team/"], image, &["https://r.example.com/v2/team/"]);
        for entry in
            ["example.com", "r.example.com:5000", "r.example.org", "xr.example.com", "r.example.com.evil", ""]
        {
            check(&[entry], image, &[]);
        }
        check(&["r:5000", "r", "r:5001"], "r:5000/app", &["r:5000"]);
        check(&["[::1]:5000", "[::1]", "[::2]:5000"], "[::1]:5000/app", &["[::1]:5000"]);
        check(&["user@r.example.com"], image, &[]);
    }

    #[test]
    fn paths_begin_the_repository_and_more_specific_ones_come_first() {
        check(
            &["q.io", "q.io/team/app", "q.io/other", "q.io/team"],
            "q.io/team/app",
            &["q.io/team/app", "q.io/team", "q.io"],
        );
        // As the kubelet: the beginning of a text, not of a folder; the host is the same.
        check(&["q.io/te"], "q.io/team/app", &["q.io/te"]);
        check(&["q.io/team/app/more"], "q.io/team/app", &[]);
    }

    #[test]
    fn stars_stand_for_letters_of_one_part() {
        check(&["*.example.com", "r.example.com"], "r.example.com/app", &["r.example.com", "*.example.com"]);
        check(&["*.example.com"], "a.b.example.com/app", &[]);
        check(&["*.*.example.com"], "a.b.example.com/app", &["*.*.example.com"]);
        check(&["*"], "example.com/app", &[]);
        check(&["r*t?.example.com:5000"], "registry.example.com:5000/a", &[]);
        check(&["r*tr?.example.com:5000"], "registry.example.com:5000/a", &["r*tr?.example.com:5000"]);
        check(&["*.example.com/team"], "r.example.com/team/app", &["*.example.com/team"]);
        check(&["*.example.com"], "r.example.com:5000/app", &[]);
    }

    #[test]
    fn dockers_own_registry_has_two_names() {
        let own = "https://index.docker.io/v1/";
        check(&[own], "docker.io/library/busybox", &[own]);
        check(&[own, "docker.io"], "docker.io/library/busybox", &["docker.io"]);
        check(&[own], "r.example.com/busybox", &[]);
        check(&[own], "localhost/busybox", &[]);
        check(&["docker.io/me"], "docker.io/library/busybox", &[]);
    }

    #[test]
    fn one_place_keeps_the_order_of_its_entries() {
        let one = |secret: &str, registry: &str| RegistryCredential {
            registry: registry.to_owned(),
            secret: secret.into(),
            ..Default::default()
        };
        let credentials = [one("b", "r.io"), one("a", "https://r.io/v1/"), one("c", "r.io/x")];
        let found = matching_credentials(&credentials, "r.io/x/y");
        assert_eq!(found.iter().map(|one| one.secret.as_str()).collect::<Vec<_>>(), ["c", "b", "a"]);
    }
}
