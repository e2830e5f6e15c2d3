//! Appending: check, hand to the partition's shard, answer at the commit. Any broker takes a batch; it goes on to the
//! leader.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt as _};
use holdfast_core::metadata::Broker;
use holdfast_core::record_batch::{Header, RecordBatch, RecordBatchBuilder};
use holdfast_core::replication::{Acknowledged, ProduceError};
use holdfast_core::{ErrorCode, PartitionId};
use holdfast_log::ByteSize;
use holdfast_proto::ApiError;
use holdfast_proto::transport::MAX_CLIENT_MESSAGE;
use holdfast_proto::v1::append_stream_response::Outcome;
use holdfast_proto::v1::produce_service_client::ProduceServiceClient;
use holdfast_proto::v1::produce_service_server::ProduceService;
use holdfast_proto::v1::{
    AppendRequest, AppendResponse, AppendStreamRequest, AppendStreamResponse, InitProducerRequest,
    InitProducerResponse, Record, Routing,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::keys::check_keys;
use super::{ServiceContext, batch_error, ending, invalid, produce_error, through_leader_changes};
use crate::disk_space::rounded;
use crate::partition::Command;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Requests of one stream under way; the stream is not read on while there are more.
const STREAM_INFLIGHT: usize = 1024;
/// Answers of one stream that wait to be sent.
const STREAM_ANSWERS: usize = 256;

/// `ProduceService`.
pub(crate) struct ProduceApi {
    context: Arc<ServiceContext>,
}

impl ProduceApi {
    pub(crate) fn new(context: Arc<ServiceContext>) -> ProduceApi {
        ProduceApi { context }
    }
}

#[tonic::async_trait]
impl ProduceService for ProduceApi {
    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<AppendResponse>, Status> {
        Ok(Response::new(append(&self.context, request.into_inner()).await?))
    }

    type AppendStreamStream = Pin<Box<dyn Stream<Item = Result<AppendStreamResponse, Status>> + Send>>;

    async fn append_stream(
        &self,
        request: Request<Streaming<AppendStreamRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        let (answers, receiver) = mpsc::channel(STREAM_ANSWERS);
        tokio::spawn(serve_stream(Arc::clone(&self.context), request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn init_producer(
        &self,
        _request: Request<InitProducerRequest>,
    ) -> Result<Response<InitProducerResponse>, Status> {
        let producer_id = self.context.producer_ids.next().await?;
        Ok(Response::new(InitProducerResponse { producer_id, producer_epoch: 0 }))
    }
}

/// A batch that is in the hands of its partition's shard, or of the leader's broker.
enum Submitted {
    Here {
        reply: oneshot::Receiver<Result<Acknowledged, ProduceError>>,
        _room: Arc<OwnedSemaphorePermit>,
    },
    /// Forwarded, and answered.
    Answered(AppendResponse),
}

/// A checked request.
struct Append {
    topic: String,
    topic_id: bytes::Bytes,
    index: u32,
    routing: Routing,
    batch: RecordBatch,
    deadline: Instant,
    timeout: Duration,
}

async fn append(context: &ServiceContext, request: AppendRequest) -> Result<AppendResponse, ApiError> {
    let append = &check(context, request)?;
    through_leader_changes(append.routing, append.deadline, || async move {
        let submitted = submit(context, append).await?;
        answer(context, append, submitted).await
    })
    .await
}

fn check(context: &ServiceContext, request: AppendRequest) -> Result<Append, ApiError> {
    let routing = request.routing();
    let limit = usize::try_from(context.config.max_batch_size.0).unwrap_or(usize::MAX);
    let batch = match (request.records.is_empty(), request.batch.is_empty()) {
        (true, true) => return Err(invalid("the request has neither records nor a batch")),
        (false, false) => return Err(invalid("the request has both records and a batch: send one of them")),
        (false, true) => build(&request.records, limit)?,
        (true, false) => RecordBatch::check(request.batch, limit).map_err(|error| batch_error(&error))?,
    };
    let header = batch.header();
    if header.is_control() || header.is_transactional() {
        return Err(invalid("control and transactional batches are not taken from clients"));
    }
    let timeout = match request.timeout_ms {
        0 => DEFAULT_TIMEOUT,
        given => Duration::from_millis(u64::from(given)).min(LONGEST_TIMEOUT),
    };
    Ok(Append {
        topic: request.topic,
        topic_id: request.topic_id,
        index: request.partition,
        routing,
        batch,
        deadline: Instant::now() + timeout,
        timeout,
    })
}

/// Plain records become one uncompressed batch.
fn build(records: &[Record], limit: usize) -> Result<RecordBatch, ApiError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_millis() as i64);
    let mut builder = RecordBatchBuilder::new();
    for record in records {
        let timestamp = if record.timestamp_ms == 0 { now } else { record.timestamp_ms };
        let headers: Vec<Header> = record
            .headers
            .iter()
            .map(|header| Header {
                key: bytes::Bytes::copy_from_slice(header.key.as_bytes()),
                value: header.value.clone(),
            })
            .collect();
        builder
            .push(timestamp, record.key.as_deref(), record.value.as_deref(), &headers)
            .map_err(|error| batch_error(&error))?;
        if builder.size() > limit {
            return Err(ApiError::new(
                ErrorCode::BatchTooLarge,
                format!("the records make a batch of more than {limit} bytes: send fewer at once"),
            ));
        }
    }
    builder.build(None).map_err(|error| batch_error(&error))
}

/// Brings the batch to its partition here, or to the broker that leads it.
async fn submit(context: &ServiceContext, append: &Append) -> Result<Submitted, ApiError> {
    let map = context.map.current();
    let partition = context.resolve(&map, &append.topic, &append.topic_id, append.index)?;
    // Held while it waits here, for a takeover, its commit or another broker's answer.
    let room = admit(context, append)?;
    if context.leads(&map, partition, append.deadline).await {
        let topic = map.topic(partition.topic);
        if topic.is_some_and(|topic| topic.spec.compaction.is_some()) {
            check_keys(&context.keys_room, &append.topic, &append.batch, append.deadline).await?;
        }
        return submit_here(context, append, partition, room).await;
    }
    match context.remote_leader(&map, partition) {
        Some(leader) if append.routing != Routing::Redirect => {
            forward(context, append, leader).await.map(Submitted::Answered)
        }
        _ => Err(context.not_leader(&map, partition)),
    }
}

fn admit(context: &ServiceContext, append: &Append) -> Result<OwnedSemaphorePermit, ApiError> {
    let bytes = u32::try_from(append.batch.bytes().len()).unwrap_or(u32::MAX);
    Arc::clone(&context.produce_room).try_acquire_many_owned(bytes).map_err(|_| {
        ApiError::new(ErrorCode::Overloaded, "too many bytes are being produced at this broker: try again")
            .retry_after(Duration::from_millis(50))
    })
}

async fn submit_here(
    context: &ServiceContext,
    append: &Append,
    partition: PartitionId,
    room: OwnedSemaphorePermit,
) -> Result<Submitted, ApiError> {
    let (reply, receiver) = oneshot::channel();
    // Held by both: until it is answered, and as long as it waits for the shard, whichever takes longer.
    let room = Arc::new(room);
    let (batch, held) = (append.batch.clone(), Arc::clone(&room));
    let command = Command::Produce { partition, batch, reply, _room: held };
    match tokio::time::timeout_at(append.deadline, context.shards.of(partition).send(command)).await {
        Ok(Ok(())) => Ok(Submitted::Here { reply: receiver, _room: room }),
        Ok(Err(_)) => Err(ending()),
        Err(_) => Err(ApiError::new(
            ErrorCode::Overloaded,
            "the partition's queue was full until the deadline: nothing was appended, try again",
        )
        .retry_after(Duration::from_millis(50))),
    }
}

async fn forward(
    context: &ServiceContext,
    append: &Append,
    leader: &Broker,
) -> Result<AppendResponse, ApiError> {
    let mut client = ProduceServiceClient::new(context.channel_to(leader)?)
        .max_decoding_message_size(MAX_CLIENT_MESSAGE)
        .max_encoding_message_size(MAX_CLIENT_MESSAGE);
    let left = append.deadline.saturating_duration_since(Instant::now());
    let request = AppendRequest {
        topic: append.topic.clone(),
        topic_id: append.topic_id.clone(),
        partition: append.index,
        routing: Routing::Redirect.into(),
        timeout_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1),
        records: Vec::new(),
        batch: append.batch.bytes().clone(),
    };
    match tokio::time::timeout_at(append.deadline, client.append(request)).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(ApiError::from_status(&status)),
        Err(_) => Err(timed_out(append.timeout)),
    }
}

