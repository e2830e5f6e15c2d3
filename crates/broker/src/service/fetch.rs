//! Reading below the high watermark, and finding offsets.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holdfast_core::metadata::Broker;
use holdfast_core::record_batch::{RecordBatch, RecordIter};
use holdfast_core::{ErrorCode, Offset, PartitionId};
use holdfast_log::repair::WholeBatches;
use holdfast_log::{ByteSize, LogError};
use holdfast_proto::ApiError;
use holdfast_proto::compression::decompress;
use holdfast_proto::transport::MAX_CLIENT_MESSAGE;
use holdfast_proto::v1::fetch_service_server::FetchService;
use holdfast_proto::v1::list_offset_request::At;
use holdfast_proto::v1::offset_service_client::OffsetServiceClient;
use holdfast_proto::v1::offset_service_server::OffsetService;
use holdfast_proto::v1::{
    FetchRequest, FetchResponse, Header, ListOffsetRequest, ListOffsetResponse, Record, RecordFormat, Routing,
};
use http::uri::PathAndQuery;
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::held::Held;
use super::{LEADER_CHANGE_PAUSE, ServiceContext, ending, invalid, through_leader_changes};
use crate::partition::PartitionHandle;
use crate::repair::{Outcome, is_repairable};

const DEFAULT_BYTES: u32 = 1 << 20;
const MOST_BYTES: u32 = 16 << 20;
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long a caller that leaves finding the leader to us waits for one.
const LEADER_PATIENCE: Duration = Duration::from_secs(5);
/// How long a request for an offset waits for a new leader to know its high watermark.
const OFFSET_PATIENCE: Duration = Duration::from_secs(5);
/// How long whoever reads waits for the repair of what is damaged, and when it may come back after that.
const REPAIR_PATIENCE: Duration = Duration::from_secs(2);
const REPAIR_PAUSE: Duration = Duration::from_millis(200);
/// The most that one batch may become when decompressed for a client without a decoder.
pub(crate) const MOST_DECOMPRESSED: usize = 16 << 20;
/// The most that a response with plain records may hold, below what a message may.
const MOST_PLAIN: usize = 18 << 20;

/// `FetchService` and `OffsetService`.
#[derive(Clone)]
pub(crate) struct FetchApi {
    pub(crate) context: Arc<ServiceContext>,
}

#[tonic::async_trait]
impl FetchService for FetchApi {
    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<FetchResponse>, Status> {
        let request = request.into_inner();
        let wait = Duration::from_millis(u64::from(request.max_wait_ms)).min(LONGEST_WAIT);
        let deadline = Instant::now() + wait;
        let patience = deadline.max(Instant::now() + LEADER_PATIENCE);
        let attempt = || fetch(&self.context, request.clone(), deadline);
        let (answer, held) = through_leader_changes(request.routing(), patience, attempt).await?;
        let mut response = Response::new(answer);
        held.attach(&mut response);
        Ok(response)
    }
}

#[tonic::async_trait]
impl OffsetService for FetchApi {
    async fn list_offset(
        &self,
        request: Request<ListOffsetRequest>,
    ) -> Result<Response<ListOffsetResponse>, Status> {
        let request = request.into_inner();
        let patience = Instant::now() + LEADER_PATIENCE;
        let attempt = || list_offset(&self.context, request.clone());
        let response = through_leader_changes(request.routing(), patience, attempt).await?;
        Ok(Response::new(response))
    }
}

async fn fetch(
    context: &ServiceContext,
    request: FetchRequest,
    deadline: Instant,
) -> Result<(FetchResponse, Held), ApiError> {
    let map = context.map.current();
    let partition = context.resolve(&map, &request.topic, &request.topic_id, request.partition)?;
    match (servable(context, partition, request.allow_follower), context.remote_leader(&map, partition)) {
        (Some(handle), _) => fetch_here(context, partition, handle, &request, deadline).await,
        (None, Some(leader)) if request.routing() != Routing::Redirect => {
            forward(context, request, leader, deadline).await
        }
        _ => Err(context.not_leader(&map, partition)),
    }
}

