//! Records of compacted topics have keys: without one nothing says what a record stands for, and it would stay for ever.
//!
//! Looked at where the partition is led, before anything is appended. A batch that is compressed is decompressed for it, on a
//! thread of its own and within bounds; what cannot be decompressed here could be compacted nowhere.

use holdfast_core::ErrorCode;
use holdfast_core::record_batch::{Compression, RecordBatch, RecordIter};
use holdfast_proto::ApiError;
use holdfast_proto::compression::{CompressionError, decompress};
use tokio::time::Instant;

use super::fetch::MOST_DECOMPRESSED;
use super::{Room, batch_error};

/// Bytes of batches that may be decompressed for this at once.
pub(crate) const KEYS_ROOM: u64 = 64 << 20;

/// Refuses a batch with a record that has no key.
pub(super) async fn check_keys(
    room: &Room,
    topic: &str,
    batch: &RecordBatch,
    deadline: Instant,
) -> Result<(), ApiError> {
    if batch.header().compression() == Compression::None {
        return find_keyless(batch).and_then(|found| refuse(topic, found));
    }
    let held = room.take(MOST_DECOMPRESSED, deadline).await.map_err(|error| {
        let problem = "too many compressed batches for compacted topics at this broker: nothing was appended, try again";
        ApiError { message: problem.to_owned(), ..error }
    })?;
    let batch = batch.clone();
    let looking = tokio::task::spawn_blocking(move || {
        let _held = held;
        find_keyless(&batch)
    });
    let found =
        looking.await.map_err(|_| ApiError::new(ErrorCode::Internal, "the batch could not be looked at"));
    found?.and_then(|found| refuse(topic, found))
}

/// The number in its batch of the first record without a key.
fn find_keyless(batch: &RecordBatch) -> Result<Option<u32>, ApiError> {
    let header = *batch.header();
    let section = decompress(header.compression(), batch.section(), MOST_DECOMPRESSED).map_err(|error| {
        let code = match error {
            CompressionError::TooLarge { .. } => ErrorCode::BatchTooLarge,
            CompressionError::Malformed { .. } => ErrorCode::CorruptBatch,
        };
        ApiError::new(code, format!("record batch refused, nothing was appended: {error}"))
    })?;
    // To the end: a batch that cannot be read whole is refused, too.
    let mut keyless = None;
    for record in RecordIter::new(header, section) {
        let record = record.map_err(|error| batch_error(&error))?;
        if record.key.is_none() {
            keyless = keyless.or(Some(record.offset_delta));
        }
    }
    Ok(keyless)
}

fn refuse(topic: &str, keyless: Option<u32>) -> Result<(), ApiError> {
    let Some(record) = keyless else { return Ok(()) };
    let message = format!(
        "record {record} of the batch has no key, nothing of the batch was appended: topic {topic:?} is compacted, so every \
         record needs a key"
    );
    Err(ApiError::new(ErrorCode::InvalidRecord, message).with("record", record))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_core::record_batch::RecordBatchBuilder;
    use holdfast_proto::compression::compress;

    use super::*;

    fn batch(keys: &[Option<&str>], value: &[u8], compression: Compression) -> RecordBatch {
        let mut builder = RecordBatchBuilder::new();
        for key in keys {
            builder.push(1000, key.map(str::as_bytes), Some(value), &[]).unwrap();
        }
        let built: Result<_, Box<dyn std::error::Error>> =
            builder.finish_with(None, compression, |section| Ok(compress(compression, section)?));
        built.unwrap()
    }

    async fn check(batch: &RecordBatch) -> Result<(), ErrorCode> {
        let deadline = Instant::now() + Duration::from_secs(5);
        check_keys(&Room::new(KEYS_ROOM), "t", batch, deadline).await.map_err(|error| error.code)
    }

    #[tokio::test]
    async fn a_record_without_a_key_is_found_whatever_the_codec_and_an_empty_key_is_one() {
        for codec in
            [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
        {
            let keyed = batch(&[Some("a"), Some(""), Some("b")], b"value", codec);
            assert_eq!(check(&keyed).await, Ok(()), "{codec:?}");
            let keyless = batch(&[Some("a"), Some("b"), None], b"value", codec);
            assert_eq!(check(&keyless).await, Err(ErrorCode::InvalidRecord), "{codec:?}");
        }
    }

    #[tokio::test]
    async fn what_expands_beyond_all_bounds_or_is_no_batch_is_refused() {
        let zeros = vec![0; 6 << 20];
        let bomb = batch(&[Some("a"), Some("b"), Some("c")], &zeros, Compression::Zstd);
        assert_eq!(check(&bomb).await, Err(ErrorCode::BatchTooLarge));
        let mut garbage = RecordBatchBuilder::new();
        garbage.push(1000, Some(b"a"), Some(b"value"), &[]).unwrap();
        let built: Result<RecordBatch, Box<dyn std::error::Error>> =
            garbage.finish_with(None, Compression::Zstd, |section| Ok(section.to_vec()));
        assert_eq!(check(&built.unwrap()).await, Err(ErrorCode::CorruptBatch));
    }
}