async fn answer(
    context: &ServiceContext,
    append: &Append,
    submitted: Submitted,
) -> Result<AppendResponse, ApiError> {
    let (reply, _room) = match submitted {
        Submitted::Answered(response) => return Ok(response),
        Submitted::Here { reply, _room } => (reply, _room),
    };
    match tokio::time::timeout_at(append.deadline, reply).await {
        Ok(Ok(Ok(acknowledged))) => Ok(AppendResponse {
            base_offset: acknowledged.base_offset.0,
            last_offset: acknowledged.last_offset.0,
            leader_epoch: acknowledged.epoch.to_wire(),
            duplicate: acknowledged.duplicate,
        }),
        Ok(Ok(Err(ProduceError::NotLeader { .. }))) => {
            let map = context.map.current();
            let partition = context.resolve(&map, &append.topic, &append.topic_id, append.index)?;
            Err(context.not_leader(&map, partition))
        }
        Ok(Ok(Err(error @ ProduceError::DiskFull { free, reserve }))) => {
            let refused = disk_full(context, append, rounded(free), rounded(reserve));
            Err(ApiError { message: refused, ..produce_error(error) }.with("broker", context.broker))
        }
        Ok(Ok(Err(error))) => Err(produce_error(error)),
        // The partition went away with the request in it.
        Ok(Err(_)) => Err(produce_error(ProduceError::LeaderLost)),
        Err(_) => Err(timed_out(append.timeout)),
    }
}