pub(crate) async fn fetch_here(
    context: &ServiceContext,
    partition: PartitionId,
    handle: Arc<PartitionHandle>,
    request: &FetchRequest,
    deadline: Instant,
) -> Result<(FetchResponse, Held), ApiError> {
    let from = Offset(request.offset);
    let end = wait_for_records(context, &handle, from, deadline).await?;
    // Only now: a request that waits for records holds no room.
    let most = most_of_answer(request, context.config.max_batch_size);
    let mut held = context.fetch_room.take(most, deadline).await?;
    let mut answer = read(Arc::clone(&handle), request, from, end).await;
    if let Err(ReadError::Log(error)) = &answer
        && is_repairable(error)
    {
        repaired(context, partition, &handle, from).await?;
        answer = read(Arc::clone(&handle), request, from, end).await;
    }
    let answer = answer.map_err(|error| match error {
        ReadError::Log(error) if is_repairable(&error) => damaged(from),
        ReadError::Log(error) => log_error(&error),
        ReadError::Refused(error) => error,
    })?;
    held.shrink_to(size_of_answer(&answer));
    Ok((answer, held))
}

/// Why nothing was read.
enum ReadError {
    Log(LogError),
    Refused(ApiError),
}

/// Has what is damaged here fetched from other replicas, and waits for it for a while: that is sooner done than whoever
/// reads has found another replica.
async fn repaired(
    context: &ServiceContext,
    partition: PartitionId,
    handle: &PartitionHandle,
    from: Offset,
) -> Result<(), ApiError> {
    if handle.status.has_changed().is_err() {
        // Deleted meanwhile: nothing is wrong with the replica that may be here by now.
        return Err(gone());
    }
    match context.repairs.repair(partition, from, Instant::now() + REPAIR_PATIENCE).await {
        Outcome::Whole => Ok(()),
        Outcome::Gone => Err(gone()),
        Outcome::Failed => Err(replica_failed()),
        Outcome::Pending | Outcome::Unrepaired | Outcome::Lost => Err(damaged(from)),
    }
}

/// What the answer to a request may take in memory: a batch that is larger than asked for is answered as a whole.
fn most_of_answer(request: &FetchRequest, max_batch: ByteSize) -> usize {
    let max_batch = usize::try_from(max_batch.0).unwrap_or(usize::MAX);
    let batches = max_batch.max(most_bytes(request) as usize);
    if request.format() == RecordFormat::Records { batches + MOST_PLAIN } else { batches }
}

fn size_of_answer(answer: &FetchResponse) -> usize {
    let size = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let record = |record: &Record| {
        let headers = record.headers.iter().map(|header| header.key.len() + size(&header.value));
        size_of::<Record>() + size(&record.key) + size(&record.value) + headers.sum::<usize>()
    };
    answer.batches.len() + answer.records.iter().map(record).sum::<usize>()
}

fn most_bytes(request: &FetchRequest) -> u32 {
    if request.max_bytes == 0 { DEFAULT_BYTES } else { request.max_bytes.min(MOST_BYTES) }
}

/// The replica here, if it may answer: the leader, or a follower that is fresh (R30).
fn servable(
    context: &ServiceContext,
    partition: PartitionId,
    allow_follower: bool,
) -> Option<Arc<PartitionHandle>> {
    let handle = context.partitions.get(partition)?;
    let status = handle.status.borrow().clone();
    let stale_after = context.config.replication.follower_read_staleness;
    let fresh = status.heard.is_some_and(|heard| context.clock.now().since(heard) < stale_after);
    let servable = !status.failed && (status.active || (allow_follower && fresh));
    servable.then_some(handle)
}

/// The end of what can be read, once it lies beyond `from`, or at the deadline. A position above it means "wait" (R31):
/// a fresh leader's high watermark lags until its marker is committed.
async fn wait_for_records(
    context: &ServiceContext,
    handle: &PartitionHandle,
    from: Offset,
    deadline: Instant,
) -> Result<Offset, ApiError> {
    let mut status = handle.status.clone();
    loop {
        // Looked at once, and marked as seen in that moment: what changes afterwards ends the waiting.
        let (failed, settled, log_end, high_watermark) = {
            let status = status.borrow_and_update();
            (status.failed, status.settled, status.log_end_offset, status.high_watermark)
        };
        let end = high_watermark.min(handle.reader.log_end_offset());
        let start = handle.reader.log_start_offset();
        if from < start || (settled && from > log_end) {
            return Err(out_of_range(from, start, end));
        }
        if failed {
            return Err(replica_failed());
        }
        if end > from {
            return Ok(end);
        }
        tokio::select! {
            changed = status.changed() => changed.map_err(|_| gone())?,
            () = tokio::time::sleep_until(deadline) => return Ok(end),
            () = context.ending.cancelled() => return Ok(end),
        }
    }
}

