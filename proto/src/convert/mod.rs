//! Wire to domain and back: `v1::X::from(&x)` never fails, `X::try_from(v1::X)` checks everything.
//!
//! ```text
//!  v1::SubmitRequest ─► Submission::try_from     defaults filled in, labels and sizes checked (clients)
//!  v1::Command       ─► Command::try_from        structure only: what the log holds was checked before
//! ```
//!
//! Each message has one `wire_struct!` or `wire_oneof!` line with its fields. A field that is added to one
//! side only does not compile.

use std::hash::Hash;
use std::sync::Arc;

use bulkhead_types::{Rare, Shared};

mod agent;
mod autoscaler;
mod claim;
mod command;
mod common;
mod config;
mod cpu;
mod defaults;
mod descheduler;
mod device;
mod disruption_budget;
mod elastic;
mod elastic_quota;
mod event;
mod job;
mod log;
mod naming;
mod node;
mod node_pool;
mod object;
mod owned;
mod placement;
mod pod;
mod probe;
mod profile;
mod pull_secrets;
mod queue;
mod quota;
mod resolved;
mod scalar;
mod security;
mod sriov;
mod stateful;
mod submit;
mod vertical_autoscaler;
mod volume;
mod workload;

pub use submit::*;

/// A message is not acceptable: where, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ConvertError {
    /// The field, such as `commands[0].apply.deployment.spec.replicas`.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl ConvertError {
    /// An error about the message itself; callers add the path on the way up.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self { path: String::new(), reason: reason.into() }
    }

    /// The same error, seen from the message that holds `field`.
    #[must_use]
    pub fn within(self, field: &str) -> Self {
        let joint = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        Self { path: format!("{field}{joint}{}", self.path), ..self }
    }

    fn at(self, index: usize) -> Self {
        self.within(&format!("[{index}]"))
    }
}

/// A domain value that has the form `W` in a field of a message.
pub trait Field<W>: Sized {
    /// The value as the field holds it.
    fn to_wire(&self) -> W;
    /// The field's content as a value.
    ///
    /// # Errors
    /// When it is missing, unknown or has a wrong form.
    fn from_wire(wire: W) -> Result<Self, ConvertError>;
}

impl<T: Field<W>, W> Field<Option<W>> for Option<T> {
    fn to_wire(&self) -> Option<W> {
        self.as_ref().map(Field::to_wire)
    }
    fn from_wire(wire: Option<W>) -> Result<Self, ConvertError> {
        wire.map(T::from_wire).transpose()
    }
}

impl<T: Field<W>, W> Field<Vec<W>> for Vec<T> {
    fn to_wire(&self) -> Vec<W> {
        self.iter().map(Field::to_wire).collect()
    }
    fn from_wire(wire: Vec<W>) -> Result<Self, ConvertError> {
        let mut items = Self::with_capacity(wire.len());
        for (index, item) in wire.into_iter().enumerate() {
            items.push(T::from_wire(item).map_err(|e| e.at(index))?);
        }
        Ok(items)
    }
}

impl<T: Field<W>, W> Field<W> for Box<T> {
    fn to_wire(&self) -> W {
        T::to_wire(self)
    }
    fn from_wire(wire: W) -> Result<Self, ConvertError> {
        T::from_wire(wire).map(Self::new)
    }
}

impl<T: Field<W>, W> Field<W> for Arc<T> {
    fn to_wire(&self) -> W {
        T::to_wire(self)
    }
    fn from_wire(wire: W) -> Result<Self, ConvertError> {
        T::from_wire(wire).map(Self::new)
    }
}

impl<T: Field<W> + Hash, W> Field<W> for Shared<T> {
    fn to_wire(&self) -> W {
        T::to_wire(self)
    }
    fn from_wire(wire: W) -> Result<Self, ConvertError> {
        T::from_wire(wire).map(Self::new)
    }
}

impl<T: Field<W>, W> Field<Option<W>> for Rare<T> {
    fn to_wire(&self) -> Option<W> {
        self.get().map(Field::to_wire)
    }
    fn from_wire(wire: Option<W>) -> Result<Self, ConvertError> {
        Ok(wire.map(T::from_wire).transpose()?.into())
    }
}

pub(crate) fn missing() -> ConvertError {
    ConvertError::new("is missing")
}

pub(crate) fn unknown_variant() -> ConvertError {
    ConvertError::new("is missing, or a variant that this version does not know")
}

/// Reads one field and puts its name into the error.
pub(crate) fn read<T: Field<W>, W>(wire: W, field: &str) -> Result<T, ConvertError> {
    T::from_wire(wire).map_err(|e| e.within(field))
}

/// Refuses a list that is too long, before anything is made of it.
pub(crate) fn at_most<T>(items: &[T], max: usize, field: &str) -> Result<(), ConvertError> {
    if items.len() <= max {
        return Ok(());
    }
    Err(ConvertError::new(format!("has {} items; at most {max} are allowed", items.len())).within(field))
}

/// `Domain => wire message { fields }`: fields of equal names, optionally `field (MAX)` for a bounded list.
macro_rules! wire_struct {
    ($domain:ty => $wire:ty { $($field:ident $(($max:expr))?),* $(,)? }) => {
        impl From<&$domain> for $wire {
            fn from(value: &$domain) -> Self {
                Self { $($field: $crate::convert::Field::to_wire(&value.$field)),* }
            }
        }
        impl TryFrom<$wire> for $domain {
            type Error = $crate::convert::ConvertError;
            fn try_from(wire: $wire) -> Result<Self, Self::Error> {
                $($($crate::convert::at_most(&wire.$field, $max, stringify!($field))?;)?)*
                Ok(Self { $($field: $crate::convert::read(wire.$field, stringify!($field))?),* })
            }
        }
    };
}

