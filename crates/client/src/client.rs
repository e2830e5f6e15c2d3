//! The client: options, connecting, and calls that any broker can answer.

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::metadata::ClusterMap;
use holdfast_core::{ErrorCode, TopicId};
use holdfast_proto::ApiError;
use holdfast_proto::transport::Tls;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Response, Status};

use crate::config::Problems;
use crate::error::ConnectError;
use crate::metadata::Metadata;
use crate::retry::{Backoff, Failure, MAX_DELAY, Verdict, judge};
use crate::routing::{Node, Router};
use crate::{ClientConfig, ConfigError, ConsumerBuilder, ProducerBuilder};

/// A connection to a cluster. Cloning is cheap and shares everything; its tasks end with the last clone and the last
/// producer or consumer made of it.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ClientConfig,
    router: Arc<Router>,
    metadata: Metadata,
    _tasks: DropGuard,
}

/// Options of a [`Client`].
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ClientBuilder {
    config: ClientConfig,
}

impl ClientBuilder {
    /// Addresses of brokers, `host:port`, to begin with.
    pub fn bootstrap<E: Into<String>>(mut self, endpoints: impl IntoIterator<Item = E>) -> Self {
        self.config.bootstrap = endpoints.into_iter().map(Into::into).collect();
        self
    }

    /// The zone the client runs in.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.config.zone = Some(zone.into());
        self
    }

    /// Certificates; `None` for plain text.
    pub fn tls(mut self, tls: Option<Tls>) -> Self {
        self.config.tls = tls;
        self
    }

    /// How long to wait for a first complete map.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.config.connect_timeout = limit;
        self
    }

    /// All options at once.
    pub fn config(mut self, config: ClientConfig) -> Self {
        self.config = config;
        self
    }

    /// Tries all addresses until one gives a complete map.
    ///
    /// # Errors
    /// Where the options make no sense, or no address gave a map within the connect timeout.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        validate(&self.config)?;
        let config = self.config;
        let router = Arc::new(Router::new(&config.bootstrap, config.zone.as_deref(), config.tls.clone()));
        let cancel = CancellationToken::new();
        let metadata = Metadata::follow(router.clone(), config.metadata_max_age, cancel.clone());
        let first = metadata.wait_for(|map| map.index() > 0);
        let outcome = timeout(config.connect_timeout, first).await;
        if !matches!(outcome, Ok(Some(()))) {
            cancel.cancel();
            return Err(unreachable_cluster(&config, &metadata));
        }
        Ok(Client { inner: Arc::new(Inner { config, router, metadata, _tasks: cancel.drop_guard() }) })
    }
}

fn validate(config: &ClientConfig) -> Result<(), ConfigError> {
    let mut problems = Problems::default();
    problems.unless(!config.bootstrap.is_empty(), || "no bootstrap address given".to_owned());
    for endpoint in &config.bootstrap {
        let port = endpoint
            .rsplit_once(':')
            .and_then(|(host, port)| port.parse::<u16>().ok().filter(|port| *port != 0 && !host.is_empty()));
        problems.unless(port.is_some(), || format!("{endpoint:?} is not of the form host:port"));
    }
    problems.into_result()
}

fn unreachable_cluster(config: &ClientConfig, metadata: &Metadata) -> ConnectError {
    let (endpoint, source) = metadata.last_error().unwrap_or_else(|| {
        let message = format!("no answer within {:?}", config.connect_timeout);
        (config.bootstrap.join(", "), ApiError::new(ErrorCode::Unavailable, message))
    });
    ConnectError::Unreachable { endpoint, source }
}

