//! The codecs of record batches, as Kafka writes them: gzip, snappy in xerial framing, lz4 frames, zstd.
//!
//! Brokers store what producers compressed; only clients, and brokers that answer in plain records, decompress.
//!
//! Invariant: decompressing never yields nor holds more than `max_output` bytes, whatever the input claims, and the
//! codecs' own windows are bounded (zstd and lz4: 8 MiB).

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};
use holdfast_core::record_batch::Compression;

/// zstd's level: at this one it is faster than a network between zones, and its ratio is close to the default's.
const ZSTD_LEVEL: i32 = 1;
/// Largest zstd window taken, as the power of two: 8 MiB.
const ZSTD_WINDOW_LOG: u32 = 23;
/// What a reader is given at once.
const CHUNK: usize = 64 << 10;

/// Start of xerial's snappy framing: the magic, then version 1 and lowest compatible version 1 as i32.
const XERIAL_HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
/// The part of the header that tells xerial framing from a raw block.
const XERIAL_MAGIC: usize = 8;
/// Input bytes per xerial block, as the Java library cuts them.
const XERIAL_BLOCK: usize = 32 << 10;

/// Why bytes could not be compressed or decompressed.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// The output would be larger than the caller takes.
    #[error("{codec:?} data expands beyond the limit of {limit} bytes")]
    TooLarge {
        /// The codec.
        codec: Compression,
        /// The limit in bytes, inclusive.
        limit: usize,
    },
    /// The codec refuses the bytes.
    #[error("malformed {codec:?} data")]
    Malformed {
        /// The codec.
        codec: Compression,
        /// What the codec says.
        #[source]
        source: io::Error,
    },
}

/// Compresses a record section. [`Compression::None`] copies it.
///
/// # Errors
/// None for input that fits memory; what the codec's library reports is passed on.
pub fn compress(codec: Compression, input: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let result = match codec {
        Compression::None => Ok(input.to_vec()),
        Compression::Gzip => compress_gzip(input),
        Compression::Snappy => compress_xerial(input),
        Compression::Lz4 => compress_lz4(input),
        Compression::Zstd => zstd::bulk::compress(input, ZSTD_LEVEL),
    };
    result.map_err(|source| CompressionError::Malformed { codec, source })
}

/// Decompresses a record section of at most `max_output` bytes (inclusive). [`Compression::None`] shares the input.
///
/// # Errors
/// [`CompressionError::TooLarge`] as soon as the limit is passed, [`CompressionError::Malformed`] where the codec
/// refuses the bytes or something follows them.
pub fn decompress(codec: Compression, input: Bytes, max_output: usize) -> Result<Bytes, CompressionError> {
    let malformed = |source| CompressionError::Malformed { codec, source };
    match codec {
        Compression::None if input.len() > max_output => {
            Err(CompressionError::TooLarge { codec, limit: max_output })
        }
        Compression::None => Ok(input),
        Compression::Gzip => {
            read_bounded(codec, flate2::bufread::MultiGzDecoder::new(&input[..]), max_output)
        }
        Compression::Snappy => decompress_snappy(&input, max_output),
        Compression::Lz4 => decompress_lz4(&input, max_output),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&input[..]).map_err(malformed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(malformed)?;
            read_bounded(codec, decoder, max_output)
        }
    }
}

/// Reads to the end, and stops at the first byte above the limit.
fn read_bounded(codec: Compression, reader: impl Read, max_output: usize) -> Result<Bytes, CompressionError> {
    let mut output = Vec::with_capacity(CHUNK.min(max_output));
    let limit = u64::try_from(max_output).unwrap_or(u64::MAX).saturating_add(1);
    reader
        .take(limit)
        .read_to_end(&mut output)
        .map_err(|source| CompressionError::Malformed { codec, source })?;
    if output.len() > max_output {
        return Err(CompressionError::TooLarge { codec, limit: max_output });
    }
    Ok(Bytes::from(output))
}

fn compress_gzip(input: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(input)?;
    encoder.finish()
}

/// Independent blocks: Kafka's Java client reads no others.
fn compress_lz4(input: &[u8]) -> io::Result<Vec<u8>> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(input)?;
    encoder.finish().map_err(io::Error::other)
}

fn decompress_lz4(input: &[u8], max_output: usize) -> Result<Bytes, CompressionError> {
    let mut rest = input;
    let output = read_bounded(Compression::Lz4, lz4_flex::frame::FrameDecoder::new(&mut rest), max_output)?;
    if !rest.is_empty() {
        return Err(invalid(Compression::Lz4, "bytes follow the frame"));
    }
    if !ends_with_mark(input) {
        return Err(invalid(Compression::Lz4, "cut short"));
    }
    Ok(output)
}

/// Whether an lz4 frame ends with its end mark, which the decoder takes as optional: four zero bytes, in front of the
/// content checksum where bit 2 of the flags, byte 4 of the frame, announces one.
fn ends_with_mark(frame: &[u8]) -> bool {
    let checksum = if frame.get(4).is_some_and(|flags| flags & 0x04 != 0) { 4 } else { 0 };
    frame.len().checked_sub(checksum).is_some_and(|end| frame[..end].ends_with(&[0; 4]))
}