async fn read(
    handle: Arc<PartitionHandle>,
    request: &FetchRequest,
    from: Offset,
    end: Offset,
) -> Result<FetchResponse, ReadError> {
    let max_bytes = most_bytes(request) as usize;
    let plain = request.format() == RecordFormat::Records;
    let mut response = FetchResponse {
        high_watermark: end.0,
        log_start_offset: handle.reader.log_start_offset().0,
        next_offset: from.0,
        ..FetchResponse::default()
    };
    if from >= end {
        return Ok(response);
    }
    if !plain && let Some(batches) = handle.read_newest(from, end, max_bytes) {
        if let Some(last) = batches.last() {
            response.next_offset = last.header().next_offset().0;
        }
        response.batches = joined(&batches);
        return Ok(response);
    }
    let reading = tokio::task::spawn_blocking(move || {
        if plain {
            return read_plain(&handle, response, end, max_bytes);
        }
        // Checked before it is served: a consumer never gets what the disk made of a batch.
        let whole = handle.reader.read_verified(from, end, max_bytes).map_err(ReadError::Log)?;
        if let Some(last) = whole.batches.last() {
            response.next_offset = last.header().next_offset().0;
        }
        response.batches = whole.bytes;
        Ok(response)
    });
    reading.await.unwrap_or_else(|_| Err(ReadError::Refused(gone())))
}

/// The records from the response's next offset on. Batches without any, which compaction and leaders leave, are passed: who
/// reads in plain form takes an answer without records for the end.
fn read_plain(
    handle: &PartitionHandle,
    mut response: FetchResponse,
    end: Offset,
    max_bytes: usize,
) -> Result<FetchResponse, ReadError> {
    let first = response.next_offset;
    while response.records.is_empty() && response.next_offset < end.0 {
        let from = Offset(response.next_offset);
        let WholeBatches { batches, .. } = match handle.reader.read_verified(from, end, max_bytes) {
            Ok(whole) => whole,
            // Whoever asks for what comes next meets it again.
            Err(_) if from.0 > first => break,
            Err(error) => return Err(ReadError::Log(error)),
        };
        let Some(last) = batches.last() else { break };
        let (records, stopped_at) = records(&batches, from, MOST_PLAIN).map_err(ReadError::Refused)?;
        response.records = records;
        response.next_offset = stopped_at.unwrap_or(last.header().next_offset()).0;
    }
    Ok(response)
}

/// Batches end to end. One alone is not copied.
fn joined(batches: &[RecordBatch]) -> Bytes {
    if let [batch] = batches {
        return batch.bytes().clone();
    }
    let mut joined = BytesMut::with_capacity(batches.iter().map(|batch| batch.bytes().len()).sum());
    batches.iter().for_each(|batch| joined.extend_from_slice(batch.bytes()));
    joined.freeze()
}

/// For clients without a decoder: up to `limit` bytes of records but at least one, and the offset of the first that was
/// left out. Counted as sent, because what is small in a batch may be more than a message takes.
fn records(
    batches: &[RecordBatch],
    from: Offset,
    limit: usize,
) -> Result<(Vec<Record>, Option<Offset>), ApiError> {
    let (mut records, mut size) = (Vec::new(), 0);
    for batch in batches.iter().filter(|batch| !batch.header().is_control()) {
        let header = *batch.header();
        let unreadable = |problem: String| {
            ApiError::new(
                ErrorCode::CorruptBatch,
                format!(
                    "the batch at offset {} cannot be decoded: {problem}; fetch it as a batch",
                    header.base_offset
                ),
            )
        };
        let section = decompress(header.compression(), batch.section(), MOST_DECOMPRESSED)
            .map_err(|error| unreadable(error.to_string()))?;
        for record in RecordIter::new(header, section) {
            let record = record.map_err(|error| unreadable(error.to_string()))?;
            let offset = header.base_offset + u64::from(record.offset_delta);
            if offset < from {
                continue;
            }
            size += size_on_the_wire(&record);
            if size > limit && !records.is_empty() {
                return Ok((records, Some(offset)));
            }
            records.push(plain_record(offset, record));
        }
    }
    Ok((records, None))
}

