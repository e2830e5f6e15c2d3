//! The mock broker's gRPC services.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use holdfast_core::{ErrorCode, LeaderEpoch, Term};
use holdfast_proto::convert::metadata::update_to_wire;
use holdfast_proto::transport::{Link, Listener, server};
use holdfast_proto::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use holdfast_proto::v1::fetch_service_server::{FetchService, FetchServiceServer};
use holdfast_proto::v1::offset_service_server::{OffsetService, OffsetServiceServer};
use holdfast_proto::v1::produce_service_server::{ProduceService, ProduceServiceServer};
use holdfast_proto::v1::topic_service_server::{TopicService, TopicServiceServer};
use holdfast_proto::{ApiError, v1};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Fault, FetchFault, MapFault, Shared, State};
use crate::sync::lock;

#[derive(Clone)]
struct Broker {
    shared: Arc<Shared>,
    id: u32,
}

pub(super) async fn serve(shared: Arc<Shared>, id: u32, listener: Listener) {
    let broker = Broker { shared, id };
    server(Link::Client)
        .add_service(ProduceServiceServer::new(broker.clone()))
        .add_service(FetchServiceServer::new(broker.clone()))
        .add_service(OffsetServiceServer::new(broker.clone()))
        .add_service(TopicServiceServer::new(broker.clone()))
        .add_service(ClusterServiceServer::new(broker))
        .serve_with_incoming(listener.incoming(None).unwrap())
        .await
        .unwrap();
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn check_leader(state: &State, broker: u32, partition: u32) -> Result<(), ApiError> {
    let leader = *state
        .leaders
        .get(partition as usize)
        .ok_or_else(|| ApiError::new(ErrorCode::UnknownPartition, "no such partition"))?;
    if leader == broker {
        return Ok(());
    }
    let endpoint = &state.endpoints[leader as usize];
    Err(ApiError::new(ErrorCode::NotLeader, "not me").with("leader_endpoint", endpoint))
}

/// What to do after an append.
enum Then {
    Answer(v1::append_stream_response::Outcome),
    Cut,
    Silence,
    GoOn,
}

impl Broker {
    fn append(&self, append: v1::AppendRequest) -> Then {
        use v1::append_stream_response::Outcome;
        let mut state = lock(&self.shared.state);
        if let Ok(batch) = holdfast_core::record_batch::RecordBatch::check_crc(append.batch.clone())
            && let Some(producer) = batch.header().producer
        {
            state.arrived.push((self.id, producer.id.0, producer.base_sequence));
        }
        let fault = state.faults.get_mut(&self.id).and_then(|faults| faults.pop_front());
        match fault {
            Some(Fault::Refuse(code)) => {
                return Then::Answer(Outcome::Error(ApiError::new(code, "as scripted").into_message()));
            }
            Some(Fault::Cut) => return Then::Cut,
            Some(Fault::Silent) => return Then::Silence,
            Some(Fault::Overlooked) => return Then::GoOn,
            Some(Fault::AppendThenCut | Fault::AppendThenSilent) | None => {}
        }
        let epoch = LeaderEpoch::first(Term(state.term));
        let appended = check_leader(&state, self.id, append.partition).and_then(|()| {
            let log = state.logs.entry(append.partition).or_default();
            log.append(append.batch, epoch).map_err(|code| ApiError::new(code, "refused by the log"))
        });
        drop(state);
        self.shared.appended.send_modify(|count| *count += 1);
        match (fault, appended) {
            (Some(Fault::AppendThenCut), _) => Then::Cut,
            (Some(Fault::AppendThenSilent), _) => Then::Silence,
            (_, Ok((base_offset, last_offset, duplicate))) => {
                let leader_epoch = epoch.to_wire();
                Then::Answer(Outcome::Acknowledged(v1::AppendResponse {
                    base_offset,
                    last_offset,
                    leader_epoch,
                    duplicate,
                }))
            }
            (_, Err(error)) => Then::Answer(Outcome::Error(error.into_message())),
        }
    }

    async fn pump(
        self,
        mut requests: Streaming<v1::AppendStreamRequest>,
        answers: mpsc::Sender<Result<v1::AppendStreamResponse, Status>>,
    ) {
        while let Ok(Some(request)) = requests.message().await {
            match self.append(request.append.unwrap()) {
                Then::Answer(outcome) => {
                    let answer =
                        v1::AppendStreamResponse { correlation: request.correlation, outcome: Some(outcome) };
                    if answers.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
                Then::Cut => {
                    let _ = answers.send(Err(Status::unavailable("cut as scripted"))).await;
                    return;
                }
                Then::GoOn => {}
                Then::Silence => {
                    while let Ok(Some(_)) = requests.message().await {}
                    return;
                }
            }
        }
    }

    fn read(&self, request: &v1::FetchRequest) -> Result<v1::FetchResponse, ApiError> {
        let mut state = lock(&self.shared.state);
        let fault = state.fetch_faults.get_mut(&self.id).and_then(|faults| faults.pop_front());
        if let Some(FetchFault::Refuse(error)) = fault {
            return Err(error);
        }
        if !request.allow_follower {
            check_leader(&state, self.id, request.partition)?;
        }
        state.fetched_from.push(self.id);
        let log = state.logs.entry(request.partition).or_default();
        let high_watermark = log.end();
        let mut bytes = BytesMut::new();
        let skipped = usize::from(matches!(fault, Some(FetchFault::Skip)));
        let wanted = log.batches.iter().filter(|batch| batch.header().next_offset().0 > request.offset);
        for batch in wanted.skip(skipped) {
            if !bytes.is_empty() && bytes.len() + batch.bytes().len() > request.max_bytes as usize {
                break;
            }
            bytes.extend_from_slice(batch.bytes());
        }
        match fault {
            Some(FetchFault::Garble) if !bytes.is_empty() => {
                let last = bytes.len() - 1;
                bytes[last] ^= 4;
            }
            Some(FetchFault::Empty) => bytes.clear(),
            _ => {}
        }
        let (batches, next_offset) = (bytes.freeze(), request.offset);
        Ok(v1::FetchResponse { high_watermark, next_offset, batches, ..Default::default() })
    }
}

#[tonic::async_trait]
impl ProduceService for Broker {
    async fn append(&self, _: Request<v1::AppendRequest>) -> Result<Response<v1::AppendResponse>, Status> {
        Err(Status::unimplemented("the client streams"))
    }

    type AppendStreamStream = Answers<v1::AppendStreamResponse>;

    async fn append_stream(
        &self,
        request: Request<Streaming<v1::AppendStreamRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        let (answers, stream) = mpsc::channel(16);
        tokio::spawn(self.clone().pump(request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn init_producer(
        &self,
        _: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        let mut state = lock(&self.shared.state);
        state.next_producer += 1;
        Ok(Response::new(v1::InitProducerResponse { producer_id: state.next_producer, producer_epoch: 0 }))
    }
}

#[tonic::async_trait]
impl FetchService for Broker {
    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        let request = request.into_inner();
        let mut appended = self.shared.appended.subscribe();
        let wait = Duration::from_millis(u64::from(request.max_wait_ms));
        let answer = self.read(&request)?;
        if answer.batches.is_empty() && timeout(wait, appended.changed()).await.is_ok() {
            return Ok(Response::new(self.read(&request)?));
        }
        Ok(Response::new(answer))
    }
}

#[tonic::async_trait]
impl OffsetService for Broker {
    async fn list_offset(
        &self,
        request: Request<v1::ListOffsetRequest>,
    ) -> Result<Response<v1::ListOffsetResponse>, Status> {
        let request = request.into_inner();
        let state = lock(&self.shared.state);
        let Some(log) = state.logs.get(&request.partition) else {
            return Ok(Response::new(v1::ListOffsetResponse { offset: 0 }));
        };
        let offset = match request.at {
            Some(v1::list_offset_request::At::Latest(_)) => log.end(),
            Some(v1::list_offset_request::At::TimestampMs(ms)) => log
                .batches
                .iter()
                .find(|batch| batch.header().max_timestamp >= ms)
                .map_or(log.end(), |batch| batch.header().base_offset.0),
            _ => 0,
        };
        Ok(Response::new(v1::ListOffsetResponse { offset }))
    }
}

#[tonic::async_trait]
impl TopicService for Broker {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let request = request.into_inner();
        let mut state = lock(&self.shared.state);
        state.topics_asked.push(request.topic_id);
        if let Some(code) = state.topic_errors.pop_front() {
            return Err(ApiError::new(code, "as scripted").into_status());
        }
        drop(state);
        let map = self.shared.map.borrow().clone();
        let topic = map.topic_named(&request.name);
        let topic = topic.ok_or_else(|| Status::internal("the mock has one topic only"))?;
        Ok(Response::new(v1::CreateTopicResponse { topic_id: Bytes::copy_from_slice(&topic.id.to_bytes()) }))
    }

    async fn alter_topic(
        &self,
        _: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        Err(ApiError::new(ErrorCode::UnknownTopic, "no such topic").into_status())
    }

    async fn delete_topic(
        &self,
        _: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        Err(ApiError::new(ErrorCode::UnknownTopic, "no such topic").into_status())
    }
}

#[tonic::async_trait]
impl ClusterService for Broker {
    type WatchMetadataStream = Answers<v1::MetadataUpdate>;

    async fn watch_metadata(
        &self,
        _: Request<v1::WatchMetadataRequest>,
    ) -> Result<Response<Self::WatchMetadataStream>, Status> {
        lock(&self.shared.state).watched.push(self.id);
        let (updates, stream) = mpsc::channel(16);
        let broker = self.clone();
        tokio::spawn(async move {
            let mut map = broker.shared.map.subscribe();
            loop {
                let fault = lock(&broker.shared.state).map_faults.get(&broker.id).copied();
                let snapshot = map.borrow_and_update().snapshot();
                let mut update = update_to_wire(&snapshot);
                if fault == Some(MapFault::Partial) {
                    update.partitions.pop();
                }
                if fault != Some(MapFault::Silent) && updates.send(Ok(update)).await.is_err() {
                    return;
                }
                tokio::select! {
                    changed = map.changed() => if changed.is_err() { return },
                    () = updates.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn describe_cluster(
        &self,
        _: Request<v1::DescribeClusterRequest>,
    ) -> Result<Response<v1::DescribeClusterResponse>, Status> {
        let answer = v1::DescribeClusterResponse { broker_id: self.id, ..Default::default() };
        Ok(Response::new(answer))
    }

    async fn describe_partitions(
        &self,
        _: Request<v1::DescribePartitionsRequest>,
    ) -> Result<Response<v1::DescribePartitionsResponse>, Status> {
        Ok(Response::new(v1::DescribePartitionsResponse::default()))
    }

    async fn list_events(
        &self,
        _: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        Ok(Response::new(v1::ListEventsResponse::default()))
    }
}
