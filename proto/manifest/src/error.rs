//! Mistakes in manifests.

use crate::Source;

/// Most errors that are reported; the others are counted.
pub const ERRORS_MAX: usize = 100;

/// One mistake and its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column} {path}{}{reason}", if path.is_empty() { "" } else { ": " })]
pub struct ManifestError {
    /// [`Source::name`] of the text.
    pub file: String,
    /// From 1; 0 when the place is unknown.
    pub line: usize,
    /// From 1; 0 when the place is unknown.
    pub column: usize,
    /// Which field, such as `spec.template.spec.containers[0].image`; empty for the text as a whole.
    pub path: String,
    /// What is wrong, with what would be acceptable.
    pub reason: String,
}

/// Sorts errors by file and line, removes repeated ones, and cuts the list to its bound.
pub(crate) fn arrange(mut errors: Vec<ManifestError>, files: &[Source]) -> Vec<ManifestError> {
    let position = |error: &ManifestError| files.iter().position(|f| f.name == error.file);
    errors.sort_by_cached_key(|e| (position(e), e.line, e.column, e.path.clone(), e.reason.clone()));
    errors.dedup();
    if errors.len() > ERRORS_MAX {
        let more = errors.len() - (ERRORS_MAX - 1);
        errors.truncate(ERRORS_MAX - 1);
        let file = errors.last().map_or_else(String::new, |e| e.file.clone());
        let reason = format!("{more} further errors are not shown");
        errors.push(ManifestError { file, line: 0, column: 0, path: String::new(), reason });
    }
    errors
}
