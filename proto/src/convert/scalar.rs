//! Numbers, texts, names and ids as fields.

use std::collections::BTreeMap;

use bulkhead_types::{Bytes, MemberId, Name, ObjectId, Sensitive, StringMap};
use smol_str::SmolStr;
use uuid::Uuid;

use super::{ConvertError, Field, missing};
use crate::v1;

macro_rules! same {
    ($($type:ty),*) => { $(
        impl Field<$type> for $type {
            fn to_wire(&self) -> $type {
                self.clone()
            }
            fn from_wire(wire: $type) -> Result<Self, ConvertError> {
                Ok(wire)
            }
        }
    )* };
}
same!(bool, u32, u64, i32, i64, String);

/// A number that has a default in submissions: on the wire it must be there by now.
macro_rules! required {
    ($($type:ty),*) => { $(
        impl Field<Option<$type>> for $type {
            fn to_wire(&self) -> Option<$type> {
                Some(*self)
            }
            fn from_wire(wire: Option<$type>) -> Result<Self, ConvertError> {
                wire.ok_or_else(missing)
            }
        }
    )* };
}
required!(bool, u32, u64);

impl Field<u32> for u16 {
    fn to_wire(&self) -> u32 {
        (*self).into()
    }
    fn from_wire(wire: u32) -> Result<Self, ConvertError> {
        Self::try_from(wire).map_err(|_| ConvertError::new(format!("{wire} is above {}", Self::MAX)))
    }
}

impl Field<String> for SmolStr {
    fn to_wire(&self) -> String {
        self.as_str().to_owned()
    }
    fn from_wire(wire: String) -> Result<Self, ConvertError> {
        Ok(Self::from(wire))
    }
}

impl Field<String> for Name {
    fn to_wire(&self) -> String {
        self.as_str().to_owned()
    }
    fn from_wire(wire: String) -> Result<Self, ConvertError> {
        Self::new(wire).map_err(|e| ConvertError::new(e.to_string()))
    }
}

/// A namespace: empty for cluster-scoped kinds.
impl Field<String> for Option<Name> {
    fn to_wire(&self) -> String {
        self.as_ref().map(Field::to_wire).unwrap_or_default()
    }
    fn from_wire(wire: String) -> Result<Self, ConvertError> {
        if wire.is_empty() { Ok(None) } else { Name::from_wire(wire).map(Some) }
    }
}

impl Field<BTreeMap<String, String>> for StringMap {
    fn to_wire(&self) -> BTreeMap<String, String> {
        self.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }
    fn from_wire(wire: BTreeMap<String, String>) -> Result<Self, ConvertError> {
        Ok(wire.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }
}

impl Field<BTreeMap<String, String>> for BTreeMap<SmolStr, String> {
    fn to_wire(&self) -> BTreeMap<String, String> {
        self.iter().map(|(k, v)| (k.to_string(), v.clone())).collect()
    }
    fn from_wire(wire: BTreeMap<String, String>) -> Result<Self, ConvertError> {
        Ok(wire.into_iter().map(|(k, v)| (k.into(), v)).collect())
    }
}

impl Field<BTreeMap<String, prost::bytes::Bytes>> for BTreeMap<SmolStr, Bytes> {
    fn to_wire(&self) -> BTreeMap<String, prost::bytes::Bytes> {
        self.iter()
            .map(|(k, v)| (k.to_string(), prost::bytes::Bytes::copy_from_slice(v.as_slice())))
            .collect()
    }
    fn from_wire(wire: BTreeMap<String, prost::bytes::Bytes>) -> Result<Self, ConvertError> {
        Ok(wire.into_iter().map(|(k, v)| (k.into(), Vec::from(v).into())).collect())
    }
}

impl Field<BTreeMap<String, prost::bytes::Bytes>> for BTreeMap<SmolStr, Sensitive> {
    fn to_wire(&self) -> BTreeMap<String, prost::bytes::Bytes> {
        self.iter().map(|(k, v)| (k.to_string(), prost::bytes::Bytes::copy_from_slice(v.reveal()))).collect()
    }
    fn from_wire(wire: BTreeMap<String, prost::bytes::Bytes>) -> Result<Self, ConvertError> {
        Ok(wire.into_iter().map(|(k, v)| (k.into(), Vec::from(v).into())).collect())
    }
}

impl Field<prost::bytes::Bytes> for Sensitive {
    fn to_wire(&self) -> prost::bytes::Bytes {
        prost::bytes::Bytes::copy_from_slice(self.reveal())
    }
    fn from_wire(wire: prost::bytes::Bytes) -> Result<Self, ConvertError> {
        Ok(Vec::from(wire).into())
    }
}

impl Field<u64> for ObjectId {
    fn to_wire(&self) -> u64 {
        self.0
    }
    fn from_wire(wire: u64) -> Result<Self, ConvertError> {
        Ok(Self(wire))
    }
}

impl Field<u64> for MemberId {
    fn to_wire(&self) -> u64 {
        self.0
    }
    fn from_wire(wire: u64) -> Result<Self, ConvertError> {
        if wire == 0 { Err(ConvertError::new("a member's id is at least 1")) } else { Ok(Self(wire)) }
    }
}

impl Field<v1::Uuid> for Uuid {
    fn to_wire(&self) -> v1::Uuid {
        let (high, low) = self.as_u64_pair();
        v1::Uuid { high, low }
    }
    fn from_wire(wire: v1::Uuid) -> Result<Self, ConvertError> {
        Ok(Self::from_u64_pair(wire.high, wire.low))
    }
}

/// Nil is a missing message, and nothing else is.
impl Field<Option<v1::Uuid>> for Uuid {
    fn to_wire(&self) -> Option<v1::Uuid> {
        (!self.is_nil()).then(|| Field::<v1::Uuid>::to_wire(self))
    }
    fn from_wire(wire: Option<v1::Uuid>) -> Result<Self, ConvertError> {
        match wire {
            None => Ok(Self::nil()),
            Some(v1::Uuid { high: 0, low: 0 }) => Err(ConvertError::new("a nil UUID must be left out")),
            Some(wire) => Self::from_wire(wire),
        }
    }
}

/// A digest.
impl Field<v1::Digest> for u128 {
    fn to_wire(&self) -> v1::Digest {
        v1::Digest { high: (*self >> 64) as u64, low: *self as u64 }
    }
    fn from_wire(wire: v1::Digest) -> Result<Self, ConvertError> {
        Ok((u128::from(wire.high) << 64) | u128::from(wire.low))
    }
}

impl Field<Option<v1::Digest>> for u128 {
    fn to_wire(&self) -> Option<v1::Digest> {
        Some(Field::<v1::Digest>::to_wire(self))
    }
    fn from_wire(wire: Option<v1::Digest>) -> Result<Self, ConvertError> {
        <Self as Field<v1::Digest>>::from_wire(wire.ok_or_else(missing)?)
    }
}
