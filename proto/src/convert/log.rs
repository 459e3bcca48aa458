//! Log records, membership changes and snapshot records.
//!
//! The format version is [`crate::codec`]'s business: conversion writes the present one and ignores it.

use bulkhead_types::{
    LogRecord, MemberRecord, MemberRole, MembershipAction, MembershipChange, SnapshotRecord,
};

use super::{ConvertError, Field, read, unknown_variant};
use super::{wire_enum, wire_field, wire_oneof, wire_struct, wire_variant_message};
use crate::codec::FORMAT_VERSION;
use crate::v1;
use crate::v1::{log_record, membership_action, snapshot_record};

wire_enum!(MemberRole { Voter, Learner, Removed });

wire_struct!(MembershipChange => v1::MembershipChange {
    request_id, actor, proposed_at_ms, action, force_unsafe,
});
wire_oneof!(MembershipAction => membership_action {
    values {}
    messages {
        AddLearner "add_learner" { member, address }
        Promote "promote" { member }
        Remove "remove" { member }
    }
});
wire_variant_message!(MembershipAction => v1::MembershipAction);
wire_struct!(MemberRecord => v1::MemberRecord {
    member, address, role, storage_uid, version, feature_level_max,
});
wire_field! {
    MembershipChange => v1::MembershipChange,
    MemberRecord => v1::MemberRecord,
}

impl From<&LogRecord> for v1::LogRecord {
    fn from(value: &LogRecord) -> Self {
        let record = match value {
            LogRecord::Batch(stamped) => log_record::Record::Batch(v1::Batch { stamped: stamped.to_wire() }),
            LogRecord::Membership(change) => log_record::Record::Membership(change.into()),
        };
        Self { format_version: FORMAT_VERSION, record: Some(record) }
    }
}

impl TryFrom<v1::LogRecord> for LogRecord {
    type Error = ConvertError;
    fn try_from(wire: v1::LogRecord) -> Result<Self, ConvertError> {
        Ok(match wire.record.ok_or_else(unknown_variant)? {
            log_record::Record::Batch(batch) => Self::Batch(read(batch.stamped, "batch.stamped")?),
            log_record::Record::Membership(change) => Self::Membership(read(change, "membership")?),
        })
    }
}

wire_oneof!(SnapshotRecord => snapshot_record {
    values { Member "member", Object "object" }
    messages {
        Header "header" { cluster_id, revision, now_ms, feature_level }
        Request "request" { request_id, at_ms, outcome }
        Trailer "trailer" { digest_version, digest, records }
    }
});

impl From<&SnapshotRecord> for v1::SnapshotRecord {
    fn from(value: &SnapshotRecord) -> Self {
        Self { format_version: FORMAT_VERSION, variant: value.to_wire() }
    }
}

impl TryFrom<v1::SnapshotRecord> for SnapshotRecord {
    type Error = ConvertError;
    fn try_from(wire: v1::SnapshotRecord) -> Result<Self, ConvertError> {
        Self::from_wire(wire.variant)
    }
}
