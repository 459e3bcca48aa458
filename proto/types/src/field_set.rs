//! Sets of field paths: which fields of an object somebody manages.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use smol_str::SmolStr;

/// Deepest path.
pub const FIELD_DEPTH_MAX: usize = 64;

/// The step of a path that stands for a map itself, whatever it holds (Kubernetes' sign).
pub const FIELD_ITSELF: &str = ".";

/// A path: names of fields and keys of maps, and keys of items such as `[name=web]`; no step is empty.
pub type FieldPath = Vec<SmolStr>;

/// A set of field paths as a tree. A field with nothing below it stands for all that it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    children: BTreeMap<SmolStr, FieldSet>,
}

impl FieldSet {
    /// Whether there is no path in it; of a field in a set: whether it is meant as a whole.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// The fields at the top, with what is meant of each.
    pub fn iter(&self) -> impl Iterator<Item = (&SmolStr, &FieldSet)> {
        self.children.iter()
    }

    /// What is meant of a field at the top.
    #[must_use]
    pub fn get(&self, step: &str) -> Option<&FieldSet> {
        self.children.get(step)
    }

    /// Adds a field at the top with what is meant of it.
    pub fn insert_below(&mut self, step: SmolStr, below: FieldSet) {
        self.children.insert(step, below);
    }

    /// Adds a path.
    pub fn insert<S: AsRef<str>>(&mut self, path: &[S]) {
        let Some((step, rest)) = path.split_first() else { return };
        match self.children.get_mut(step.as_ref()) {
            // The whole field is meant already.
            Some(below) if below.is_empty() => {}
            Some(below) if rest.is_empty() => *below = Self::default(),
            Some(below) => below.insert(rest),
            None => {
                let mut below = Self::default();
                below.insert(rest);
                self.children.insert(SmolStr::new(step), below);
            }
        }
    }

    /// All of both.
    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        for (step, theirs) in &other.children {
            match self.children.get_mut(step) {
                Some(ours) if ours.is_empty() => {}
                Some(ours) if theirs.is_empty() => *ours = Self::default(),
                Some(ours) => *ours = std::mem::take(ours).union(theirs),
                None => _ = self.children.insert(step.clone(), theirs.clone()),
            }
        }
        self
    }

    /// Whether it has the path, a field around it, or something below it.
    #[must_use]
    pub fn touches<S: AsRef<str>>(&self, path: &[S]) -> bool {
        let Some((step, rest)) = path.split_first() else { return true };
        self.children.get(step.as_ref()).is_some_and(|below| below.is_empty() || below.touches(rest))
    }

    /// Takes a path out, with all below it. A field around it that is meant as a whole goes too: what is left of it
    /// cannot be told.
    pub fn remove<S: AsRef<str>>(&mut self, path: &[S]) {
        let Some((step, rest)) = path.split_first() else { return };
        let Some(below) = self.children.get_mut(step.as_ref()) else { return };
        if !below.is_empty() && !rest.is_empty() {
            below.remove(rest);
            if !below.is_empty() {
                return;
            }
        }
        self.children.remove(step.as_ref());
    }

    /// Every path, in order.
    #[must_use]
    pub fn paths(&self) -> Vec<FieldPath> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, path: &mut FieldPath, paths: &mut Vec<FieldPath>) {
        for (step, below) in &self.children {
            path.push(step.clone());
            if below.is_empty() {
                paths.push(path.clone());
            } else {
                below.collect(path, paths);
            }
            path.pop();
        }
    }

    /// The same in at most so many bytes of [`Self::text`]: where it has more, fields are meant as a whole.
    #[must_use]
    pub fn within(mut self, bytes_max: usize) -> Self {
        let mut depth = FIELD_DEPTH_MAX;
        while depth > 0 && self.text().len() > bytes_max {
            depth -= 1;
            self.cut(depth);
        }
        self
    }

    fn cut(&mut self, depth: usize) {
        for below in self.children.values_mut() {
            if depth <= 1 { *below = Self::default() } else { below.cut(depth - 1) }
        }
    }

    /// Its one text, such as `metadata{labels{app}},spec{replicas}`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) {
        for (position, (step, below)) in self.children.iter().enumerate() {
            if position > 0 {
                text.push(',');
            }
            for c in step.chars() {
                if matches!(c, '\\' | '{' | '}' | ',') {
                    text.push('\\');
                }
                text.push(c);
            }
            if !below.is_empty() {
                text.push('{');
                below.write(text);
                text.push('}');
            }
        }
    }

    /// Reads [`Self::text`]; `None` when it is another form, or too deep.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text.chars().peekable();
        let set = Self::read(&mut rest, 0)?;
        (rest.next().is_none() && set.text() == text).then_some(set)
    }

    fn read(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, depth: usize) -> Option<Self> {
        let mut set = Self::default();
        if depth > FIELD_DEPTH_MAX || rest.peek().is_none() {
            return (depth == 0).then_some(set);
        }
        loop {
            let mut step = String::new();
            while let Some(&c) = rest.peek() {
                if matches!(c, '{' | '}' | ',') {
                    break;
                }
                rest.next();
                step.push(if c == '\\' { rest.next()? } else { c });
            }
            if step.is_empty() {
                return None;
            }
            let mut below = Self::default();
            if rest.next_if_eq(&'{').is_some() {
                below = Self::read(rest, depth + 1)?;
                rest.next_if_eq(&'}')?;
            }
            set.children.insert(SmolStr::from(step), below);
            if rest.next_if_eq(&',').is_none() {
                return Some(set);
            }
        }
    }
}

