//! Labels and annotations.

use std::collections::{BTreeMap, btree_map};
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;

type Map = BTreeMap<SmolStr, SmolStr>;

static EMPTY: Map = Map::new();

/// Labels or annotations, in key order: a map that is copied when it is written to. Copies share one until then, so a
/// million pods of one template hold one map; an empty one holds nothing.
#[derive(Clone, Default)]
pub struct StringMap(Option<Arc<Map>>);

impl StringMap {
    /// A map without entries.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }

    /// Whether both are one map in memory, not only equal. Empty ones always are.
    #[must_use]
    pub fn ptr_eq(&self, other: &Self) -> bool {
        std::ptr::eq::<Map>(&**self, &**other)
    }
}

impl Deref for StringMap {
    type Target = Map;
    fn deref(&self) -> &Map {
        self.0.as_deref().unwrap_or(&EMPTY)
    }
}

/// The content is copied when it is shared.
impl DerefMut for StringMap {
    fn deref_mut(&mut self) -> &mut Map {
        Arc::make_mut(self.0.get_or_insert_default())
    }
}

impl From<Map> for StringMap {
    fn from(map: Map) -> Self {
        Self((!map.is_empty()).then(|| Arc::new(map)))
    }
}

impl<const N: usize> From<[(SmolStr, SmolStr); N]> for StringMap {
    fn from(pairs: [(SmolStr, SmolStr); N]) -> Self {
        Map::from(pairs).into()
    }
}

impl FromIterator<(SmolStr, SmolStr)> for StringMap {
    fn from_iter<I: IntoIterator<Item = (SmolStr, SmolStr)>>(pairs: I) -> Self {
        Map::from_iter(pairs).into()
    }
}

impl IntoIterator for StringMap {
    type Item = (SmolStr, SmolStr);
    type IntoIter = btree_map::IntoIter<SmolStr, SmolStr>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.map(Arc::unwrap_or_clone).unwrap_or_default().into_iter()
    }
}

impl<'a> IntoIterator for &'a StringMap {
    type Item = (&'a SmolStr, &'a SmolStr);
    type IntoIter = btree_map::Iter<'a, SmolStr, SmolStr>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for StringMap {
    fn eq(&self, other: &Self) -> bool {
        self.ptr_eq(other) || **self == **other
    }
}

impl Eq for StringMap {}

impl PartialOrd for StringMap {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for StringMap {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

/// As the map's: digests do not tell who shares what.
impl Hash for StringMap {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl std::fmt::Debug for StringMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

impl Serialize for StringMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StringMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::digest128;

    fn map(pairs: &[(&str, &str)]) -> StringMap {
        pairs.iter().map(|(k, v)| (SmolStr::new(k), SmolStr::new(v))).collect()
    }

    #[test]
    fn a_copy_shares_until_one_of_the_two_changes() {
        let first = map(&[("app", "web")]);
        let mut second = first.clone();
        assert!(first.ptr_eq(&second));
        second.insert("tier".into(), "front".into());
        assert!(!first.ptr_eq(&second));
        assert_eq!(first, map(&[("app", "web")]));
        assert_eq!(second, map(&[("app", "web"), ("tier", "front")]));
        assert_eq!(second["tier"], "front");
    }

    #[test]
    fn an_empty_map_holds_nothing() {
        let mut emptied = map(&[("app", "web")]);
        emptied.remove("app");
        for empty in [StringMap::new(), map(&[]), Map::new().into(), emptied] {
            assert_eq!(empty, StringMap::new());
            assert_eq!(empty.into_iter().count(), 0);
        }
        assert!(StringMap::new().ptr_eq(&map(&[])));
        assert_eq!(size_of::<StringMap>(), size_of::<usize>());
    }

    proptest! {
        #[test]
        fn digest_order_and_text_are_the_plain_maps(
            (a, b) in {
                let plain = || proptest::collection::btree_map("[a-c]{0,2}", "[a-c]{0,2}", 0..3);
                (plain(), plain())
            }
        ) {
            let plain = |map: BTreeMap<String, String>| -> Map {
                map.into_iter().map(|(k, v)| (k.into(), v.into())).collect()
            };
            let (a, b) = (plain(a), plain(b));
            let (shared_a, shared_b) = (StringMap::from(a.clone()), StringMap::from(b.clone()));
            prop_assert_eq!(digest128(&shared_a), digest128(&a));
            prop_assert_eq!(shared_a.cmp(&shared_b), a.cmp(&b));
            prop_assert_eq!(shared_a == shared_b, a == b);
            prop_assert_eq!(format!("{shared_a:?}"), format!("{a:?}"));
        }
    }
}
