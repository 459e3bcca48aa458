//! From a registry into the store: the layers of one image side by side, several images at a time, and a layer that several of them
//! have once.
//!
//! ```text
//!  manifest ─► a turn of the node ─► configuration ─► layers, each: a turn of its image ─► its lock ─► somebody has it? ─► that file
//!                                                                                                      └─ no ─► file, checked on the way
//!           ─► all of them there ─► unpacked in the manifest's order ─► published
//! ```
//! Whoever waits for a layer that another image fetches takes it over where that one fails or is given up. The error that is told is
//! that of the first layer in the manifest's order, however fast the others failed; then the rest is stopped, and no file stays.
//! Nobody waits for a turn while holding what another needs for its own: a layer that is waited for is always under way.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use futures::TryStreamExt as _;
use futures::stream::FuturesOrdered;
use tokio::sync::Semaphore;

use super::super::files::WorkDir;
use super::super::keyring::Candidate;
use super::super::layout::{Blob, Manifest, parse_config};
use super::super::registry::RemoteImage;
use super::{ImageError, ImageStore, blocking};

/// Layers of one image that are transferred at a time: containerd's `max_concurrent_downloads`.
pub(super) const LAYERS_AT_ONCE: usize = 3;
/// Images that a node fetches at a time, of all its pods: what bounds its connections and what lies in its work folder. A registry that
/// dawdles holds one of them, so there are more than a node's line needs.
pub(super) const IMAGES_AT_ONCE: usize = 16;

/// Who may have a layer that is on its way: the repository of an image that is had with a pod's credentials, or nothing for all.
type Scope = Option<String>;

/// A layer in a file of its own, which goes with the last who uses it.
#[derive(Debug)]
pub(super) struct LayerFile(WorkDir);

impl LayerFile {
    fn path(&self) -> PathBuf {
        self.0.layer_path()
    }
}

/// Layers that are whole, or were: as long as somebody uses them.
#[derive(Debug, Default)]
pub(super) struct Layers(std::collections::BTreeMap<(Scope, String), Weak<LayerFile>>);

impl Layers {
    fn find(&self, key: &(Scope, String)) -> Option<Arc<LayerFile>> {
        self.0.get(key).and_then(Weak::upgrade)
    }

    fn add(&mut self, key: (Scope, String), file: &Arc<LayerFile>) {
        self.0.retain(|_, file| file.strong_count() > 0);
        self.0.insert(key, Arc::downgrade(file));
    }
}

impl ImageStore {
    /// Fetches an image and publishes it. `repository` is where it is had, with these credentials.
    pub(super) async fn fetch(
        &self,
        name: &str,
        remote: &RemoteImage,
        manifest: Manifest,
        (repository, with): (&str, Option<Candidate<'_>>),
    ) -> Result<(), ImageError> {
        let packed: u64 = manifest.layers.iter().map(|layer| layer.size_bytes).fold(0, u64::saturating_add);
        let limit = self.inner.options.packed_bytes_max;
        if packed > limit {
            return Err(ImageError::TooLarge { what: "packed bytes", limit });
        }
        let _turn = self.inner.turns.acquire().await.expect("it is never closed");
        let work = self.work_dir()?;
        let config = remote.read_blob(&manifest.config).await?;
        parse_config(name, &config)?;
        let scope: Scope = with.filter(|with| !with.is_nodes).map(|_| repository.to_owned());
        let turns = Semaphore::new(self.inner.options.layers_at_once);
        let layers = manifest.layers.iter().map(|layer| self.layer(remote, layer, &scope, &turns));
        let layers: Vec<Arc<LayerFile>> = layers.collect::<FuturesOrdered<_>>().try_collect().await?;
        let (store, name) = (self.clone(), name.to_owned());
        blocking(move || store.flatten(&name, &manifest, &config, &work, |index| layers[index].path())).await
    }

    /// A layer as a file, had by this image or by another that is fetched now.
    async fn layer(
        &self,
        remote: &RemoteImage,
        layer: &Blob,
        scope: &Scope,
        turns: &Semaphore,
    ) -> Result<Arc<LayerFile>, ImageError> {
        let _turn = turns.acquire().await.expect("it is never closed");
        let key = (scope.clone(), layer.digest.to_string());
        let lock = self.lock(&format!("layer {} {}", layer.digest, scope.as_deref().unwrap_or_default()));
        let _guard = lock.lock().await;
        if let Some(file) = self.state().layers.find(&key) {
            return Ok(file);
        }
        let file = LayerFile(self.work_dir()?);
        remote.download(layer, &file.path()).await?;
        let file = Arc::new(file);
        self.state().layers.add(key, &file);
        Ok(file)
    }
}
