//! Images as OCI describes them: index, manifest, configuration, blobs. From a layout directory, or a tar of one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, Os};

use super::digest::{Hasher, ImageDigest};
use super::error::{ImageError, IoContext as _};

/// Longest index, manifest or configuration.
pub(super) const METADATA_LENGTH_MAX: u64 = 4 << 20;
/// Most layers of one image (container runtimes stop at 127).
const LAYERS_MAX: usize = 512;
/// Deepest nesting of indexes.
const INDEX_DEPTH_MAX: usize = 4;
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A checked reference to content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) digest: ImageDigest,
    pub(super) size_bytes: u64,
}

/// A manifest that runs here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Of the manifest: the image's identity.
    pub(super) digest: ImageDigest,
    pub(super) config: Blob,
    pub(super) layers: Vec<Blob>,
}

/// What a document turned out to be.
pub(super) enum Document {
    Manifest(Manifest),
    /// An index; the entry for this platform.
    Index(Blob),
}

/// Reads a manifest or an index.
pub(super) fn parse_document(name: &str, bytes: &[u8]) -> Result<Document, ImageError> {
    let malformed = |reason: String| ImageError::Malformed { name: name.into(), what: "manifest", reason };
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
    if value.get("manifests").is_some() {
        let index: ImageIndex = serde_json::from_value(value).map_err(|e| malformed(e.to_string()))?;
        return choose_platform(name, index.manifests()).map(Document::Index);
    }
    let manifest: ImageManifest = serde_json::from_value(value).map_err(|e| malformed(e.to_string()))?;
    if manifest.layers().len() > LAYERS_MAX {
        return Err(malformed(format!("{} layers, the limit is {LAYERS_MAX}", manifest.layers().len())));
    }
    Ok(Document::Manifest(Manifest {
        digest: ImageDigest::of(bytes),
        config: blob(name, manifest.config())?,
        layers: manifest.layers().iter().map(|layer| blob(name, layer)).collect::<Result<_, _>>()?,
    }))
}

/// Reads a configuration and refuses one for another machine.
pub(super) fn parse_config(name: &str, bytes: &[u8]) -> Result<ImageConfiguration, ImageError> {
    let config: ImageConfiguration = serde_json::from_slice(bytes).map_err(|e| ImageError::Malformed {
        name: name.into(),
        what: "configuration",
        reason: e.to_string(),
    })?;
    if *config.os() != Os::Linux || *config.architecture() != Arch::Amd64 {
        let found = format!("{}/{}", config.os(), config.architecture());
        return Err(ImageError::WrongPlatform { name: name.into(), found });
    }
    Ok(config)
}

fn blob(name: &str, descriptor: &Descriptor) -> Result<Blob, ImageError> {
    let text = descriptor.digest().to_string();
    let digest = ImageDigest::parse(&text).ok_or_else(|| ImageError::Malformed {
        name: name.into(),
        what: "digest",
        reason: format!("{text:?} is no sha256 digest"),
    })?;
    Ok(Blob { digest, size_bytes: descriptor.size() })
}

/// The entry for linux/amd64. One without a platform counts: its configuration is checked later.
fn choose_platform(name: &str, entries: &[Descriptor]) -> Result<Blob, ImageError> {
    let fits = |entry: &&Descriptor| {
        entry.platform().as_ref().is_some_and(|p| *p.os() == Os::Linux && *p.architecture() == Arch::Amd64)
    };
    let chosen =
        entries.iter().find(fits).or_else(|| entries.iter().find(|entry| entry.platform().is_none()));
    if let Some(entry) = chosen {
        return blob(name, entry);
    }
    let platforms = entries.iter().filter_map(|entry| entry.platform().as_ref());
    let found: Vec<String> = platforms.map(|p| format!("{}/{}", p.os(), p.architecture())).collect();
    let found = if found.is_empty() { "no platform".into() } else { found.join(", ") };
    Err(ImageError::WrongPlatform { name: name.into(), found })
}

