//! Batches for brokers whose disks lost them.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_core::{BrokerId, ErrorCode, Offset, PartitionId, TopicId};
use holdfast_proto::ApiError;
use holdfast_proto::internal::v1::repair_service_server::RepairService;
use holdfast_proto::internal::v1::{FetchBatchesRequest, FetchBatchesResponse};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{ServiceContext, invalid};
use crate::repair::Wanted;

/// Bytes of answers at once. Repairs of others must not take what clients need.
pub(crate) const REPAIR_ROOM: u64 = 32 << 20;
const DEFAULT_BYTES: u32 = 1 << 20;
const MOST_BYTES: u32 = 4 << 20;

/// `RepairService`.
pub(crate) struct RepairApi {
    pub(crate) context: Arc<ServiceContext>,
}

#[tonic::async_trait]
impl RepairService for RepairApi {
    async fn fetch_batches(
        &self,
        request: Request<FetchBatchesRequest>,
    ) -> Result<Response<FetchBatchesResponse>, Status> {
        let request = request.into_inner();
        self.check_cluster(&request)?;
        let topic =
            TopicId::from_bytes(&request.topic_id).ok_or_else(|| invalid("topic_id is not 16 bytes"))?;
        let partition = PartitionId { topic, index: request.partition };
        let max_bytes =
            if request.max_bytes == 0 { DEFAULT_BYTES } else { request.max_bytes.min(MOST_BYTES) };
        let to = if request.to_offset == 0 { Offset(u64::MAX) } else { Offset(request.to_offset) };
        // A batch that is larger than asked for is answered as a whole, and is held twice while it is put into a message.
        let max_batch = usize::try_from(self.context.config.max_batch_size.0).unwrap_or(usize::MAX);
        let most = max_batch.max(max_bytes as usize).saturating_mul(2);
        let mut held = self.context.repair_room.take(most, Instant::now()).await?;
        let (from, gone) = (Offset(request.from_offset), Offset(request.tombstones_gone_below));
        let wanted = Wanted { from, to, max_bytes: max_bytes as usize, gone };
        let given = self.context.repairs.give(partition, wanted).await;
        let answer = match given {
            Ok(batches) => FetchBatchesResponse { batches, ..FetchBatchesResponse::default() },
            Err(missing) => FetchBatchesResponse { missing: missing.into(), batches: Bytes::new() },
        };
        held.shrink_to(answer.batches.len());
        let mut response = Response::new(answer);
        held.attach(&mut response);
        Ok(response)
    }
}

impl RepairApi {
    fn check_cluster(&self, request: &FetchBatchesRequest) -> Result<(), ApiError> {
        if request.cluster == self.context.cluster {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::WrongCluster,
            format!(
                "broker {} of cluster {:?} called a broker of cluster {:?}: check its configuration",
                BrokerId(request.broker_id),
                request.cluster,
                self.context.cluster
            ),
        ))
    }
}
