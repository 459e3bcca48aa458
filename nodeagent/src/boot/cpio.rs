//! The archive format of an initramfs: cpio "newc" (kernel: Documentation/driver-api/early-userspace/buffer-format).
//!
//! Each entry is a header of 13 hexadecimal fields, the name with a NUL, and the data, the last two padded to four
//! bytes. Times, owners and inode numbers are fixed, so the same content gives the same bytes.

use std::fmt::Write as _;

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;

/// Writes an archive into memory.
#[derive(Debug, Default)]
pub(super) struct CpioWriter {
    bytes: Vec<u8>,
    inode: u32,
}

impl CpioWriter {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds a directory. Parents come first.
    pub(super) fn directory(&mut self, name: &str, permissions: u32) {
        self.entry(name, S_IFDIR | permissions, 2, &[]);
    }

    /// Adds a file.
    pub(super) fn file(&mut self, name: &str, permissions: u32, data: &[u8]) {
        self.entry(name, S_IFREG | permissions, 1, data);
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.inode = u32::MAX; // the next entry gets 0
        self.entry("TRAILER!!!", 0, 1, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, links: u32, data: &[u8]) {
        self.inode = self.inode.wrapping_add(1);
        let length = u32::try_from(data.len()).expect("a file in an initramfs is shorter than 4 GiB");
        let name_length = u32::try_from(name.len() + 1).expect("a name is short");
        // ino, mode, uid, gid, nlink, mtime, filesize, dev major/minor, rdev major/minor, namesize, check
        let fields = [self.inode, mode, 0, 0, links, 0, length, 0, 0, 0, 0, name_length, 0];
        let mut header = String::from("070701");
        for field in fields {
            let _ = write!(header, "{field:08X}");
        }
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One header as the format describes it, field by field.
    fn header(inode: u32, mode: u32, links: u32, length: usize, name: &str) -> String {
        format!(
            "070701{inode:08X}{mode:08X}{zero}{zero}{links:08X}{zero}{length:08X}{zero}{zero}{zero}{zero}{:08X}{zero}{name}\0",
            name.len() + 1,
            zero = "00000000",
        )
    }

    #[test]
    fn golden_archive() {
        let mut cpio = CpioWriter::new();
        cpio.directory("lib", 0o755);
        cpio.file("init", 0o755, b"hello");
        let expected = [
            header(1, 0o040_755, 2, 0, "lib") + "\0\0",
            header(2, 0o100_755, 1, 5, "init") + "\0" + "hello\0\0\0",
            header(0, 0, 1, 0, "TRAILER!!!") + "\0\0\0",
        ];
        let got = String::from_utf8(cpio.finish()).expect("ascii");
        assert_eq!(got, expected.concat());
        assert_eq!(got.len() % 4, 0);
    }
}
