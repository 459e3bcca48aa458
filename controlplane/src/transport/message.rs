//! Messages between servers as frames and back.

use bulkhead_controlplane_core::server::PeerMessage;
use bulkhead_proto::{ConvertError, Field, v1};
use bulkhead_types::{Command, MemberId};
use smol_str::SmolStr;
use v1::peer_frame::Frame;

pub(crate) fn to_frame(message: PeerMessage) -> v1::PeerFrame {
    let frame = match message {
        PeerMessage::Raft(bytes) => Frame::Raft(bytes.into()),
        PeerMessage::Digest { index, digest_version, digest } => {
            let digest = Some(v1::Digest { high: (digest >> 64) as u64, low: digest as u64 });
            Frame::Digest(v1::PeerDigest { index, digest_version, digest })
        }
        PeerMessage::Register(command) => match *command {
            Command::RegisterMember { member, storage_uid, address, version, feature_level_max } => {
                Frame::Register(v1::PeerRegister {
                    member: member.0,
                    storage_uid: storage_uid.to_wire(),
                    address: address.into(),
                    version: version.into(),
                    feature_level_max,
                })
            }
            other => unreachable!("servers register with RegisterMember, not {other:?}"),
        },
        PeerMessage::Removed => Frame::Removed(v1::PeerRemoved {}),
    };
    v1::PeerFrame { frame: Some(frame) }
}

/// What a frame says; `None` for a hello.
pub(crate) fn from_frame(frame: v1::PeerFrame) -> Result<Option<PeerMessage>, ConvertError> {
    Ok(Some(match frame.frame.ok_or_else(|| ConvertError::new("is empty").within("frame"))? {
        Frame::Hello(_) => return Ok(None),
        Frame::Raft(bytes) => PeerMessage::Raft(bytes.into()),
        Frame::Digest(digest) => {
            let v1::PeerDigest { index, digest_version, digest } = digest;
            let digest = digest.ok_or_else(|| ConvertError::new("is missing").within("digest"))?;
            let digest = u128::from(digest.high) << 64 | u128::from(digest.low);
            PeerMessage::Digest { index, digest_version, digest }
        }
        Frame::Register(register) => PeerMessage::Register(Box::new(Command::RegisterMember {
            member: MemberId(register.member),
            storage_uid: Field::from_wire(register.storage_uid)?,
            address: SmolStr::new(register.address),
            version: SmolStr::new(register.version),
            feature_level_max: register.feature_level_max,
        })),
        Frame::Removed(v1::PeerRemoved {}) => PeerMessage::Removed,
    }))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn every_message_survives_the_wire() {
        let register = Command::RegisterMember {
            member: MemberId(3),
            storage_uid: Uuid::from_u128(9),
            address: "a:1".into(),
            version: "1".into(),
            feature_level_max: 1,
        };
        for message in [
            PeerMessage::Raft(vec![1, 2, 3]),
            PeerMessage::Digest { index: 7, digest_version: 1, digest: u128::MAX - 5 },
            PeerMessage::Register(Box::new(register)),
            PeerMessage::Removed,
        ] {
            assert_eq!(from_frame(to_frame(message.clone())), Ok(Some(message)));
        }
        assert!(from_frame(v1::PeerFrame { frame: None }).is_err());
    }
}