/// What, why, and what next.
fn disk_full(context: &ServiceContext, append: &Append, free: ByteSize, reserve: ByteSize) -> String {
    let (broker, zone, topic, index) = (context.broker, &context.zone, &append.topic, append.index);
    format!(
        "partition {index} of topic {topic:?} takes no records at the moment, nothing was appended:\n\
         the disk of broker {broker} in zone {zone}, which leads it, has {free} free and keeps {reserve} in reserve;\n\
         make room on that disk, or delete topics: records are taken again by itself once there is room; what is stored can \
         be read meanwhile"
    )
}

fn timed_out(timeout: Duration) -> ApiError {
    ApiError::new(
        ErrorCode::DeadlineExceeded,
        format!("not acknowledged within {} ms: the batch may appear, once", timeout.as_millis()),
    )
}

/// Takes requests in order, answers each when it is done.
async fn serve_stream(
    context: Arc<ServiceContext>,
    mut requests: Streaming<AppendStreamRequest>,
    answers: mpsc::Sender<Result<AppendStreamResponse, Status>>,
) {
    let mut waiting = FuturesUnordered::new();
    // Done, and not handed to the connection yet. A client that reads no answers holds up its own requests only: what
    // is done gives its room back without it.
    let mut done = VecDeque::new();
    let mut open = true;
    while open || !waiting.is_empty() || !done.is_empty() {
        tokio::select! {
            () = context.ending.cancelled(), if open => open = false,
            request = requests.next(), if open && waiting.len() + done.len() < STREAM_INFLIGHT => match request {
                Some(Ok(AppendStreamRequest { correlation, append: Some(append) })) => {
                    // Handed on here, before the next request is read: that keeps the order.
                    let begun = begin(&context, append).await;
                    let context = Arc::clone(&context);
                    waiting.push(async move { (correlation, finish(&context, begun).await) });
                }
                Some(Ok(AppendStreamRequest { correlation, append: None })) => {
                    done.push_back(response(correlation, Err(invalid("the request holds nothing to append"))));
                }
                // Cut, or ended: what was taken is still answered, if anybody listens.
                Some(Err(_)) | None => open = false,
            },
            Some((correlation, result)) = waiting.next(), if !waiting.is_empty() => {
                done.push_back(response(correlation, result));
            }
            room = answers.reserve(), if !done.is_empty() => match (room, done.pop_front()) {
                (Ok(room), Some(answer)) => room.send(Ok(answer)),
                // Nobody listens any more.
                _ => return,
            },
        }
    }
}

type Begun = Result<(Append, Submitted), ApiError>;

async fn begin(context: &ServiceContext, request: AppendRequest) -> Begun {
    let append = check(context, request)?;
    let submitted = submit(context, &append).await?;
    Ok((append, submitted))
}

async fn finish(context: &ServiceContext, begun: Begun) -> Result<AppendResponse, ApiError> {
    let (append, submitted) = begun?;
    answer(context, &append, submitted).await
}

fn response(correlation: u64, result: Result<AppendResponse, ApiError>) -> AppendStreamResponse {
    let outcome = match result {
        Ok(acknowledged) => Outcome::Acknowledged(acknowledged),
        Err(error) => Outcome::Error(error.into_message()),
    };
    AppendStreamResponse { correlation, outcome: Some(outcome) }
}
