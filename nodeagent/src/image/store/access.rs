//! Who may have an image that is on the node already.
//!
//! What was had with a pod's credentials is private: another pod gets it only once its own credentials, or none, were enough for
//! the registry. Which images are private is kept beside the names; whose credentials were enough is known only while the
//! agent runs, so that nothing that is made of a password is on the disk.
//!
//! Source: KEP-2535 (ensure secret pulled images), with `NeverVerifyPreloadedImages`, the default of Kubernetes 1.35.

use std::collections::BTreeSet;

use super::super::keyring::{Candidate, Fingerprint};
use super::*;
use crate::image::files::{load_private, write_private};

/// Most pairs of images and credentials that are remembered; the registry is asked again about others.
const PROVEN_MAX: usize = 4096;

/// Images with the credentials that were enough for them.
#[derive(Debug, Default)]
pub(super) struct Proven(BTreeSet<(ImageDigest, Fingerprint)>);

impl Proven {
    fn insert(&mut self, digest: &ImageDigest, fingerprint: Fingerprint) {
        if self.0.len() >= PROVEN_MAX {
            self.0.clear();
        }
        self.0.insert((digest.clone(), fingerprint));
    }

    fn any(&self, digest: &ImageDigest, candidates: &[Candidate<'_>]) -> bool {
        candidates.iter().any(|one| self.0.contains(&(digest.clone(), one.fingerprint())))
    }
}

impl ImageStore {
    /// Whether a pod with these credentials gets an image that is here without the registry being asked.
    pub(super) fn may_have(
        &self,
        digest: &ImageDigest,
        candidates: &[Candidate<'_>],
    ) -> Result<bool, ImageError> {
        let is_public = self.private_repository(digest)?.is_none();
        Ok(is_public || self.state().proven.any(digest, candidates))
    }

    /// The repository that a private image is from; `None` when the image is anybody's.
    pub(super) fn private_repository(&self, digest: &ImageDigest) -> Result<Option<String>, ImageError> {
        Ok(load_private(&self.inner.dir)?.0.remove(digest))
    }

    /// Before an image is fetched: nobody shall find one in between that is private. An image that is here keeps what it is.
    pub(super) fn fetches(
        &self,
        digest: &ImageDigest,
        repository: &str,
        with: Option<Candidate<'_>>,
    ) -> Result<(), ImageError> {
        let is_private = with.is_some_and(|with| !with.is_nodes);
        if !is_private || self.state().ready.contains_key(digest) {
            return Ok(());
        }
        self.edit_private(|private| _ = private.insert(digest.clone(), repository.to_owned()))
    }

    /// The registry gave an image to whoever has these credentials. What it gives to anybody, or to the node, is private no more.
    pub(super) fn proven(&self, digest: &ImageDigest, with: Option<Candidate<'_>>) -> Result<(), ImageError> {
        match with {
            Some(with) if !with.is_nodes => {
                self.state().proven.insert(digest, with.fingerprint());
                Ok(())
            }
            _ => self.make_public(digest),
        }
    }

    /// An image is anybody's from now on.
    pub(super) fn make_public(&self, digest: &ImageDigest) -> Result<(), ImageError> {
        if self.private_repository(digest)?.is_none() {
            return Ok(());
        }
        self.edit_private(|private| _ = private.remove(digest))
    }

    fn edit_private(&self, edit: impl FnOnce(&mut BTreeMap<ImageDigest, String>)) -> Result<(), ImageError> {
        let _published = lock_published(&self.inner.dir)?;
        let mut private = load_private(&self.inner.dir)?;
        edit(&mut private.0);
        write_private(&self.inner.dir, &self.inner.work, &private)
    }
}