fn compress_xerial(input: &[u8]) -> io::Result<Vec<u8>> {
    let mut output = XERIAL_HEADER.to_vec();
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(XERIAL_BLOCK) {
        let compressed = encoder.compress_vec(block).map_err(io::Error::other)?;
        // A block grows by a sixth at most, so its length fits by far.
        output.extend_from_slice(&(compressed.len() as u32).to_be_bytes());
        output.extend_from_slice(&compressed);
    }
    Ok(output)
}

/// Xerial framing as the Java clients write it, or one raw block as some others do.
fn decompress_snappy(input: &[u8], max_output: usize) -> Result<Bytes, CompressionError> {
    let mut output = Vec::new();
    if !input.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC]) {
        append_snappy_block(input, &mut output, max_output)?;
        return Ok(Bytes::from(output));
    }
    let short = || invalid(Compression::Snappy, "cut short");
    let mut rest = input.get(XERIAL_HEADER.len()..).ok_or_else(short)?;
    while !rest.is_empty() {
        let length = rest.try_get_u32().map_err(|_| short())? as usize;
        let block = rest.get(..length).ok_or_else(short)?;
        append_snappy_block(block, &mut output, max_output)?;
        rest.advance(length);
    }
    Ok(Bytes::from(output))
}

fn append_snappy_block(
    block: &[u8],
    output: &mut Vec<u8>,
    max_output: usize,
) -> Result<(), CompressionError> {
    let codec = Compression::Snappy;
    let malformed =
        |error: snap::Error| CompressionError::Malformed { codec, source: io::Error::other(error) };
    let length = snap::raw::decompress_len(block).map_err(malformed)?;
    let start = output.len();
    if length > max_output - start {
        return Err(CompressionError::TooLarge { codec, limit: max_output });
    }
    // No snappy element yields more than 64 bytes: a claim beyond that is false and not worth the memory.
    if length > block.len().saturating_mul(64) {
        return Err(invalid(codec, "claims more than it can hold"));
    }
    output.resize(start + length, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut output[start..]).map_err(malformed)?;
    output.truncate(start + written);
    Ok(())
}

fn invalid(codec: Compression, problem: &'static str) -> CompressionError {
    CompressionError::Malformed { codec, source: io::Error::new(io::ErrorKind::InvalidData, problem) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CODECS: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    fn sample(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index * index / 7 % 251) as u8).collect()
    }

    #[test]
    fn every_codec_reads_back_what_it_wrote() {
        for codec in CODECS {
            for length in [0, 1, 100, XERIAL_BLOCK, XERIAL_BLOCK + 1, 300_000] {
                let input = sample(length);
                let packed = Bytes::from(compress(codec, &input).unwrap());
                assert_eq!(decompress(codec, packed, length).unwrap(), input, "{codec:?} {length}");
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let zeros = vec![0; 64 << 20];
        for codec in CODECS {
            let packed = Bytes::from(compress(codec, &zeros).unwrap());
            let result = decompress(codec, packed, 1 << 20);
            assert!(
                matches!(result, Err(CompressionError::TooLarge { limit: 1_048_576, .. })),
                "{codec:?} gave {result:?}"
            );
        }
    }

    #[test]
    fn cut_off_data_is_malformed() {
        for codec in &CODECS[1..] {
            let packed = compress(*codec, &sample(100_000)).unwrap();
            for keep in [packed.len() - 1, packed.len() / 2, 5] {
                let result = decompress(*codec, Bytes::copy_from_slice(&packed[..keep]), 1 << 20);
                assert!(result.is_err(), "{codec:?} took {keep} of {} bytes", packed.len());
            }
        }
    }

    #[test]
    fn raw_snappy_is_read_too() {
        let input = sample(5000);
        let raw = snap::raw::Encoder::new().compress_vec(&input).unwrap();
        assert_eq!(decompress(Compression::Snappy, Bytes::from(raw), 5000).unwrap(), input);
    }

    #[test]
    fn a_snappy_block_that_claims_too_much_allocates_nothing() {
        let claim = Bytes::from_static(&[0xff, 0xff, 0xff, 0x7f, 0x00]);
        assert!(decompress(Compression::Snappy, claim.clone(), usize::MAX).is_err());
        assert!(matches!(
            decompress(Compression::Snappy, claim, 1 << 20),
            Err(CompressionError::TooLarge { .. })
        ));
    }

    proptest! {
        #[test]
        fn garbage_never_panics_nor_exceeds_the_limit(mut input: Vec<u8>, codec in 0_usize..5, framed: bool) {
            let codec = CODECS[codec];
            if framed {
                let mut start = compress(codec, b"some bytes to begin with").unwrap();
                start.append(&mut input);
                input = start;
            }
            if let Ok(output) = decompress(codec, Bytes::from(input), 1000) {
                prop_assert!(output.len() <= 1000);
            }
        }

        #[test]
        fn a_flipped_byte_never_panics(at: prop::sample::Index, bits: u8, codec in 1_usize..5) {
            let codec = CODECS[codec];
            let mut packed = compress(codec, &sample(2000)).unwrap();
            let at = at.index(packed.len());
            packed[at] ^= bits;
            if let Ok(output) = decompress(codec, Bytes::from(packed), 4000) {
                prop_assert!(output.len() <= 4000);
            }
        }
    }
}
