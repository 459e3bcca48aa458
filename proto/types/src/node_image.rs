//! Images that nodes have, as their agents report them.
//!
//! Source: `status.images` of "Node v1 core" in the Kubernetes API reference; the kubelet's bounds of it.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Most images that a node tells of: the largest (the kubelet's `nodeStatusMaxImages`).
pub const NODE_IMAGES_MAX: usize = 50;
/// Most names of one image (the kubelet's `MaxNamesPerImageInNodeStatus`).
pub const NODE_IMAGE_NAMES_MAX: usize = 5;
/// Longest name or digest of an image, in bytes.
pub const NODE_IMAGE_NAME_BYTES_MAX: usize = 512;

/// An image in a node's store.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeImage {
    /// Its digest, as `sha256:...`.
    pub digest: SmolStr,
    /// Names that mean it, whole: `docker.io/library/busybox:latest`. At most [`NODE_IMAGE_NAMES_MAX`], in order.
    pub names: Vec<SmolStr>,
    /// What it takes on the node's disk, in bytes.
    pub size_bytes: u64,
}

/// The images of a node: at most [`NODE_IMAGES_MAX`], the largest first, by digest among equals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeImages {
    /// All that it tells of.
    pub images: Vec<NodeImage>,
}

impl NodeImages {
    /// As many of these as may be told, in their order. Names that nobody could tell are left out.
    pub fn largest(images: impl IntoIterator<Item = NodeImage>) -> Self {
        let mut images: Vec<NodeImage> = images.into_iter().collect();
        images.retain(|one| one.digest.len() <= NODE_IMAGE_NAME_BYTES_MAX);
        images.sort_by(|a, b| (b.size_bytes, &a.digest).cmp(&(a.size_bytes, &b.digest)));
        images.truncate(NODE_IMAGES_MAX);
        for image in &mut images {
            image.names.retain(|name| name.len() <= NODE_IMAGE_NAME_BYTES_MAX);
            image.names.sort();
            image.names.dedup();
            image.names.truncate(NODE_IMAGE_NAMES_MAX);
        }
        Self { images }
    }

    /// Whether there are more of anything than may be told.
    ///
    /// # Errors
    /// What there is too much of.
    pub fn check(&self) -> Result<(), String> {
        if self.images.len() > NODE_IMAGES_MAX {
            return Err(format!(
                "at most {NODE_IMAGES_MAX} images are allowed, there are {}",
                self.images.len()
            ));
        }
        for image in &self.images {
            if image.names.len() > NODE_IMAGE_NAMES_MAX {
                let count = image.names.len();
                return Err(format!(
                    "at most {NODE_IMAGE_NAMES_MAX} names of an image are allowed, there are {count}"
                ));
            }
            if image.names.iter().chain([&image.digest]).any(|text| text.len() > NODE_IMAGE_NAME_BYTES_MAX) {
                return Err(format!("a name of an image is longer than {NODE_IMAGE_NAME_BYTES_MAX} bytes"));
            }
        }
        Ok(())
    }
}

/// What an image reference means whole, as agents tell their images: the digest where it has one, else host, path and tag, with
/// `docker.io`, `library/` and `latest` where it leaves them out.
#[must_use]
pub fn whole_image_name(reference: &str) -> SmolStr {
    if let Some((_, digest)) = reference.split_once('@') {
        return SmolStr::new(digest);
    }
    let is_host = |first: &str| first.contains(['.', ':']) || first == "localhost";
    let mut whole = String::new();
    match reference.split_once('/') {
        Some((host, _)) if is_host(host) => {}
        Some(_) => whole.push_str("docker.io/"),
        None => whole.push_str("docker.io/library/"),
    }
    let last = reference.rsplit('/').next().unwrap_or(reference);
    let tag = if last.contains(':') { "" } else { ":latest" };
    // Writing to a String cannot fail.
    let _ = write!(whole, "{reference}{tag}");
    SmolStr::new(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_agents_tell() {
        let check = |reference: &str, expected: &str| assert_eq!(whole_image_name(reference), expected);
        check("busybox", "docker.io/library/busybox:latest");
        check("team/web:v1", "docker.io/team/web:v1");
        check("localhost/web", "localhost/web:latest");
        check("registry.example:5000/a/b", "registry.example:5000/a/b:latest");
        check("registry.example/web:v1@sha256:ab", "sha256:ab");
    }

    #[test]
    fn the_largest_are_told_in_order_and_the_rest_is_left_out() {
        let image = |number: u64| NodeImage {
            digest: format!("sha256:{number:03}").into(),
            names: (0..9).rev().map(|name| format!("image-{number}:{name}").into()).collect(),
            size_bytes: number / 2,
        };
        let told = NodeImages::largest((0..99).map(image));
        assert_eq!(told.check(), Ok(()));
        assert_eq!(told.images.len(), NODE_IMAGES_MAX);
        let first: Vec<_> = told.images[..3].iter().map(|one| one.digest.as_str()).collect();
        assert_eq!(first, ["sha256:098", "sha256:096", "sha256:097"]);
        assert_eq!(
            told.images[0].names,
            ["image-98:0", "image-98:1", "image-98:2", "image-98:3", "image-98:4"]
        );
        let more = NodeImages { images: (0..51).map(image).collect() };
        assert!(more.check().is_err());
        assert!(NodeImages { images: vec![image(1)] }.check().is_err(), "too many names");
    }
}
