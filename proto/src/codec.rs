//! The log's bytes: see [`ProtoCodec`].

use bulkhead_types::{COMMANDS_MAX, ITEMS_MAX};
use bulkhead_types::{CodecError, Command, LogCodec, LogRecord, SnapshotRecord, Transaction};
use prost::Message;

use crate::v1;

/// The version that every record begins with. Raised only when old readers must not even try.
pub const FORMAT_VERSION: u32 = 1;

/// Most bytes of one Raft entry's content or one snapshot record.
pub const RECORD_BYTES_MAX: usize = 64 << 20;

/// The first bytes of every record: field 1, a varint, [`FORMAT_VERSION`].
const PREFIX: [u8; 2] = [0x08, FORMAT_VERSION as u8];
const _: () = assert!(FORMAT_VERSION < 0x80, "the prefix holds one varint byte");

/// Records as protobuf messages of `log.proto`.
///
/// Encoding is canonical: fields in number order, maps in key order, defaults left out. Decoding refuses
/// what a present writer would not have written: another version, a variant, enum number or field that this
/// build does not know, a default that is spelt out.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProtoCodec;

impl LogCodec for ProtoCodec {
    /// # Panics
    /// When a command holds more than [`ITEMS_MAX`] items, a submission more than [`COMMANDS_MAX`] commands,
    /// or the record more than [`RECORD_BYTES_MAX`] bytes: no replica could read it back.
    fn encode_log(&self, record: &LogRecord) -> Vec<u8> {
        assert_bounded(record);
        let bytes = v1::LogRecord::from(record).encode_to_vec();
        assert!(bytes.len() <= RECORD_BYTES_MAX, "a log record of {} bytes is too large", bytes.len());
        bytes
    }

    fn decode_log(&self, bytes: &[u8]) -> Result<LogRecord, CodecError> {
        decode::<v1::LogRecord, _>("log record", bytes, RECORD_BYTES_MAX)
    }

    fn encode_transaction(&self, transaction: &Transaction) -> Vec<u8> {
        let transaction = Some(transaction.into());
        v1::TransactionRecord { format_version: FORMAT_VERSION, transaction }.encode_to_vec()
    }

    fn decode_transaction(&self, bytes: &[u8]) -> Result<Transaction, CodecError> {
        // Made from a log record that fits; one command may fan out to many events, so no bound of its own.
        decode::<v1::TransactionRecord, _>("transaction", bytes, usize::MAX)
    }

    fn encode_snapshot_record(&self, record: &SnapshotRecord) -> Vec<u8> {
        v1::SnapshotRecord::from(record).encode_to_vec()
    }

    fn decode_snapshot_record(&self, bytes: &[u8]) -> Result<SnapshotRecord, CodecError> {
        decode::<v1::SnapshotRecord, _>("snapshot record", bytes, RECORD_BYTES_MAX)
    }
}

impl TryFrom<v1::TransactionRecord> for Transaction {
    type Error = crate::ConvertError;
    fn try_from(wire: v1::TransactionRecord) -> Result<Self, crate::ConvertError> {
        crate::convert::read(wire.transaction, "transaction")
    }
}

