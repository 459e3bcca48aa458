use std::sync::mpsc;

use super::*;

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bulkhead-tail-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).expect("written");
    }

    fn add(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.0.join(name)).expect("a file");
        file.write_all(text.as_bytes()).expect("written");
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.0.join(from), self.0.join(to)).expect("renamed");
    }

    fn pattern(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn names_are_matched_as_in_a_shell() {
    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        assert!(yes.iter().all(|name| matches(pattern, name)), "{pattern} means {yes:?}");
        assert!(!no.iter().any(|name| matches(pattern, name)), "{pattern} does not mean {no:?}");
    }
    check("*.log", &["a.log", "b.log.log"], &["a.log.1", ".log", ".a.log", "log"]);
    check("app-?.log*", &["app-1.log", "app-1.log.2"], &["app-10.log", "app-.log"]);
    check("*", &["a", "ä"], &[".a"]);
    check(".*", &[".a"], &["a"]);
    check("a*b*c", &["abc", "aXbYbc"], &["ab", "abcd"]);
}

#[test]
fn files_are_printed_with_their_names_where_there_may_be_several() {
    let dir = Dir::new("print");
    dir.write("a.log", "one\ntwo\nthree");
    dir.write("b.log", "four\n");
    fs::create_dir_all(dir.0.join("c.log")).expect("a folder is no file");
    let check = |pattern: &str, tail_lines, expected: &str| {
        let mut out = Vec::new();
        let pattern = dir.pattern(pattern);
        print(Wanted { pattern: &pattern, follow: false, tail_lines }, &mut out).expect("printed");
        let expected = expected.replace("DIR", dir.0.to_str().expect("UTF-8"));
        assert_eq!(String::from_utf8(out).expect("text"), expected, "{pattern} {tail_lines:?}");
    };
    check("a.log", None, "one\ntwo\nthree");
    check("a.log", Some(2), "two\nthree");
    check("a.log", Some(0), "");
    check("b.log", Some(9), "four\n");
    check("*.log", Some(1), "==> DIR/a.log <==\nthree\n==> DIR/b.log <==\nfour\n");
    let missing = dir.pattern("nothing");
    let error = print(Wanted { pattern: &missing, follow: false, tail_lines: None }, Vec::new());
    assert_eq!(error.expect_err("not there").to_string(), "no such file");
}

#[test]
fn what_is_rotated_is_read_to_its_end_and_what_is_cut_from_its_beginning() {
    let dir = Dir::new("rotate");
    let pattern = dir.pattern("app.log");
    let mut tail = Tail::new(Wanted { pattern: &pattern, follow: true, tail_lines: Some(1) }, Vec::new());
    let mut round = |expected: &str| {
        tail.round(&expand(&pattern)).expect("read");
        assert_eq!(String::from_utf8(std::mem::take(&mut tail.out)).expect("text"), expected);
    };
    dir.write("app.log", "old\nlast\n");
    round("last\n");
    dir.add("app.log", "more\n");
    round("more\n");
    // Renamed, written to once more by who still has it open, and another in its place.
    dir.rename("app.log", "app.log.1");
    dir.add("app.log.1", "late\n");
    dir.write("app.log", "new\n");
    round("late\nnew\n");
    // Copied and cut.
    dir.write("app.log", "c\n");
    round("c\n");
    fs::remove_file(dir.0.join("app.log")).expect("removed");
    round("");
    dir.write("app.log", "again\n");
    round("again\n");
}

/// Passes on what is written, and ends who writes once nobody listens.
struct Sender(mpsc::Sender<Vec<u8>>);

impl Write for Sender {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.send(data.to_vec()).map_err(io::Error::other)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.send(Vec::new()).map_err(io::Error::other)
    }
}

#[test]
fn who_follows_sees_what_comes_and_files_and_folders_that_come() {
    let dir = Dir::new("follow");
    let pattern = dir.pattern("*/app-*.log");
    let (sender, receiver) = mpsc::channel();
    let printing = std::thread::spawn(move || {
        print(Wanted { pattern: &pattern, follow: true, tail_lines: None }, Sender(sender))
    });
    let until = |expected: &str| {
        let mut text = String::new();
        while !text.ends_with(expected) {
            text += &String::from_utf8(receiver.recv().expect("it goes on")).expect("text");
        }
    };
    fs::create_dir_all(dir.0.join("x")).expect("a folder");
    dir.write("x/app-1.log", "one\n");
    until("one\n");
    dir.add("x/app-1.log", "two\n");
    until("two\n");
    dir.rename("x/app-1.log", "x/app-1.log.old");
    dir.write("x/app-1.log", "three\n");
    until("three\n");
    fs::create_dir_all(dir.0.join("y")).expect("a folder");
    dir.write("y/app-2.log", "four\n");
    until("four\n");
    drop(receiver);
    dir.add("x/app-1.log", "nobody hears this\n");
    assert!(printing.join().expect("no panic").is_err());
}
