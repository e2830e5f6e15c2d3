//! The types that openraft is instantiated with, and how they are written down.

use std::io::Cursor;

use holdfast_core::metadata::{Applied, Command, MetadataError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// First byte of every postcard encoding of an openraft type, on disk and on the wire. openraft 0.10 lays votes and
/// ids out differently: it will have another number.
const ENCODING: u8 = 1;

/// What a log entry did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Response {
    /// The entry's result; `Applied::Done` for entries that carry no command.
    pub(crate) result: Result<Applied, MetadataError>,
}

/// Where a voter is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    /// `host:port`.
    pub(crate) endpoint: String,
    /// Its zone.
    pub(crate) zone: String,
}

openraft::declare_raft_types!(
    /// Metadata commands, agreed on by controllers.
    pub(crate) TypeConfig:
        D = Command,
        R = Response,
        NodeId = u64,
        Node = Node,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = openraft::TokioRuntime,
);

pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type StoredMembership = openraft::StoredMembership<u64, Node>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type StorageIOError = openraft::StorageIOError<u64>;
pub(crate) type RaftError<E = openraft::error::Infallible> = openraft::error::RaftError<u64, E>;

/// Bytes that are not what they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("encoding version {found:?} is not {ENCODING}: it was written by another version of holdfast")]
    Version { found: Option<u8> },
    #[error("postcard: {0}")]
    Postcard(#[from] postcard::Error),
    #[error("{0} bytes follow the value")]
    Trailing(usize),
}

/// Encodes behind the version byte.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    Ok(postcard::to_extend(value, vec![ENCODING])?)
}

/// Decodes exactly one value.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let Some((&ENCODING, rest)) = bytes.split_first() else {
        return Err(CodecError::Version { found: bytes.first().copied() });
    };
    let (value, rest) = postcard::take_from_bytes(rest)?;
    if rest.is_empty() { Ok(value) } else { Err(CodecError::Trailing(rest.len())) }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use openraft::testing::log_id;

    use super::*;

    #[test]
    fn entries_read_back_and_damage_is_an_error() {
        let entry = Entry {
            log_id: log_id(3, 1, 7),
            payload: EntryPayload::Normal(Command::AllocateProducerIds { count: 5 }),
        };
        let bytes = encode(&entry).unwrap();
        assert_eq!(decode::<Entry>(&bytes).unwrap(), entry);
        assert!(decode::<Entry>(&bytes[..bytes.len() - 1]).is_err());
        assert!(decode::<Entry>(&[bytes.as_slice(), &[0]].concat()).is_err());
        assert!(decode::<Entry>(&[]).is_err());
        assert!(decode::<Entry>(&[&[9], &bytes[1..]].concat()).is_err());
    }
}