impl Client {
    /// Starts with the defaults.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// The newest complete metadata map.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.inner.metadata.map()
    }

    /// For waiting on changes of the map.
    pub fn watch_map(&self) -> tokio::sync::watch::Receiver<Arc<ClusterMap>> {
        self.inner.metadata.watch()
    }

    /// A producer for one topic.
    pub fn producer(&self, topic: &str) -> ProducerBuilder {
        ProducerBuilder::new(self.clone(), topic)
    }

    /// A consumer of one topic.
    pub fn consumer(&self, topic: &str) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone(), topic)
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    pub(crate) fn router(&self) -> &Router {
        &self.inner.router
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.inner.metadata
    }

    /// Id and number of partitions of a topic. Waits for a topic that the map does not hold yet.
    pub(crate) async fn resolve(&self, topic: &str) -> Result<(TopicId, u32), ApiError> {
        let mut found = None;
        let known = self.inner.metadata.wait_for(|map| {
            found = map.topic_named(topic).map(|topic| (topic.id, topic.spec.partitions));
            found.is_some()
        });
        // A topic made a moment ago by somebody else arrives within this time; a misspelt one is reported as soon.
        let waited = timeout(self.inner.config.request_timeout.min(Duration::from_secs(2)), known).await;
        drop(waited);
        found.ok_or_else(|| {
            let message = format!("no topic is called {topic:?}: create it or check the name");
            ApiError::new(ErrorCode::UnknownTopic, message).with("topic", topic)
        })
    }

    /// Calls one broker after the other until one answers, within the client's request timeout.
    pub(crate) async fn call<T, F, Answer>(&self, first: Option<String>, run: F) -> Called<T>
    where
        F: Fn(Arc<Node>, Duration) -> Answer,
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.inner.config.request_timeout;
        let mut backoff = Backoff::default();
        let mut first = first;
        let mut unresolved = false;
        let mut last_error = None;
        loop {
            let mut order = self.inner.router.order();
            if let Some(first) = first.take() {
                order.insert(0, first);
            }
            for endpoint in order {
                let attempt = match self.inner.router.node(&endpoint) {
                    Ok(node) => self.attempt(node, deadline, &run).await,
                    Err(error) => Err((error, Duration::ZERO)),
                };
                let (error, pause) = match attempt {
                    Ok(answer) => return Called { result: Ok(answer), unresolved },
                    Err((error, _)) if judge(error.code) != Verdict::Retry => {
                        return Called { result: Err(error), unresolved };
                    }
                    Err(failed) => failed,
                };
                unresolved |= error.code.is_indefinite();
                let wake = Instant::now() + pause;
                last_error = Some(error);
                if wake >= deadline {
                    break;
                }
                tokio::time::sleep_until(wake).await;
            }
            let pause = backoff.next_delay(None);
            if Instant::now() + pause >= deadline {
                let error = last_error.unwrap_or_else(|| ApiError::new(ErrorCode::Unavailable, "no address"));
                return Called { result: Err(error), unresolved };
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// One call of one broker; on failure the error, and how long to wait before the next broker is asked.
    async fn attempt<T, F, Answer>(
        &self,
        node: Arc<Node>,
        deadline: Instant,
        run: &F,
    ) -> Result<T, (ApiError, Duration)>
    where
        F: Fn(Arc<Node>, Duration) -> Answer,
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        let left = deadline.saturating_duration_since(Instant::now());
        let failure = match timeout_at(deadline, run(node.clone(), left)).await {
            Ok(Ok(response)) => {
                node.budget.succeeded();
                return Ok(response.into_inner());
            }
            Ok(Err(status)) => Failure::from(status),
            Err(_) => {
                let message = format!("{} did not answer", node.endpoint);
                Failure::reached(ApiError::new(ErrorCode::DeadlineExceeded, message))
            }
        };
        if failure.error.code == ErrorCode::Unavailable {
            self.inner.router.demote(&node.endpoint);
        }
        // Another broker costs this one nothing; only its advice, or a spent budget, makes the caller wait.
        let advice = failure.error.retry_after.unwrap_or_default();
        let pause = if node.budget.charge(&failure) { advice } else { MAX_DELAY.max(advice) };
        Err((failure.error, pause))
    }
}

/// What came of a call over several brokers.
#[derive(Debug)]
pub(crate) struct Called<T> {
    pub(crate) result: Result<T, ApiError>,
    /// Whether an attempt before the last one may have taken effect.
    pub(crate) unresolved: bool,
}
