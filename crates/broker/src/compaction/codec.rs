//! The codecs of batches, for the log, which knows none.

use bytes::Bytes;
use holdfast_core::record_batch::Compression;
use holdfast_log::{Codec, CodecError};
use holdfast_proto::compression::{compress, decompress};

/// What producers and consumers use.
pub(super) struct Codecs;

impl Codec for Codecs {
    fn decompress(&self, compression: Compression, section: Bytes, max: usize) -> Result<Bytes, CodecError> {
        Ok(decompress(compression, section, max)?)
    }

    fn compress(&self, compression: Compression, section: &[u8]) -> Result<Vec<u8>, CodecError> {
        Ok(compress(compression, section)?)
    }
}
