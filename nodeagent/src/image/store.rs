//! The images of this node.
//!
//! ```text
//!  <data>/images/
//!    <digest>.ext4    read-only file system, base of the containers' overlays
//!    <digest>.json    configuration; its presence says that the image is complete, its mtime when it was last used
//!    names.json       name -> digest
//!    private          digest -> repository of what was had with a pod's credentials
//!    tmp/             the agent's work in progress; emptied at open
//!    incoming/        that of imports beside it
//!    lock, imports    who changes what is published; who imports
//! ```

mod access;
mod fetch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use oci_client::Reference;

use super::config::{ImageConfig, parse_group, parse_passwd};
use super::digest::{HashingReader, ImageDigest};
use super::error::{ImageError, IoContext as _};
use super::files::{
    Names, Record, Stamp, WorkDir, WorkPlace, disk_bytes, file_checksum, forget_private, last_used, load,
    load_names, lock_published, read_accounts, write_json, write_names,
};
use super::flatten::make_ext4;
use super::keyring::{Candidate, Keyring};
use super::layer::{UnpackLimits, Unpacker};
use super::layout::{Layout, Manifest, check_digest, parse_config};
use super::registry::RemoteImage;

/// Limits and habits of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageStoreOptions {
    /// Free space in every image. Disks that containers write to are larger, and guests make the file system as large.
    pub free_bytes: u64,
    /// Most bytes of one image's layers as they are stored (packed).
    pub packed_bytes_max: u64,
    /// Most bytes of one image, unpacked.
    pub unpacked_bytes_max: u64,
    /// Most files of one image.
    pub entries_max: u64,
    /// Registries (`host:port`) that are asked over plain HTTP besides those on loopback.
    pub insecure_registries: Vec<String>,
    /// Layers of one image that are transferred at a time; not 0.
    pub layers_at_once: usize,
    /// Images that are fetched at a time; not 0.
    pub images_at_once: usize,
}

impl Default for ImageStoreOptions {
    fn default() -> Self {
        Self {
            free_bytes: 16 << 20,
            packed_bytes_max: 16 << 30,
            unpacked_bytes_max: 32 << 30,
            entries_max: 2_000_000,
            insecure_registries: Vec::new(),
            layers_at_once: fetch::LAYERS_AT_ONCE,
            images_at_once: fetch::IMAGES_AT_ONCE,
        }
    }
}

/// Kubernetes' imagePullPolicy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Ask the registry only if the name is not known here.
    IfNotPresent,
    /// Ask the registry what the name means now; content that is here already is not fetched again.
    Always,
    /// Only what is here.
    Never,
}

/// An image that is ready. As long as a clone of it exists, the store does not remove it.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the manifest.
    pub digest: ImageDigest,
    /// How to run it.
    pub config: Arc<ImageConfig>,
    /// The read-only ext4 file system.
    pub path: PathBuf,
    /// Of the file system; earlier versions made none.
    pub(super) checksum: Option<u32>,
    pub(super) lease: Arc<()>,
}

/// An image as the list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// Digest of the manifest.
    pub digest: ImageDigest,
    /// Names that mean it.
    pub names: Vec<String>,
    /// Bytes that its files take on disk.
    pub disk_bytes: u64,
    /// When it was last given out.
    pub last_used: SystemTime,
    /// Somebody holds it.
    pub in_use: bool,
}

/// The images of this node. Cheap to clone; all clones are one store.
#[derive(Debug, Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    options: ImageStoreOptions,
    work: WorkPlace,
    state: Mutex<State>,
    /// One for each image that is fetched.
    turns: tokio::sync::Semaphore,
}

#[derive(Debug, Default)]
struct State {
    names: Names,
    /// The file that the names were read from.
    stamp: Stamp,
    ready: BTreeMap<ImageDigest, Image>,
    /// Those whose file was read once by this process, or made by it.
    verified: BTreeSet<ImageDigest>,
    /// Whose credentials were enough for private images.
    proven: access::Proven,
    /// Layers of images that are fetched now.
    layers: fetch::Layers,
    /// One lock for each name, digest or layer that somebody works on.
    working: BTreeMap<String, Arc<tokio::sync::Mutex<()>>>,
}

