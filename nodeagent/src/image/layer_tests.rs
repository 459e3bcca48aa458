//! Layers made by code: what good ones give, and what hostile ones must not do.

use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use tar::{Builder, Header};

/// One entry of a made-up layer.
enum Item<'a> {
    File(&'a str, &'a str),
    Dir(&'a str),
    Symlink(&'a str, &'a str),
    Hard(&'a str, &'a str),
    Device(&'a str),
}
use Item::{Device, Dir as D, File as F, Hard, Symlink};

/// Writes names as they are: the tar crate's builder refuses the hostile ones.
fn layer(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for item in items {
        let (path, kind, link, data) = match item {
            F(path, data) => (path, EntryType::Regular, "", *data),
            D(path) => (path, EntryType::Directory, "", ""),
            Symlink(path, target) => (path, EntryType::Symlink, *target, ""),
            Hard(path, target) => (path, EntryType::Link, *target, ""),
            Device(path) => (path, EntryType::Block, "", ""),
        };
        let mut header = Header::new_gnu();
        let gnu = header.as_gnu_mut().expect("gnu");
        gnu.name[..path.len()].copy_from_slice(path.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o640 });
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data.as_bytes()).expect("in memory");
    }
    builder.into_inner().expect("in memory")
}

const LIMITS: UnpackLimits = UnpackLimits { bytes_max: 1 << 20, entries_max: 100 };

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    /// `root` is the image; `outside` lies beside it and must never change.
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("root")).expect("made");
        fs::write(dir.path().join("outside"), "safe").expect("written");
        Self { dir }
    }

    fn path(&self, sub: &str) -> PathBuf {
        self.dir.path().join("root").join(sub)
    }

    fn unpack(&self, layers: &[Vec<u8>]) -> Result<(), ImageError> {
        let mut unpacker = Unpacker::new(&self.path(""), LIMITS)?;
        let result = layers.iter().try_for_each(|layer| unpacker.apply(layer.as_slice()));
        result.and_then(|()| unpacker.finish().map(drop))
    }

    /// Every file, directory and link with its content, sorted.
    fn tree(&self) -> Vec<String> {
        fn walk(dir: &Path, base: &Path, out: &mut Vec<String>) {
            for entry in fs::read_dir(dir).expect("readable").flatten() {
                let path = entry.path();
                let name = path.strip_prefix(base).expect("below").display().to_string();
                if path.is_symlink() {
                    out.push(format!("{name} -> {}", fs::read_link(&path).expect("a link").display()));
                } else if path.is_dir() {
                    out.push(format!("{name}/"));
                    walk(&path, base, out);
                } else {
                    out.push(format!("{name}={}", fs::read_to_string(&path).expect("text")));
                }
            }
        }
        let mut out = Vec::new();
        walk(&self.path(""), &self.path(""), &mut out);
        out.sort();
        out
    }
}

