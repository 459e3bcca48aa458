//! The form of image references, `[host[:port]/]path[:tag][@digest]`.
//!
//! Source: the reference grammar of the OCI distribution specification.

/// Longest name (host and path) of an image, in bytes.
const NAME_MAX: usize = 255;
/// Longest tag, in bytes.
const TAG_MAX: usize = 128;
/// Hexadecimal digits of a SHA-256 digest.
const SHA256_DIGITS: usize = 64;

/// An image reference has a wrong form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("image {image:?} cannot be read: {reason}; expected [host[:port]/]path[:tag][@sha256:digest]")]
pub struct ImageReferenceError {
    /// The offending text, cut to 80 characters.
    pub image: String,
    /// Which part is wrong.
    pub reason: &'static str,
}

/// Checks an image reference.
///
/// # Errors
/// When host, path, tag or digest has a wrong form.
pub fn check_image_reference(image: &str) -> Result<(), ImageReferenceError> {
    check(image).map_err(|reason| ImageReferenceError { image: image.chars().take(80).collect(), reason })
}

fn check(image: &str) -> Result<(), &'static str> {
    let (named, digest) = match image.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (image, None),
    };
    if !digest.is_none_or(is_digest) {
        return Err("the digest must be sha256: and 64 hexadecimal digits in lower case");
    }
    let path_start = named.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match named[path_start..].find(':') {
        Some(at) => (&named[..path_start + at], Some(&named[path_start + at + 1..])),
        None => (named, None),
    };
    if !tag.is_none_or(is_tag) {
        return Err(
            "the tag must be 1 to 128 letters, digits, '_', '.' and '-', not starting with '.' or '-'",
        );
    }
    if name.is_empty() {
        return Err("the name is missing");
    }
    if name.len() > NAME_MAX {
        return Err("the name is longer than 255 characters");
    }
    let path = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
            if !is_host(host) {
                return Err("the host must be a DNS name or an address, with an optional port");
            }
            path
        }
        _ => name,
    };
    if path.split('/').all(is_path_component) {
        Ok(())
    } else {
        Err("the path must be of a-z and 0-9, joined by '/', '.', '_', '__' or '-'")
    }
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == SHA256_DIGITS && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !text.is_empty()
        && text.len() <= TAG_MAX
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
        && word(text.as_bytes()[0])
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_is_good = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p > 0));
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_is_good = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => crate::is_dns_subdomain(&host.to_ascii_lowercase()),
    };
    port_is_good && host_is_good
}

/// Runs of `a-z0-9`, joined by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends_are_words = bytes.first().is_some_and(word) && bytes.last().is_some_and(word);
    ends_are_words
        && text
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn references_are_read_as_the_distribution_specification_writes_them() {
        let digest = format!("web@sha256:{}", "a".repeat(64));
        for good in [
            "web",
            "web:v1",
            "library/web",
            "localhost/web",
            "localhost:5000/team/web:v1",
            "registry.example.com/a/b_c/d__e/f--g:1.0_x",
            "127.0.0.1:5000/web",
            "[::1]:5000/web",
            &digest,
        ] {
            assert_eq!(check_image_reference(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ":v1",
            "Web",
            "web:",
            "web:.x",
            "web@sha256:abc",
            "web@md5:abc",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "a___b",
            "host.com:0/web",
            "host.com:x/web",
            "ex ample/web",
            "http://host.com/web",
        ] {
            assert!(check_image_reference(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = check_image_reference(&text);
        }
    }
}