impl ImageStore {
    /// Opens the agent's store under `<data>/images`, and clears what an interrupted run left behind. Imports may run
    /// beside it.
    ///
    /// # Errors
    /// [`ImageError::Io`] if the directory cannot be made or read.
    pub fn open(data: &Path, options: ImageStoreOptions) -> Result<Self, ImageError> {
        let dir = data.join("images");
        fs::create_dir_all(&dir).at("make", &dir)?;
        let published = lock_published(&dir)?;
        let work = WorkPlace::of_agent(&dir)?;
        for entry in fs::read_dir(&dir).at("list", &dir)? {
            let path = entry.at("list", &dir)?.path();
            let is_rubbish = match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") if !path.ends_with("names.json") => load(&path)?.is_none(),
                Some("ext4") => !path.with_extension("json").exists(),
                _ => false,
            };
            if is_rubbish {
                fs::remove_file(&path).at("remove", &path)?;
            }
        }
        drop(published);
        Self::with_work_place(dir, options, work)
    }

    /// Opens the store for an import that may run beside the agent, which finds what was published when it is asked
    /// for it.
    ///
    /// # Errors
    /// [`ImageError::Io`] if the directory cannot be made or read.
    pub fn open_beside(data: &Path, options: ImageStoreOptions) -> Result<Self, ImageError> {
        let dir = data.join("images");
        fs::create_dir_all(&dir).at("make", &dir)?;
        let work = WorkPlace::of_import(&dir)?;
        Self::with_work_place(dir, options, work)
    }

    fn with_work_place(
        dir: PathBuf,
        options: ImageStoreOptions,
        work: WorkPlace,
    ) -> Result<Self, ImageError> {
        let turns = tokio::sync::Semaphore::new(options.images_at_once);
        let store = Self { inner: Arc::new(Inner { dir, options, work, state: Mutex::default(), turns }) };
        let published = lock_published(&store.inner.dir)?;
        store.read_again(&mut store.state())?;
        drop(published);
        Ok(store)
    }

    /// Takes in what other processes published. The caller holds the lock of the directory, or looks at files that are
    /// only ever replaced as a whole.
    fn read_again(&self, state: &mut State) -> Result<(), ImageError> {
        let dir = &self.inner.dir;
        let stamp = Stamp::of(dir);
        if stamp == state.stamp {
            return Ok(());
        }
        let mut names = load_names(dir)?;
        for digest in names.0.values() {
            if !state.ready.contains_key(digest) {
                let record = dir.join(format!("{}.json", digest.hex()));
                if let Some(image) = record.exists().then(|| load(&record)).transpose()?.flatten() {
                    state.ready.insert(image.digest.clone(), image);
                }
            }
        }
        names.0.retain(|_, digest| state.ready.contains_key(digest));
        (state.names, state.stamp) = (names, stamp);
        Ok(())
    }

    /// Takes an image from an OCI layout (a directory, or a tar of one) and calls it `name`. Without `tag`, the
    /// layout must hold one image.
    ///
    /// # Errors
    /// [`ImageError`] says what is wrong with the layout or with this machine.
    pub async fn import_layout(
        &self,
        path: &Path,
        tag: Option<&str>,
        name: &str,
    ) -> Result<Image, ImageError> {
        let name = canonical_name(name)?.whole();
        let work = self.work_dir()?;
        let (store, path, tag, for_task) =
            (self.clone(), path.to_path_buf(), tag.map(str::to_owned), name.clone());
        let (layout, manifest, work) = blocking(move || {
            let layout = if path.is_dir() {
                Layout::open(&path)?
            } else {
                Layout::open_tar(&path, &work.path.join("layout"), store.inner.options.packed_bytes_max)?
            };
            let manifest = layout.manifest(&for_task, tag.as_deref())?;
            Ok((layout, manifest, work))
        })
        .await?;
        let lock = self.lock(manifest.digest.as_str());
        let _guard = lock.lock().await;
        if self.intact(self.ready(&manifest.digest)).await?.is_none() {
            let (store, for_task) = (self.clone(), name.clone());
            let manifest = manifest.clone();
            blocking(move || {
                let config = layout.read_blob(&manifest.config)?;
                store.flatten(&for_task, &manifest, &config, &work, |index| {
                    layout.blob_path(&manifest.layers[index])
                })
            })
            .await?;
        }
        // What an operator brings is for all.
        self.make_public(&manifest.digest)?;
        self.give_name(&name, &manifest.digest)
    }

    /// Gets an image from its registry, or from here, as the policy says. Requests for the same image at the same
    /// time share the work. What was had with a pod's credentials is given to others only once the registry gave it to them too.
    ///
    /// # Errors
    /// [`ImageError`] says what is wrong with the reference, the registry, the credentials, the image or this machine.
    pub async fn pull(
        &self,
        reference: &str,
        policy: PullPolicy,
        keyring: &Keyring,
    ) -> Result<Image, ImageError> {
        let parsed = canonical_name(reference)?;
        let name = parsed.whole();
        let repository = format!("{}/{}", parsed.registry(), parsed.repository());
        let candidates = keyring.candidates(&repository);
        let name_lock = self.lock(&name);
        let _name_guard = name_lock.lock().await;
        let here = if policy == PullPolicy::Always { None } else { self.find(reference)? };
        let withheld = match &here {
            Some(image) => !self.may_have(&image.digest, &candidates)?,
            None => false,
        };
        if let Some(image) = self.intact(here.filter(|_| !withheld)).await? {
            return Ok(image);
        }
        if policy == PullPolicy::Never {
            let place = if withheld {
                "on this node for this pod: it was pulled with other credentials, and the pull policy is Never"
            } else {
                "on this node, and its pull policy is Never; import it with `bulkhead image import`"
            };
            return Err(ImageError::NotFound { name, place: place.into() });
        }
        let (remote, manifest, with) = self.ask(&parsed, &candidates).await?;
        let lock = self.lock(manifest.digest.as_str());
        let _guard = lock.lock().await;
        // Whoever only knows the digest of somebody's image has to show its content.
        let of_others = self.private_repository(&manifest.digest)?.is_some_and(|of| of != repository);
        if of_others || self.intact(self.ready(&manifest.digest)).await?.is_none() {
            self.fetches(&manifest.digest, &repository, with)?;
            self.fetch(&name, &remote, manifest.clone(), (&repository, with)).await?;
        }
        self.proven(&manifest.digest, with)?;
        self.give_name(&name, &manifest.digest)
    }

    /// Asks the registry what a name means: with each of the credentials, and then without any. If all are refused, the answer is
    /// that to the most specific one.
    async fn ask<'a>(
        &self,
        reference: &Reference,
        candidates: &[Candidate<'a>],
    ) -> Result<(RemoteImage, Manifest, Option<Candidate<'a>>), ImageError> {
        let mut refused = None;
        for with in candidates.iter().copied().map(Some).chain([None]) {
            let remote = RemoteImage::new(reference.clone(), with, &self.inner.options.insecure_registries);
            match remote.manifest().await {
                Ok(manifest) => return Ok((remote, manifest, with)),
                // Registries also hide what one may not see.
                Err(error @ (ImageError::Unauthorized { .. } | ImageError::NotFound { .. })) => {
                    refused.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused.expect("it was asked once at least"))
    }

    /// The image that a name (or a name with a digest) means here.
    ///
    /// # Errors
    /// [`ImageError::InvalidName`].
    pub fn find(&self, name: &str) -> Result<Option<Image>, ImageError> {
        let reference = canonical_name(name)?;
        let mut state = self.state();
        self.read_again(&mut state)?;
        let named = state.names.0.get(&reference.whole()).cloned();
        drop(state);
        let digest = reference.digest().and_then(ImageDigest::parse).or(named);
        Ok(digest.and_then(|digest| self.ready(&digest)))
    }

    /// All images, for the node's status and for garbage collection.
    pub fn list(&self) -> Vec<ImageSummary> {
        let state = self.state();
        let images = state.ready.values().map(|image| {
            let names = state.names.0.iter().filter(|(_, digest)| **digest == image.digest);
            ImageSummary {
                digest: image.digest.clone(),
                names: names.map(|(name, _)| name.clone()).collect(),
                disk_bytes: disk_bytes(&image.path),
                last_used: last_used(&image.path.with_extension("json")),
                in_use: Arc::strong_count(&image.lease) > 1,
            }
        });
        images.collect()
    }

    /// Removes an image that nobody holds, with its names.
    ///
    /// # Errors
    /// [`ImageError::InUse`], or [`ImageError::NotFound`].
    pub fn remove(&self, digest: &ImageDigest) -> Result<(), ImageError> {
        let _published = lock_published(&self.inner.dir)?;
        let mut state = self.state();
        self.read_again(&mut state)?;
        let place = || "on this node".into();
        let Some(image) = state.ready.get(digest) else {
            return Err(ImageError::NotFound { name: digest.to_string(), place: place() });
        };
        if Arc::strong_count(&image.lease) > 1 {
            return Err(ImageError::InUse { name: digest.to_string() });
        }
        let path = image.path.clone();
        state.ready.remove(digest);
        state.names.0.retain(|_, named| named != digest);
        write_names(&self.inner.dir, &self.inner.work, &state.names)?;
        state.stamp = Stamp::of(&self.inner.dir);
        forget_private(&self.inner.dir, &self.inner.work, digest)?;
        // The record goes first: without it the other file is rubbish, which the next open clears away.
        let record = path.with_extension("json");
        fs::remove_file(&record).at("remove", &record)?;
        fs::remove_file(&path).at("remove", &path)
    }

    /// An image, if its file is what was written once. It is read to the end at its first use in the life of this process, because a
    /// disk may give back something else after a crash or with age; one that is damaged is removed, and has to be fetched again. Guests
    /// that have it keep what they have.
    async fn intact(&self, image: Option<Image>) -> Result<Option<Image>, ImageError> {
        let Some(image) = image else { return Ok(None) };
        let Some(checksum) = image.checksum.filter(|_| !self.state().verified.contains(&image.digest)) else {
            return Ok(Some(image));
        };
        let store = self.clone();
        blocking(move || {
            // A file that cannot be read is as good as a damaged one.
            let found = file_checksum(&image.path);
            if found.as_ref().is_ok_and(|found| *found == checksum) {
                store.state().verified.insert(image.digest.clone());
                return Ok(Some(image));
            }
            tracing::warn!(image = %image.digest, file = %image.path.display(), ?found, "an image is damaged on this node's disk; it is removed and fetched again");
            let _published = lock_published(&store.inner.dir)?;
            store.state().ready.remove(&image.digest);
            for path in [image.path.with_extension("json"), image.path] {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(ImageError::io("remove", &path, error));
                    }
                    _ => {}
                }
            }
            Ok(None)
        })
        .await
    }

    /// Unpacks the layers, makes the file system and publishes it. The digest of every layer is checked on the way;
    /// nothing is published if one is wrong.
    fn flatten(
        &self,
        name: &str,
        manifest: &Manifest,
        config: &[u8],
        work: &WorkDir,
        layer_path: impl Fn(usize) -> PathBuf,
    ) -> Result<(), ImageError> {
        let parsed = parse_config(name, config)?;
        let options = &self.inner.options;
        let tree = work.path.join("root");
        fs::create_dir(&tree).at("make", &tree)?;
        let limits = UnpackLimits { bytes_max: options.unpacked_bytes_max, entries_max: options.entries_max };
        let mut unpacker = Unpacker::new(&tree, limits)?;
        for (index, layer) in manifest.layers.iter().enumerate() {
            let path = layer_path(index);
            let mut reader = HashingReader::new(File::open(&path).at("open", &path)?);
            let unpacked = unpacker.apply(&mut reader);
            // A damaged layer rarely unpacks; that it is damaged says more than where unpacking stopped.
            check_digest(&layer.digest, &reader.finish().at("read", &path)?)?;
            unpacked?;
        }
        let root = unpacker.finish()?;
        let mut config = parsed.config().as_ref().map(ImageConfig::from).unwrap_or_default();
        config.users = parse_passwd(&read_accounts(&root, "etc/passwd"));
        config.groups = parse_group(&read_accounts(&root, "etc/group"));
        let built = work.path.join("image.ext4");
        make_ext4(&tree, &built, &manifest.digest, options.free_bytes)?;
        self.publish(&built, Record::new(manifest.digest.clone(), config, &built)?)
    }

    fn publish(&self, built: &Path, record: Record) -> Result<(), ImageError> {
        let dir = &self.inner.dir;
        let target = dir.join(format!("{}.ext4", record.digest.hex()));
        let _published = lock_published(dir)?;
        // Another process may have been faster, and guests may run from its file: that one stays.
        let complete = dir.join(format!("{}.json", record.digest.hex()));
        if complete.exists()
            && let Some(image) = load(&complete)?
        {
            self.state().ready.insert(record.digest, image);
            return Ok(());
        }
        fs::set_permissions(built, std::os::unix::fs::PermissionsExt::from_mode(0o444))
            .at("protect", built)?;
        fs::rename(built, &target).at("make", &target)?;
        write_json(dir, &self.inner.work, &format!("{}.json", record.digest.hex()), &record)?;
        let image = Image {
            digest: record.digest.clone(),
            config: Arc::new(record.config),
            path: target,
            checksum: record.checksums.map(|checksums| checksums.file_system),
            lease: Arc::new(()),
        };
        let mut state = self.state();
        state.verified.insert(record.digest.clone());
        state.ready.insert(record.digest, image);
        Ok(())
    }

    fn give_name(&self, name: &str, digest: &ImageDigest) -> Result<Image, ImageError> {
        let dir = &self.inner.dir;
        let place = || "on this node: it was removed meanwhile".into();
        let published = lock_published(dir)?;
        let mut state = self.state();
        self.read_again(&mut state)?;
        if !dir.join(format!("{}.json", digest.hex())).exists() {
            state.ready.remove(digest);
            return Err(ImageError::NotFound { name: name.into(), place: place() });
        }
        if state.names.0.get(name) != Some(digest) {
            state.names.0.insert(name.into(), digest.clone());
            write_names(dir, &self.inner.work, &state.names)?;
            state.stamp = Stamp::of(dir);
        }
        drop((state, published));
        self.ready(digest).ok_or_else(|| ImageError::NotFound { name: name.into(), place: place() })
    }

    /// An image that is here, marked as used now.
    fn ready(&self, digest: &ImageDigest) -> Option<Image> {
        let image = self.state().ready.get(digest).cloned()?;
        let record = image.path.with_extension("json");
        // Only a hint for garbage collection, so a failure does not matter.
        let _ = File::open(record).and_then(|file| file.set_modified(SystemTime::now()));
        Some(image)
    }

    fn lock(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut state = self.state();
        state.working.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(state.working.entry(key.into()).or_default())
    }

    fn work_dir(&self) -> Result<WorkDir, ImageError> {
        let path = self.inner.work.path.join(uuid::Uuid::new_v4().to_string());
        fs::create_dir(&path).at("make", &path)?;
        Ok(WorkDir { path })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock with the state half changed.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `busybox` means `docker.io/library/busybox:latest`, as everywhere.
fn canonical_name(name: &str) -> Result<Reference, ImageError> {
    let invalid = |reason: String| ImageError::InvalidName { name: name.into(), reason };
    let reference: Reference = name.parse().map_err(|e: oci_client::ParseError| invalid(e.to_string()))?;
    match reference.digest() {
        Some(digest) if ImageDigest::parse(digest).is_none() => {
            Err(invalid("only sha256 digests work".into()))
        }
        _ => Ok(reference),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => {
                Err(ImageError::io("finish", Path::new("image"), io::Error::other("the agent is stopping")))
            }
        },
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