fn decode<W, T>(record: &'static str, bytes: &[u8], bytes_max: usize) -> Result<T, CodecError>
where
    W: Message + Default,
    T: TryFrom<W, Error = crate::ConvertError>,
{
    let fail = |reason: String| CodecError { record, reason };
    if bytes.len() > bytes_max {
        return Err(fail(format!("it has {} bytes; at most {bytes_max} are allowed", bytes.len())));
    }
    if !bytes.starts_with(&PREFIX) {
        let found = match bytes {
            [0x08, version, ..] => format!("format version {version}"),
            _ => "no format version".to_owned(),
        };
        return Err(fail(format!("it has {found}; this build reads version {FORMAT_VERSION}")));
    }
    let wire = W::decode(bytes).map_err(|e| fail(e.to_string()))?;
    // prost drops what it does not know. All that it keeps is written back in the least possible bytes, so
    // anything dropped, repeated or spelt out shows as a difference in length: no second copy is needed.
    let known = wire.encoded_len();
    if known != bytes.len() {
        return Err(fail(format!(
            "{known} of its {} bytes are of fields that this build knows",
            bytes.len()
        )));
    }
    T::try_from(wire).map_err(|e| fail(e.to_string()))
}

fn assert_bounded(record: &LogRecord) {
    let LogRecord::Batch(batch) = record else { return };
    for stamped in batch {
        assert!(stamped.commands.len() <= COMMANDS_MAX, "a submission has at most {COMMANDS_MAX} commands");
        assert!(
            stamped.preconditions.len() <= COMMANDS_MAX,
            "a submission has at most {COMMANDS_MAX} preconditions"
        );
        for command in &stamped.commands {
            assert!(items(command) <= ITEMS_MAX, "a command has at most {ITEMS_MAX} items");
        }
    }
}

fn items(command: &Command) -> usize {
    match command {
        Command::ReportPods { reports, .. } => reports.len(),
        Command::ReportVolumes { deleted, .. } => deleted.len(),
        Command::ReportVolumeTasks { results, .. } => results.len(),
        Command::Deschedule { pods, .. } => pods.len(),
        Command::SetSriovNodeState { spec, status, .. } => {
            spec.interfaces.len().max(status.interfaces.len()).max(status.blocked.len())
        }
        Command::ReportImages { images, .. } => images.images.len(),
        Command::ReportDevices { report, .. } => report.devices.len() + report.removed.len(),
        Command::CreatePods { names, .. } => names.len(),
        Command::DeletePods { pods, .. } => pods.len(),
        Command::BindPods { bindings } | Command::BindPodGroup { bindings } => bindings.len(),
        Command::SetPodsUnschedulable { pods } => pods.len(),
        Command::CollectGarbage { objects } => objects.len(),
        Command::InitCluster { members, .. } => members.len(),
        Command::Preempt { victims, .. } => victims.len(),
        Command::PreemptForGroup { nominations, victims } => nominations.len().max(victims.len()),
        Command::ClearNominations { pods } | Command::AdmitResizes { pods } => pods.len(),
        Command::ResizePod { containers, .. } => containers.len(),
        Command::CreateOwnedPods { pods, .. } => pods.len(),
        Command::DeleteOwned { objects, .. } => objects.len(),
        Command::DeleteOwnedPods { pods, .. } => pods.len(),
        Command::Create(_)
        | Command::Apply(_)
        | Command::SyncDeviceLabels { .. }
        | Command::Delete { .. }
        | Command::Scale { .. }
        | Command::SetPaused { .. }
        | Command::UndoRollout { .. }
        | Command::RestartRollout { .. }
        | Command::SetUnschedulable { .. }
        | Command::SetDeviceCordoned { .. }
        | Command::SetGpuMode { .. }
        | Command::SyncNodePool { .. }
        | Command::AdvanceNodeOperation { .. }
        | Command::ControlNodeOperation { .. }
        | Command::SetSuspended { .. }
        | Command::RunCronJob { .. }
        | Command::SetStopped { .. }
        | Command::Update { .. }
        | Command::CreateOwned { .. }
        | Command::SetStatus { .. }
        | Command::SetControllerRevision { .. }
        | Command::Autoscale { .. }
        | Command::ScaleBySchedule { .. }
        | Command::Evict { .. }
        | Command::Recommend { .. }
        | Command::PromoteRollout { .. }
        | Command::AbortRollout { .. }
        | Command::RetryRollout { .. }
        | Command::AdvanceDelivery { .. }
        | Command::SpreadReplicas { .. }
        | Command::RegisterNode { .. }
        | Command::CreateReplicaSet { .. }
        | Command::SetRolloutRevision { .. }
        | Command::ScaleReplicaSet { .. }
        | Command::SetDeploymentStatus { .. }
        | Command::SetReplicaSetStatus { .. }
        | Command::SetNodePhase { .. }
        | Command::RaiseFeatureLevel { .. }
        | Command::RegisterMember { .. } => 0,
    }
}
