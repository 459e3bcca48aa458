//! Laws of the codec and of conversion, for any content.

use bulkhead_proto::{ConvertError, ProtoCodec, strategies, v1};
use bulkhead_types::*;
use proptest::prelude::*;

/// A value becomes bytes and the same value again.
fn round_trip<D, W>(value: &D) -> Result<(), TestCaseError>
where
    D: PartialEq + Clone + std::fmt::Debug + TryFrom<W, Error = ConvertError>,
    W: prost::Message + Default + for<'a> From<&'a D>,
{
    let bytes = W::from(value).encode_to_vec();
    let wire = W::decode(bytes.as_slice()).expect("just encoded");
    prop_assert_eq!(&D::try_from(wire), &Ok(value.clone()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn log_records(record in strategies::log_record()) {
        let bytes = ProtoCodec.encode_log(&record);
        prop_assert_eq!(ProtoCodec.decode_log(&bytes), Ok(record));
    }

    #[test]
    fn transactions(transaction in strategies::transaction()) {
        let bytes = ProtoCodec.encode_transaction(&transaction);
        prop_assert_eq!(ProtoCodec.decode_transaction(&bytes), Ok(transaction));
    }

    #[test]
    fn snapshot_records(record in strategies::snapshot_record()) {
        let bytes = ProtoCodec.encode_snapshot_record(&record);
        prop_assert_eq!(ProtoCodec.decode_snapshot_record(&bytes), Ok(record));
    }

    #[test]
    fn objects(object in strategies::object()) {
        round_trip::<Object, v1::Object>(&object)?;
    }

    #[test]
    fn intents(intent in strategies::intent()) {
        round_trip::<Intent, v1::Intent>(&intent)?;
    }

    #[test]
    fn reports(report in strategies::agent_report()) {
        round_trip::<AgentReport, v1::AgentReport>(&report)?;
    }

    /// A field that this build does not know is never skipped, wherever it stands at the top.
    #[test]
    fn unknown_fields_are_refused(
        record in strategies::log_record(), number in 100u32..10_000, value in 0u8..0x80,
    ) {
        let mut bytes = ProtoCodec.encode_log(&record);
        prost::encoding::encode_key(number, prost::encoding::WireType::Varint, &mut bytes);
        bytes.push(value);
        prop_assert!(ProtoCodec.decode_log(&bytes).is_err());
    }

    /// Damage is an error or another record, never a panic; what is read is what would be written.
    #[test]
    fn damage_does_not_panic(record in strategies::log_record(), at: prop::sample::Index, bit in 0u8..8) {
        let mut bytes = ProtoCodec.encode_log(&record);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(read) = ProtoCodec.decode_log(&bytes) {
            prop_assert_eq!(ProtoCodec.encode_log(&read).len(), bytes.len());
        }
    }

    #[test]
    fn a_cut_record_is_refused(record in strategies::transaction(), at: prop::sample::Index) {
        let bytes = ProtoCodec.encode_transaction(&record);
        let cut = at.index(bytes.len());
        prop_assert!(ProtoCodec.decode_transaction(&bytes[..cut]).is_err());
    }

    #[test]
    fn any_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ProtoCodec.decode_log(&bytes);
        let _ = ProtoCodec.decode_snapshot_record(&bytes);
    }
}