/// A path for people: `spec.template.spec.containers[name=web].image`, `metadata.labels[a.b/c]`.
#[must_use]
pub fn show_path<S: AsRef<str>>(path: &[S]) -> String {
    let mut text = String::new();
    for step in path.iter().map(AsRef::as_ref) {
        let is_plain =
            !step.is_empty() && step.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        let _ = match (step.starts_with('['), is_plain) {
            (true, _) => write!(text, "{step}"),
            (false, true) if text.is_empty() => write!(text, "{step}"),
            (false, true) => write!(text, ".{step}"),
            (false, false) => write!(text, "[{step}]"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(paths: &[&str]) -> FieldSet {
        let mut set = FieldSet::default();
        paths.iter().for_each(|path| set.insert(&path.split('.').collect::<Vec<_>>()));
        set
    }

    fn path(text: &str) -> Vec<&str> {
        text.split('.').collect()
    }

    #[test]
    fn a_field_as_a_whole_stands_for_what_it_holds() {
        assert_eq!(set(&["a.b", "a.c", "d"]).text(), "a{b,c},d");
        assert_eq!(set(&["a.b", "a"]).text(), "a");
        assert_eq!(set(&["a", "a.b"]).text(), "a");
        let it = set(&["a.b.c", "d"]);
        let touches = |text| it.touches(&path(text));
        assert!(touches("a.b.c") && touches("a.b") && touches("a") && touches("d.x"));
        assert!(!touches("a.x") && !touches("a.b.x") && !touches("e"));
    }

    #[test]
    fn what_is_taken_out_takes_empty_parents_with_it() {
        let check = |paths: &[&str], removed: &str, expected: &str| {
            let mut set = set(paths);
            set.remove(&path(removed));
            assert_eq!(set.text(), expected, "{paths:?} without {removed}");
        };
        check(&["a.b.c", "a.d"], "a.b.c", "a{d}");
        check(&["a.b.c"], "a.b.c", "");
        check(&["a.b.c", "a.b.d"], "a.b", "");
        check(&["a.b"], "a.b.c", "");
        check(&["a.b"], "a.x", "a{b}");
    }

    #[test]
    fn a_set_that_is_too_large_means_more_than_was_said() {
        let large = set(&["a.b.c.d", "a.b.c.e", "f"]);
        assert_eq!(large.clone().within(100).text(), "a{b{c{d,e}}},f");
        assert_eq!(large.clone().within(12).text(), "a{b{c}},f");
        assert_eq!(large.within(3).text(), "a,f");
    }

    #[test]
    fn other_forms_are_refused() {
        for text in ["b,a", "a{}", "a{", "a}", "a,a", ",", "a{b", "\\", "a{b}}"] {
            assert_eq!(FieldSet::parse(text), None, "{text}");
        }
        assert_eq!(FieldSet::parse(""), Some(FieldSet::default()));
        let deep = format!("{}{}", "a{".repeat(200), "}".repeat(200));
        assert_eq!(FieldSet::parse(&deep), None);
    }

    #[test]
    fn paths_are_shown_as_people_write_them() {
        let path = ["spec", "containers", "[name=web]", "image"];
        assert_eq!(show_path(&path), "spec.containers[name=web].image");
        assert_eq!(show_path(&["metadata", "labels", "a.b/c"]), "metadata.labels[a.b/c]");
    }

    fn any_set() -> impl Strategy<Value = FieldSet> {
        prop::collection::vec(prop::collection::vec("[a-c{},\\\\]{1,2}", 1..4), 0..6).prop_map(|paths| {
            let mut set = FieldSet::default();
            paths.iter().for_each(|path| set.insert(path));
            set
        })
    }

    proptest! {
        #[test]
        fn text_and_paths_tell_the_whole_set(set in any_set()) {
            prop_assert_eq!(FieldSet::parse(&set.text()), Some(set.clone()));
            let mut again = FieldSet::default();
            set.paths().iter().for_each(|path| again.insert(path));
            prop_assert_eq!(again, set);
        }

        #[test]
        fn a_union_is_the_same_from_both_sides(a in any_set(), b in any_set()) {
            let union = a.clone().union(&b);
            prop_assert_eq!(&union, &b.clone().union(&a));
            prop_assert_eq!(&union.clone().union(&a), &union);
            for path in a.paths() {
                prop_assert!(union.touches(&path));
            }
        }

        #[test]
        fn what_was_taken_out_is_gone(set in any_set(), other in any_set()) {
            let mut left = set;
            other.paths().iter().for_each(|path| left.remove(path));
            for path in other.paths() {
                prop_assert!(!left.touches(&path));
            }
        }
    }
}
