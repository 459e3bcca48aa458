//! The files of a volume as messages, each small enough for a frame.

use bulkhead_guest_protocol::host;
use bulkhead_types::VolumeFiles;

/// Most bytes of content in one message: half a frame, so that paths fit as well.
const PART_LENGTH_MAX: usize = bulkhead_guest_protocol::FRAME_LENGTH_MAX / 2;
/// Most files in one message.
const PART_FILES_MAX: usize = 256;

/// Cuts the files of a volume into messages; at least one, because a volume may have lost its last file.
pub(super) fn messages(volume: &VolumeFiles) -> Vec<host::VolumeFiles> {
    let part = || host::VolumeFiles { volume: volume.volume.to_string(), files: Vec::new(), more: true };
    let (mut messages, mut length) = (vec![part()], 0);
    for file in &volume.files {
        let mut rest = file.data.reveal();
        let mut continues = false;
        loop {
            let full = messages.last().is_some_and(|m| m.files.len() >= PART_FILES_MAX);
            if full || length >= PART_LENGTH_MAX {
                messages.push(part());
                length = 0;
            }
            let (data, left) = rest.split_at(rest.len().min(PART_LENGTH_MAX - length));
            length += data.len();
            rest = left;
            let message = messages.last_mut().expect("there is always one");
            let (path, data) = (file.path.clone(), data.to_vec());
            message.files.push(host::VolumeFile { path, mode: file.mode, data, continues });
            continues = true;
            if rest.is_empty() {
                break;
            }
        }
    }
    messages.last_mut().expect("there is always one").more = false;
    messages
}

#[cfg(test)]
mod tests {
    use bulkhead_types::VolumeFile;

    use super::*;

    fn check(sizes: &[usize], expected: &[&[(usize, bool)]]) {
        let file = |(n, size): (usize, &usize)| VolumeFile {
            path: format!("f{n}"),
            mode: 0o644,
            data: vec![7; *size].into(),
        };
        let files = sizes.iter().enumerate().map(file).collect();
        let messages = messages(&VolumeFiles { volume: "v".into(), files });
        let shape: Vec<Vec<_>> =
            messages.iter().map(|m| m.files.iter().map(|f| (f.data.len(), f.continues)).collect()).collect();
        assert_eq!(shape, expected);
        let more: Vec<_> = messages.iter().map(|m| m.more).collect();
        assert!(more.iter().rev().skip(1).all(|more| *more) && !more[more.len() - 1], "{more:?}");
    }

    #[test]
    fn files_are_cut_to_frames() {
        const MAX: usize = PART_LENGTH_MAX;
        check(&[], &[&[]]);
        check(&[0, 3], &[&[(0, false), (3, false)]]);
        check(&[MAX, 0], &[&[(MAX, false)], &[(0, false)]]);
        check(&[1, MAX * 2], &[&[(1, false), (MAX - 1, false)], &[(MAX, true)], &[(1, true)]]);
    }
}