/// A message as a field of another: it must be there.
macro_rules! wire_field {
    ($($domain:ty => $wire:ty),* $(,)?) => { $(
        impl $crate::convert::Field<$wire> for $domain {
            fn to_wire(&self) -> $wire {
                self.into()
            }
            fn from_wire(wire: $wire) -> Result<Self, $crate::convert::ConvertError> {
                wire.try_into()
            }
        }
        impl $crate::convert::Field<Option<$wire>> for $domain {
            fn to_wire(&self) -> Option<$wire> {
                Some(self.into())
            }
            fn from_wire(wire: Option<$wire>) -> Result<Self, $crate::convert::ConvertError> {
                wire.ok_or_else($crate::convert::missing)?.try_into()
            }
        }
    )* };
}

/// A message as a field of another: left out when it says nothing.
macro_rules! wire_field_or_default {
    ($($domain:ty => $wire:ty),* $(,)?) => { $(
        impl $crate::convert::Field<$wire> for $domain {
            fn to_wire(&self) -> $wire {
                self.into()
            }
            fn from_wire(wire: $wire) -> Result<Self, $crate::convert::ConvertError> {
                wire.try_into()
            }
        }
        impl $crate::convert::Field<Option<$wire>> for $domain {
            fn to_wire(&self) -> Option<$wire> {
                (*self != Self::default()).then(|| self.into())
            }
            fn from_wire(wire: Option<$wire>) -> Result<Self, $crate::convert::ConvertError> {
                wire.map_or_else(|| Ok(Self::default()), TryInto::try_into)
            }
        }
    )* };
}

/// Enums of equal variants; a number that is not listed is refused.
macro_rules! wire_enum {
    ($($name:ident { $($variant:ident),* $(,)? })*) => { $(
        impl From<$name> for $crate::v1::$name {
            fn from(value: $name) -> Self {
                match value { $($name::$variant => Self::$variant),* }
            }
        }
        impl TryFrom<$crate::v1::$name> for $name {
            type Error = $crate::convert::ConvertError;
            fn try_from(wire: $crate::v1::$name) -> Result<Self, Self::Error> {
                match wire {
                    $crate::v1::$name::Unspecified => {
                        Err($crate::convert::ConvertError::new("is not specified"))
                    }
                    $($crate::v1::$name::$variant => Ok(Self::$variant)),*
                }
            }
        }
        impl $crate::convert::Field<i32> for $name {
            fn to_wire(&self) -> i32 {
                $crate::v1::$name::from(*self).into()
            }
            fn from_wire(wire: i32) -> Result<Self, $crate::convert::ConvertError> {
                $crate::v1::$name::try_from(wire)
                    .map_err(|_| $crate::convert::ConvertError::new(format!(
                        "{wire} is no {} that this version knows", stringify!($name)
                    )))?
                    .try_into()
            }
        }
    )* };
}

/// An enum with content over a message's `oneof variant`; `$wire` is the message's module.
macro_rules! wire_oneof {
    ($domain:ident => $wire:ident {
        values { $($new:ident $new_path:literal),* $(,)? }
        messages { $($variant:ident $path:literal { $($field:ident $(($max:expr))?),* $(,)? })* }
    }) => {
        impl $crate::convert::Field<Option<$wire::Variant>> for $domain {
            #[allow(clippy::too_many_lines)]
            fn to_wire(&self) -> Option<$wire::Variant> {
                Some(match self {
                    $($domain::$new(value) => $wire::Variant::$new($crate::convert::Field::to_wire(value)),)*
                    $($domain::$variant { $($field),* } => $wire::Variant::$variant($wire::$variant {
                        $($field: $crate::convert::Field::to_wire($field)),*
                    }),)*
                })
            }
            #[allow(clippy::too_many_lines)]
            fn from_wire(wire: Option<$wire::Variant>) -> Result<Self, $crate::convert::ConvertError> {
                Ok(match wire.ok_or_else($crate::convert::unknown_variant)? {
                    $($wire::Variant::$new(value) => $domain::$new($crate::convert::read(value, $new_path)?),)*
                    $($wire::Variant::$variant(wire) => {
                        let wire: $wire::$variant = wire;
                        let _ = &wire;
                        let read = || -> Result<Self, $crate::convert::ConvertError> {
                            $($($crate::convert::at_most(&wire.$field, $max, stringify!($field))?;)?)*
                            Ok($domain::$variant {
                                $($field: $crate::convert::read(wire.$field, stringify!($field))?),*
                            })
                        };
                        read().map_err(|e| e.within($path))?
                    })*
                })
            }
        }
    };
}

/// A message that holds nothing but a `oneof variant`.
macro_rules! wire_variant_message {
    ($($domain:ty => $wire:ty),* $(,)?) => { $(
        impl From<&$domain> for $wire {
            fn from(value: &$domain) -> Self {
                Self { variant: $crate::convert::Field::to_wire(value) }
            }
        }
        impl TryFrom<$wire> for $domain {
            type Error = $crate::convert::ConvertError;
            fn try_from(wire: $wire) -> Result<Self, Self::Error> {
                $crate::convert::Field::from_wire(wire.variant)
            }
        }
        wire_field!($domain => $wire);
    )* };
}

pub(crate) use {
    wire_enum, wire_field, wire_field_or_default, wire_oneof, wire_struct, wire_variant_message,
};
