//! Topics: asked here, decided by the controllers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_core::metadata::{ClusterMap, TopicSpec};
use holdfast_core::{ErrorCode, TopicId};
use holdfast_proto::ApiError;
use holdfast_proto::convert::metadata::topic_change_from_wire;
use holdfast_proto::v1::topic_service_server::TopicService;
use holdfast_proto::v1::{
    AlterTopicRequest, AlterTopicResponse, CreateTopicRequest, CreateTopicResponse, DeleteTopicRequest,
    DeleteTopicResponse,
};
use tonic::{Request, Response, Status};

use super::{ServiceContext, unknown_topic};
use crate::controllers::{ControllerClient, Controllers};

/// How long a created topic may take to appear in this broker's map.
const MAP_PATIENCE: Duration = Duration::from_secs(5);

/// `TopicService`.
pub(crate) struct TopicApi {
    pub(crate) context: Arc<ServiceContext>,
}

#[tonic::async_trait]
impl TopicService for TopicApi {
    async fn create_topic(
        &self,
        request: Request<CreateTopicRequest>,
    ) -> Result<Response<CreateTopicResponse>, Status> {
        let created = create(&self.context.controllers, request.into_inner()).await?;
        self.wait_for(|map, id| map.topic(id).is_some(), &created.topic_id).await;
        Ok(Response::new(created))
    }

    async fn alter_topic(
        &self,
        request: Request<AlterTopicRequest>,
    ) -> Result<Response<AlterTopicResponse>, Status> {
        let mut request = request.into_inner();
        request.topic_id = self.id_of(&request.name, request.topic_id)?;
        let call = |mut client: ControllerClient| {
            let request = request.clone();
            async move { client.alter_topic(request).await }
        };
        self.context.controllers.call_leader(call).await?;
        let change = topic_change_from_wire(&request);
        let changed = |spec: &TopicSpec| change.applied_to(spec) == *spec;
        let altered = |map: &ClusterMap, id| map.topic(id).is_none_or(|topic| changed(&topic.spec));
        self.wait_for(altered, &request.topic_id).await;
        Ok(Response::new(AlterTopicResponse {}))
    }

    async fn delete_topic(
        &self,
        request: Request<DeleteTopicRequest>,
    ) -> Result<Response<DeleteTopicResponse>, Status> {
        let mut request = request.into_inner();
        request.topic_id = self.id_of(&request.name, request.topic_id)?;
        let call = |mut client: ControllerClient| {
            let request = request.clone();
            async move { client.delete_topic(request).await }
        };
        self.context.controllers.call_leader(call).await?;
        let deleted = |map: &ClusterMap, id| map.topic(id).is_none_or(|topic| topic.deleted);
        self.wait_for(deleted, &request.topic_id).await;
        Ok(Response::new(DeleteTopicResponse {}))
    }
}

/// However often the controllers have to be asked, one topic comes of it: its id is the same each time, and a controller
/// that finds it in place says so as if it had created it now.
async fn create(
    controllers: &Controllers,
    mut request: CreateTopicRequest,
) -> Result<CreateTopicResponse, ApiError> {
    if request.topic_id.is_empty() {
        request.topic_id = Bytes::copy_from_slice(&TopicId(rand::random()).to_bytes());
    }
    let call = |mut client: ControllerClient| {
        let request = request.clone();
        async move { client.create_topic(request).await }
    };
    Ok(controllers.call_leader(call).await?.into_inner())
}

impl TopicApi {
    /// The id of the topic meant: by id from here on, for a topic that is created anew meanwhile is another one.
    fn id_of(&self, name: &str, claimed: Bytes) -> Result<Bytes, ApiError> {
        let map = self.context.map.current();
        let topic = map.topic_named(name).ok_or_else(|| unknown_topic(name))?;
        if !claimed.is_empty() && TopicId::from_bytes(&claimed) != Some(topic.id) {
            let problem = format!("topic {name:?} was created anew and has id {} now", topic.id);
            return Err(ApiError::new(ErrorCode::UnknownTopic, problem));
        }
        Ok(Bytes::copy_from_slice(&topic.id.to_bytes()))
    }