fn check(layers: &[&[Item<'_>]], expected: &[&str]) {
    let fixture = Fixture::new();
    let layers: Vec<_> = layers.iter().map(|items| layer(items)).collect();
    fixture.unpack(&layers).expect("good layers");
    assert_eq!(fixture.tree(), expected);
    assert_eq!(fs::read_to_string(fixture.dir.path().join("outside")).expect("there"), "safe");
}

fn check_refused(items: &[Item<'_>], expected: &str) {
    let fixture = Fixture::new();
    let error = fixture.unpack(&[layer(items)]).expect_err("must be refused");
    assert!(error.to_string().contains(expected), "{error}");
    assert_eq!(fs::read_to_string(fixture.dir.path().join("outside")).expect("there"), "safe");
}

#[test]
fn files_directories_and_links() {
    check(
        &[&[
            D("./"),
            D("./bin"),
            F("./bin/sh", "x"),
            Symlink("sh", "bin/sh"),
            Hard("bin/ash", "bin/sh"),
            F("/abs/f", "y"),
        ]],
        &["abs/", "abs/f=y", "bin/", "bin/ash=x", "bin/sh=x", "sh -> bin/sh"],
    );
}

#[test]
fn later_layers_replace_and_remove() {
    check(
        &[
            &[F("a", "1"), F("b", "1"), D("d"), F("d/x", "1")],
            &[F("a", "2"), F(".wh.b", ""), F("d/.wh.x", "")],
        ],
        &["a=2", "d/"],
    );
    check(&[&[D("d"), F("d/x", "1")], &[F("d", "file now")]], &["d=file now"]);
    check(&[&[F("d", "file")], &[D("d"), F("d/x", "1")]], &["d/", "d/x=1"]);
    check(&[&[F("f", "file")], &[F("f/x", "1")]], &["f/", "f/x=1"]);
    check(&[&[F("a", "1")], &[F(".wh.nothing", ""), F("no/such/.wh.dir", "")]], &["a=1"]);
}

#[test]
fn an_opaque_directory_hides_lower_layers_only() {
    let lower: &[Item<'_>] = &[D("d"), F("d/old", "1"), D("d/sub"), F("d/sub/old", "1")];
    check(&[lower, &[D("d"), F("d/.wh..wh..opq", ""), F("d/new", "2")]], &["d/", "d/new=2"]);
    // The mark may come after the entries that it must spare.
    check(
        &[lower, &[D("d"), F("d/sub/new", "2"), F("d/.wh..wh..opq", "")]],
        &["d/", "d/sub/", "d/sub/new=2"],
    );
}

#[test]
fn links_of_the_image_lead_where_they_lead_in_the_container() {
    // /lib -> usr/lib, and a later layer writes through it.
    check(
        &[&[D("usr"), D("usr/lib"), Symlink("lib", "usr/lib")], &[F("lib/new", "1")]],
        &["lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/new=1"],
    );
    // An absolute link means the image's root, and so does one that climbs.
    check(&[&[D("etc"), Symlink("a", "/etc"), F("a/f", "1")]], &["a -> /etc", "etc/", "etc/f=1"]);
    check(&[&[Symlink("up", "../../.."), F("up/outside", "evil")]], &["outside=evil", "up -> ../../.."]);
}

#[test]
fn nothing_gets_out() {
    check_refused(&[F("../outside", "evil")], "leaves the image with ..");
    check_refused(&[F("a/../../outside", "evil")], "leaves the image with ..");
    check_refused(&[Hard("x", "../outside")], "leaves the image with ..");
    check_refused(&[Symlink("up", ".."), Hard("x", "up/outside")], "a file that is not there");
    check_refused(&[F(".wh...", "")], "a whiteout of no file");
    check_refused(&[F(".wh.", "")], "a whiteout of no file");
    check_refused(&[F("../.wh.outside", "")], "leaves the image with ..");
}

#[test]
fn a_whiteout_through_a_link_stays_inside() {
    check(&[&[Symlink("up", "..")], &[F("up/.wh.outside", ""), F("up/.wh.root", "")]], &["up -> .."]);
    check(&[&[Symlink("up", "/")], &[F("up/.wh..wh..opq", "")]], &[]);
}

#[test]
fn a_file_never_follows_a_link_at_its_own_name() {
    let fixture = Fixture::new();
    let outside = fixture.dir.path().join("outside").display().to_string();
    let first = layer(&[Symlink("f", &outside), Symlink("d", "/etc")]);
    fixture.unpack(&[first, layer(&[F("f", "inside"), D("d")])]).expect("good layers");
    assert_eq!(fixture.tree(), ["d/", "f=inside"]);
    assert_eq!(fs::read_to_string(outside).expect("there"), "safe");
}

#[test]
fn devices_are_left_out() {
    check(&[&[Device("sda"), F("a", "1")]], &["a=1"]);
}

#[test]
fn modes_times_and_owners_are_kept() {
    let fixture = Fixture::new();
    fixture.unpack(&[layer(&[D("d"), F("d/f", "1")])]).expect("good layer");
    let (dir, file) =
        (fixture.path("d").metadata().expect("there"), fixture.path("d/f").metadata().expect("there"));
    assert_eq!(file.permissions().mode() & 0o7777, 0o640);
    assert_eq!((dir.mtime(), file.mtime()), (1_000_000_000, 1_000_000_000));
    if rustix::process::geteuid().is_root() {
        assert_eq!((dir.uid(), file.uid(), file.gid()), (1000, 1000, 1001));
    }
}

#[test]
fn packed_layers_are_recognised() {
    let plain = layer(&[F("a", "1")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    io::Write::write_all(&mut gzip, &plain).expect("in memory");
    let zstd = zstd::encode_all(plain.as_slice(), 3).expect("in memory");
    for packed in [gzip.finish().expect("in memory"), zstd, plain] {
        let fixture = Fixture::new();
        fixture.unpack(&[packed]).expect("good layer");
        assert_eq!(fixture.tree(), ["a=1"]);
    }
}

#[test]
fn bombs_are_stopped() {
    let zeros = "\0".repeat(2 << 20);
    let bomb = zstd::encode_all(layer(&[F("a", &zeros)]).as_slice(), 3).expect("in memory");
    let fixture = Fixture::new();
    let error = fixture.unpack(&[bomb]).expect_err("must be refused");
    assert!(error.to_string().contains("limit of 1048576 unpacked bytes"), "{error}");

    let names: Vec<String> = (0..101).map(|n| format!("f{n}")).collect();
    let many: Vec<Item<'_>> = names.iter().map(|name| F(name, "")).collect();
    check_refused(&many, "limit of 100 entries");

    // An extended header that would be kept in memory.
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(100 << 20);
    header.set_cksum();
    let long_name = header.as_bytes().chain(io::repeat(b'x').take(100 << 20));
    let mut unpacker =
        Unpacker::new(&fixture.path(""), UnpackLimits { bytes_max: u64::MAX - 1, ..LIMITS }).expect("opened");
    let error = unpacker.apply(long_name).expect_err("must be refused");
    let source = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(source.contains("extended header of an entry is too long"), "{source}");

    let deep = "d/".repeat(45); // within the 100 bytes of a name
    check(
        &[&[D(&deep)]],
        &(1..=45).map(|n| "d/".repeat(n)).collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>(),
    );
    assert!(clean_path("d/".repeat(200).as_bytes()).is_err());
}