/// An OCI layout in a directory.
#[derive(Debug)]
pub(super) struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// Opens a layout directory.
    pub(super) fn open(dir: &Path) -> Result<Self, ImageError> {
        if dir.join("index.json").is_file() {
            return Ok(Self { dir: dir.into() });
        }
        let name = dir.display().to_string();
        let place =
            "as an OCI layout: it has no index.json (make one with skopeo copy … oci:<dir>:<tag>)".into();
        Err(ImageError::NotFound { name, place })
    }

    /// Unpacks the tar of a layout into `scratch` and opens it. Only the files that a layout has are taken.
    pub(super) fn open_tar(tar: &Path, scratch: &Path, bytes_max: u64) -> Result<Self, ImageError> {
        let mut left = bytes_max;
        let mut archive = tar::Archive::new(File::open(tar).at("open", tar)?);
        fs::create_dir_all(scratch.join("blobs/sha256")).at("make", scratch)?;
        for entry in archive.entries().at("read", tar)? {
            let mut entry = entry.at("read", tar)?;
            let Some(target) = layout_file(&entry.path_bytes()) else { continue };
            let target = scratch.join(target);
            let mut file = File::create(&target).at("make", &target)?;
            let length = io::copy(&mut entry.by_ref().take(left.saturating_add(1)), &mut file);
            left = left
                .checked_sub(length.at("write", &target)?)
                .ok_or(ImageError::TooLarge { what: "bytes in the archive", limit: bytes_max })?;
        }
        Self::open(scratch)
    }

    /// Finds the manifest with this tag, or the only one.
    pub(super) fn manifest(&self, name: &str, tag: Option<&str>) -> Result<Manifest, ImageError> {
        let path = self.dir.join("index.json");
        let bytes = read_bounded(&path, METADATA_LENGTH_MAX)?;
        let index: ImageIndex = serde_json::from_slice(&bytes).map_err(|e| ImageError::Malformed {
            name: name.into(),
            what: "index.json",
            reason: e.to_string(),
        })?;
        let tag_of = |entry: &Descriptor| {
            entry.annotations().as_ref().and_then(|annotations| annotations.get(REF_NAME).cloned())
        };
        let entries: Vec<Descriptor> = index.manifests().clone();
        let matching: Vec<Descriptor> = match tag {
            Some(tag) => entries.iter().filter(|e| tag_of(e).as_deref() == Some(tag)).cloned().collect(),
            None => entries.clone(),
        };
        let untagged_or_same =
            matching.len() == 1 || matching.windows(2).all(|w| tag_of(&w[0]) == tag_of(&w[1]));
        if matching.is_empty() || !untagged_or_same {
            let tags: Vec<String> = entries.iter().filter_map(tag_of).collect();
            let name = tag.map_or_else(|| name.to_owned(), |tag| format!("{name} with tag {tag}"));
            let place = format!("in {}; its tags are [{}]", self.dir.display(), tags.join(", "));
            return Err(ImageError::NotFound { name, place });
        }
        let mut next = choose_platform(name, &matching)?;
        for _ in 0..INDEX_DEPTH_MAX {
            match parse_document(name, &self.read_blob(&next)?)? {
                Document::Manifest(manifest) => return Ok(manifest),
                Document::Index(inner) => next = inner,
            }
        }
        let reason = format!("indexes are nested deeper than {INDEX_DEPTH_MAX}");
        Err(ImageError::Malformed { name: name.into(), what: "index", reason })
    }

    /// Reads a small blob and checks it.
    pub(super) fn read_blob(&self, blob: &Blob) -> Result<Vec<u8>, ImageError> {
        let bytes = read_bounded(&self.blob_path(blob), METADATA_LENGTH_MAX)?;
        check_digest(&blob.digest, &ImageDigest::of(&bytes))?;
        Ok(bytes)
    }

    /// Where a blob's bytes are. They are not checked yet.
    pub(super) fn blob_path(&self, blob: &Blob) -> PathBuf {
        self.dir.join("blobs/sha256").join(blob.digest.hex())
    }
}

/// Refuses content that is not what it should be.
pub(super) fn check_digest(expected: &ImageDigest, actual: &ImageDigest) -> Result<(), ImageError> {
    if expected == actual {
        return Ok(());
    }
    Err(ImageError::DigestMismatch { expected: expected.to_string(), actual: actual.to_string() })
}

/// Checks size and digest of bytes as they pass by.
pub(super) struct BlobCheck {
    blob: Blob,
    hasher: Hasher,
    length: u64,
}

impl BlobCheck {
    pub(super) fn new(blob: &Blob) -> Self {
        Self { blob: blob.clone(), hasher: Hasher::default(), length: 0 }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.length += bytes.len() as u64;
        self.hasher.update(bytes);
        if self.length > self.blob.size_bytes {
            let (digest, size_bytes) = (self.blob.digest.to_string(), self.blob.size_bytes);
            return Err(ImageError::SizeMismatch { digest, size_bytes });
        }
        Ok(())
    }

    /// How many bytes have come.
    pub(super) fn received(&self) -> u64 {
        self.length
    }

    /// Whether there is nothing more to come.
    pub(super) fn is_complete(&self) -> bool {
        self.length >= self.blob.size_bytes
    }

    pub(super) fn finish(self) -> Result<(), ImageError> {
        check_digest(&self.blob.digest, &self.hasher.finish())
    }
}

fn layout_file(path: &[u8]) -> Option<PathBuf> {
    let path = std::str::from_utf8(path).ok()?;
    let path = path.strip_prefix("./").unwrap_or(path);
    let is_blob = || {
        let hex = path.strip_prefix("blobs/sha256/")?;
        ImageDigest::parse(&format!("sha256:{hex}"))
    };
    (path == "index.json" || path == "oci-layout" || is_blob().is_some()).then(|| path.into())
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    File::open(path).at("open", path)?.take(limit + 1).read_to_end(&mut bytes).at("read", path)?;
    if bytes.len() as u64 > limit {
        return Err(ImageError::TooLarge { what: "bytes of metadata", limit });
    }
    Ok(bytes)
}