    /// The caller's next request, here, meets the change. Where it does not come in time the change stands all the
    /// same, and the map follows.
    async fn wait_for(&self, holds: impl Fn(&ClusterMap, TopicId) -> bool, topic_id: &[u8]) {
        let Some(id) = TopicId::from_bytes(topic_id) else { return };
        let mut maps = self.context.map.subscribe();
        let _ = tokio::time::timeout(MAP_PATIENCE, maps.wait_for(|map| holds(map, id))).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;
    use std::future::{Ready, ready};
    use std::sync::{Mutex, PoisonError};
    use std::task::{Context, Poll};

    use holdfast_core::{ControllerId, ZoneId};
    use holdfast_proto::transport::{Link, Listener, server};
    use tonic::body::Body;
    use tonic::server::{Grpc, NamedService, UnaryService};
    use tonic_prost::ProstCodec;

    use super::*;
    use crate::config::ControllerEndpoint;

    /// What the controllers have agreed on, and how many more of them die when they have.
    #[derive(Debug, Default)]
    struct Quorum {
        topics: BTreeMap<String, Bytes>,
        dying: u32,
    }

    impl Quorum {
        /// As `core::metadata` has it: what is there under the same id was created by this very request.
        fn create(&mut self, request: CreateTopicRequest) -> Result<CreateTopicResponse, Status> {
            let created = self.topics.entry(request.name).or_insert_with(|| request.topic_id.clone());
            if *created != request.topic_id {
                return Err(ApiError::new(ErrorCode::TopicExists, "another one has the name").into());
            }
            if self.dying > 0 {
                self.dying -= 1;
                return Err(Status::unavailable("cut in the middle of it"));
            }
            Ok(CreateTopicResponse { topic_id: request.topic_id })
        }
    }

    /// A controller that knows one call.
    #[derive(Debug, Clone, Default)]
    struct Fake {
        quorum: Arc<Mutex<Quorum>>,
    }

    impl NamedService for Fake {
        const NAME: &'static str = "holdfast.internal.v1.ControllerService";
    }

    impl UnaryService<CreateTopicRequest> for Fake {
        type Response = CreateTopicResponse;
        type Future = Ready<Result<Response<CreateTopicResponse>, Status>>;

        fn call(&mut self, request: Request<CreateTopicRequest>) -> Self::Future {
            let mut quorum = self.quorum.lock().unwrap_or_else(PoisonError::into_inner);
            ready(quorum.create(request.into_inner()).map(Response::new))
        }
    }

    impl tower::Service<http::Request<Body>> for Fake {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = futures::future::BoxFuture<'static, Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            let fake = self.clone();
            Box::pin(async move {
                let codec = ProstCodec::<CreateTopicResponse, CreateTopicRequest>::default();
                Ok(Grpc::new(codec).unary(fake, request).await)
            })
        }
    }

    async fn listen(id: u64, fake: &Fake) -> ControllerEndpoint {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let incoming = listener.incoming(None).unwrap();
        tokio::spawn(server(Link::Peer).add_service(fake.clone()).serve_with_incoming(incoming));
        ControllerEndpoint { id: ControllerId(id), zone: ZoneId::new("a"), endpoint }
    }

    /// One that does not choose an id, as a caller by hand, gets what it asked for, not a refusal for its own topic.
    #[tokio::test]
    async fn a_controller_that_dies_after_it_created_a_topic_makes_no_conflict() {
        let fake = Fake::default();
        let endpoints = [listen(1, &fake).await, listen(2, &fake).await, listen(3, &fake).await];
        let controllers = Controllers::new(&endpoints, None).unwrap();
        let request = CreateTopicRequest { name: "t".to_owned(), ..CreateTopicRequest::default() };
        fake.quorum.lock().unwrap().dying = 2;
        let created = create(&controllers, request.clone()).await.unwrap();
        assert_eq!(created.topic_id, fake.quorum.lock().unwrap().topics["t"]);
        let taken = create(&controllers, request).await.unwrap_err();
        assert_eq!(taken.code, ErrorCode::TopicExists, "the next one asks for another topic");
    }
}