/// No less than what the record takes in a response: its bytes, tags, lengths and numbers.
fn size_on_the_wire(record: &holdfast_core::record_batch::Record) -> usize {
    let size = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    // What is not UTF-8 in a header's name may become three times as long.
    let headers = record.headers.iter().map(|header| 3 * header.key.len() + size(&header.value) + 20);
    size(&record.key) + size(&record.value) + headers.sum::<usize>() + 40
}

fn plain_record(offset: Offset, record: holdfast_core::record_batch::Record) -> Record {
    let text = |key: Bytes| String::from_utf8_lossy(&key).into_owned();
    let headers = record.headers.into_iter();
    Record {
        key: record.key,
        value: record.value,
        headers: headers.map(|header| Header { key: text(header.key), value: header.value }).collect(),
        timestamp_ms: record.timestamp,
        offset: offset.0,
    }
}

/// Asks the leader. Nobody knows how long a request waits for records over there, so room is taken when the answer comes:
/// its head says so, and its body waits at the leader until there is.
async fn forward(
    context: &ServiceContext,
    request: FetchRequest,
    leader: &Broker,
    deadline: Instant,
) -> Result<(FetchResponse, Held), ApiError> {
    let most = most_of_answer(&request, context.config.max_batch_size);
    let left = deadline.saturating_duration_since(Instant::now());
    let request = FetchRequest {
        routing: Routing::Redirect.into(),
        max_wait_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
        ..request
    };
    let channel = context.channel_to(leader)?;
    let forwarded = async {
        let mut body = begin_fetch(channel, request).await?.into_inner();
        let mut held = context.fetch_room.take(most, deadline).await?;
        let answer = body.message().await.map_err(|status| ApiError::from_status(&status))?;
        let answer =
            answer.ok_or_else(|| ApiError::new(ErrorCode::Unavailable, "the leader sent no answer"))?;
        held.shrink_to(size_of_answer(&answer));
        Ok((answer, held))
    };
    tokio::select! {
        answered = forwarded => answered,
        () = context.ending.cancelled() => Err(ending()),
    }
}

/// `FetchService.Fetch` up to the head of its answer, which the generated client does not stop at. One answer looks the
/// same on the wire as a stream of one.
async fn begin_fetch(
    channel: Channel,
    request: FetchRequest,
) -> Result<Response<Streaming<FetchResponse>>, ApiError> {
    let mut client = Grpc::new(channel)
        .max_decoding_message_size(MAX_CLIENT_MESSAGE)
        .max_encoding_message_size(MAX_CLIENT_MESSAGE);
    let refused = |status: Status| ApiError::from_status(&status);
    client.ready().await.map_err(|error| refused(Status::from_error(Box::new(error))))?;
    let path = PathAndQuery::from_static("/holdfast.v1.FetchService/Fetch");
    let codec = ProstCodec::<FetchRequest, FetchResponse>::default();
    client.server_streaming(Request::new(request), path, codec).await.map_err(refused)
}

async fn list_offset(
    context: &ServiceContext,
    request: ListOffsetRequest,
) -> Result<ListOffsetResponse, ApiError> {
    let at = request.at.ok_or_else(|| invalid("one of earliest, latest and timestamp_ms is needed"))?;
    let map = context.map.current();
    let partition = context.resolve(&map, &request.topic, &request.topic_id, request.partition)?;
    let Some(handle) = servable(context, partition, false) else {
        return match context.remote_leader(&map, partition) {
            Some(leader) if request.routing() != Routing::Redirect => {
                let mut client = OffsetServiceClient::new(context.channel_to(leader)?);
                let request = ListOffsetRequest { routing: Routing::Redirect.into(), ..request };
                let response = client.list_offset(request).await;
                response.map(Response::into_inner).map_err(|status| ApiError::from_status(&status))
            }
            _ => Err(context.not_leader(&map, partition)),
        };
    };
    if matches!(at, At::Earliest(_)) {
        return Ok(ListOffsetResponse { offset: handle.reader.log_start_offset().0 });
    }
    let end = settled_end(context, &handle, partition).await?;
    let At::TimestampMs(timestamp_ms) = at else { return Ok(ListOffsetResponse { offset: end.0 }) };
    let mut found = search(&handle, timestamp_ms, end).await?;
    if let Err(LogError::Corrupt { offset, .. }) = found {
        repaired(context, partition, &handle, offset).await?;
        found = search(&handle, timestamp_ms, end).await?;
    }
    let found = found.map_err(|error| log_error(&error))?;
    Ok(ListOffsetResponse { offset: found.map_or(end, |(offset, _)| offset).0 })
}

