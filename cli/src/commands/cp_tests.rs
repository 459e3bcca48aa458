use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::*;

#[test]
fn ends_are_read_as_kubectl_reads_them() {
    let here = |path: &str| Some(End::Here(path.into()));
    let pod = |namespace: Option<&str>, path: &str| {
        let (namespace, pod) = (namespace.map(str::to_owned), "web".to_owned());
        Some(End::Pod { namespace, pod, path: path.to_owned() })
    };
    let check = |text: &str, expected| assert_eq!(parse_end(text).ok(), expected, "{text}");
    check("file", here("file"));
    check("./a:b", here("./a:b"));
    check("/tmp/a:b", here("/tmp/a:b"));
    check("web:/etc", pod(None, "/etc"));
    check("web:etc", pod(None, "etc"));
    check("prod/web:/a:b", pod(Some("prod"), "/a:b"));
    for wrong in ["", "web:", ":/etc", "prod/:/etc"] {
        check(wrong, None);
    }
}

/// Packs a path and unpacks it as or into another; what was told.
fn copy(from: &Path, to: &Path, links: Links) -> (io::Result<()>, Vec<String>) {
    let (mut stream, mut told) = (Vec::new(), Vec::new());
    let mut warn = |text: &str| told.push(text.to_owned());
    let result =
        pack(from, &mut stream, &mut warn).and_then(|()| unpack(stream.as_slice(), to, links, &mut warn));
    (result, told)
}

#[test]
fn a_tree_arrives_as_it_was_or_below_a_folder_that_is_there() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let from = dir.path().join("from");
    let deep = from.join("a").join("n".repeat(200)).join("m".repeat(200));
    fs::create_dir_all(&deep).expect("made");
    fs::write(deep.join("file"), vec![7; 100_000]).expect("written");
    fs::write(from.join("run"), "#!").expect("written");
    fs::write(from.join("empty"), "").expect("written");
    fs::set_permissions(from.join("run"), fs::Permissions::from_mode(0o4755)).expect("changed");
    symlink("/etc/passwd", from.join("link")).expect("made");

    let to = dir.path().join("to");
    let (result, told) = copy(&from, &to, Links::LeaveOut);
    result.expect("copied");
    assert_eq!(told, ["left out: \"to/link\" is a link"]);
    let file = to.join("a").join("n".repeat(200)).join("m".repeat(200)).join("file");
    assert_eq!(fs::read(file).expect("there"), vec![7; 100_000]);
    assert_eq!(fs::metadata(to.join("run")).expect("there").permissions().mode() & 0o7777, 0o755);
    assert_eq!(fs::read(to.join("empty")).expect("there"), b"");

    // Now it is there: the source goes into it, under its own name. Again: over what is there.
    for _ in 0..2 {
        copy(&from, &to, Links::Make).0.expect("copied");
        assert_eq!(fs::read_link(to.join("from/link")).expect("made").to_str(), Some("/etc/passwd"));
    }
    // A file as another.
    copy(&from.join("run"), &dir.path().join("ran"), Links::LeaveOut).0.expect("copied");
    assert_eq!(fs::read(dir.path().join("ran")).expect("there"), b"#!");
    let (result, _) = copy(&from.join("nothing"), &to, Links::Make);
    assert_eq!(result.expect_err("nothing there").kind(), io::ErrorKind::NotFound);
}

/// A stream of entries: name, what a link leads to, content.
fn stream(entries: &[(&str, Option<&str>, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, link, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        // The library itself would refuse such names.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        match link {
            Some(to) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.as_old_mut().linkname[..to.len()].copy_from_slice(to.as_bytes());
            }
            None if name.ends_with('/') => header.set_entry_type(tar::EntryType::Directory),
            None => header.set_entry_type(tar::EntryType::Regular),
        }
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).expect("in memory");
    }
    builder.into_inner().expect("in memory")
}

#[test]
fn nothing_is_written_outside_of_the_target() {
    let check = |entries: &[(&str, Option<&str>, &str)], word: &str| {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (target, outside) = (dir.path().join("target"), dir.path().join("outside"));
        fs::create_dir_all(&target).expect("made");
        fs::create_dir_all(&outside).expect("made");
        fs::write(outside.join("kept"), "kept").expect("written");
        // The user's own link, in a folder that the stream may write into.
        fs::create_dir_all(target.join("x/sub")).expect("made");
        symlink(&outside, target.join("x/away")).expect("made");
        symlink(outside.join("kept"), target.join("x/file")).expect("made");
        let result = unpack(stream(entries).as_slice(), &target, Links::Make, &mut |_| {});
        let error = result.expect_err("refused").to_string();
        assert!(error.contains(word), "{word:?} is not in: {error}");
        assert_eq!(fs::read(outside.join("kept")).expect("there"), b"kept");
        assert_eq!(fs::read_dir(&outside).expect("listed").count(), 1);
        assert!(!dir.path().join("evil").exists());
    };
    check(&[("../evil", None, "x")], "not acceptable");
    check(&[("x/../../evil", None, "x")], "not acceptable");
    check(&[("/evil", None, "x")], "not acceptable");
    check(&[("x/sub/a", None, "a"), ("other", None, "x")], "not acceptable");
    check(&[("x/away/evil", None, "x")], "a link on the way");
    check(&[("x/file", None, "x")], "a link is there");
    check(&[("x/new", Some("../../outside"), ""), ("x/new/evil", None, "x")], "a link on the way");
    check(&[("x/new", Some("../../outside/kept"), ""), ("x/new", None, "x")], "a link is there");
    check(&[], "nothing came");
}

#[test]
fn a_stream_that_ends_early_or_has_endless_names_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let whole = stream(&[("x", None, &"y".repeat(2000))]);
    let cut = unpack(&whole[..1500], &dir.path().join("x"), Links::LeaveOut, &mut |_| {});
    assert!(cut.is_err(), "{cut:?}");
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    let endless = io::Read::chain(header.as_bytes().as_slice(), io::repeat(b'n'));
    let error = unpack(endless, dir.path(), Links::LeaveOut, &mut |_| {}).expect_err("refused");
    assert!(error.to_string().contains("a name is longer than 16384 bytes"), "{error}");
}

#[test]
fn a_terminal_obeys_no_file_name() {
    let text: String = "a\u{1b}[2Jb\u{7f}ä".chars().flat_map(escape).collect();
    assert_eq!(text, "a\\u{1b}[2Jb\\u{7f}ä");
}