async fn search(
    handle: &Arc<PartitionHandle>,
    timestamp_ms: i64,
    end: Offset,
) -> Result<Result<Option<(Offset, i64)>, LogError>, ApiError> {
    let handle = Arc::clone(handle);
    let found = tokio::task::spawn_blocking(move || handle.reader.offset_for_timestamp(timestamp_ms, end));
    found.await.map_err(|_| gone())
}

/// R31: the end of a list waits until the leader knows all that was ever committed.
async fn settled_end(
    context: &ServiceContext,
    handle: &PartitionHandle,
    partition: PartitionId,
) -> Result<Offset, ApiError> {
    let mut status = handle.status.clone();
    let settled = status.wait_for(|status| status.settled || !status.active);
    let settled = tokio::time::timeout(OFFSET_PATIENCE, settled).await;
    match settled {
        Ok(Ok(status)) if status.settled => {}
        _ => return Err(context.not_leader(&context.map.current(), partition)),
    }
    Ok(handle.readable_end())
}

fn log_error(error: &LogError) -> ApiError {
    match error {
        LogError::OutOfRange { requested, start, end } => out_of_range(*requested, *start, *end),
        // Nothing is wrong with the log: it is being cut back to what its leader holds.
        LogError::TruncatedWhileReading { .. } => gone(),
        error => {
            tracing::error!(error = error as &dyn std::error::Error, "reading for a consumer failed");
            replica_failed()
        }
    }
}

fn out_of_range(requested: Offset, start: Offset, end: Offset) -> ApiError {
    ApiError::new(
        ErrorCode::OffsetOutOfRange,
        format!("offset {requested} is out of range: the partition holds {start} to {end}"),
    )
    .with("log_start_offset", start)
    .with("high_watermark", end)
}

fn replica_failed() -> ApiError {
    ApiError::new(
        ErrorCode::StorageFailed,
        "the partition's log on this broker failed: read from another replica; see this broker's log",
    )
    .retry_after(LEADER_CHANGE_PAUSE)
}

fn damaged(from: Offset) -> ApiError {
    ApiError::new(
        ErrorCode::StorageFailed,
        format!(
            "the log is damaged at offset {from} on this broker, and is being repaired from others: try again, or read \
             from another replica; see this broker's log"
        ),
    )
    .retry_after(REPAIR_PAUSE)
}

fn gone() -> ApiError {
    ApiError::new(ErrorCode::LeaderUnavailable, "the partition left this broker: try again")
        .retry_after(LEADER_CHANGE_PAUSE)
}

#[cfg(test)]
mod tests {
    use holdfast_core::record_batch::RecordBatchBuilder;

    use super::*;

    /// A batch of small records is larger as plain records: without a limit no response could carry it, and whoever
    /// reads would never get on.
    #[test]
    fn plain_records_beyond_the_limit_are_left_for_the_next_request() {
        let mut builder = RecordBatchBuilder::new();
        for number in 0..10 {
            builder.push(1000, None, Some(&[number; 60]), &[]).unwrap();
        }
        let batches = [builder.build(None).unwrap()];
        let mut from = Offset(0);
        let mut seen = Vec::new();
        while let (records, Some(stopped_at)) = records(&batches, from, 350).unwrap() {
            seen.push(records.len());
            from = stopped_at;
        }
        assert_eq!((seen, from), (vec![3, 3, 3], Offset(9)));
        assert_eq!(records(&batches, Offset(4), 1).unwrap().0.len(), 1, "one at least");
    }
}
