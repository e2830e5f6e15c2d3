//! A broker's section of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use holdfast_core::replication::ReplicaConfig;
use holdfast_core::{BrokerId, ControllerId, ZoneId};
use holdfast_log::{ByteSize, LogConfig};
use holdfast_proto::config::duration;
use serde::{Deserialize, Serialize};

use crate::disk_space::DiskReserve;

/// Bound of a name or address, in bytes.
const MAX_NAME: usize = 256;

/// How one broker runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BrokerConfig {
    /// Number of this broker, unique in the cluster. Never changes its zone.
    pub id: BrokerId,
    /// The zone that it runs in: no two replicas of a partition share it.
    pub zone: ZoneId,
    /// Folder of its partitions. Belongs to one broker of one cluster. Give it a file system of its own.
    pub data_dir: PathBuf,
    /// Where it listens for clients, as `host:port`.
    pub client_listen: String,
    /// Where it listens for other brokers, as `host:port`.
    pub peer_listen: String,
    /// `host:port` that clients are given. Default: `client-listen`.
    #[serde(default)]
    pub client_endpoint: Option<String>,
    /// `host:port` that other brokers are given. Default: `peer-listen`.
    #[serde(default)]
    pub peer_endpoint: Option<String>,
    /// All controllers of the cluster.
    pub controllers: Vec<ControllerEndpoint>,
    /// Pause between two heartbeats to each controller. Keep it below a fifth of the controllers' session timeout.
    /// Default: 100ms.
    #[serde(default = "defaults::heartbeat_interval", with = "duration")]
    pub heartbeat_interval: Duration,
    /// How long an orderly stop may wait until others lead what this broker leads. What it still leads then moves when the
    /// controllers notice that it is gone. Keep it well below what stops the process by force. Default: 5s.
    #[serde(default = "defaults::drain_timeout", with = "duration")]
    pub drain_timeout: Duration,
    /// The largest record batch taken from a client. Default: 4MiB. Maximum: 16MiB.
    #[serde(default = "defaults::max_batch_size")]
    pub max_batch_size: ByteSize,
    /// Bytes of produce requests under way at once; more are refused with OVERLOADED. Default: 256MiB.
    #[serde(default = "defaults::max_inflight_produce")]
    pub max_inflight_produce: ByteSize,
    /// Bytes of answers to fetch requests, from before they are read until they are sent; requests beyond wait, and
    /// are refused with OVERLOADED where that takes too long. Default: 256MiB. Minimum: 32MiB.
    #[serde(default = "defaults::max_inflight_fetch")]
    pub max_inflight_fetch: ByteSize,
    /// The newest batches of all partitions led here, kept in memory for those who read at the end of a log. 0: none.
    /// Default: 64MiB.
    #[serde(default = "defaults::newest_batches")]
    pub newest_batches: ByteSize,
    /// Room on the disk that no record of a client takes: below it they are refused with DISK_FULL until there is room. It is
    /// for promises, for what is known of logs, and down to a quarter for what other brokers replicate here. A size, or
    /// `auto`: a twentieth of the file system, 1GiB at most. Default: auto.
    #[serde(default)]
    pub disk_reserve: DiskReserve,
    /// Threads that run the partitions' rules and write their logs. 0: half of the cores, at least one. Default: 0.
    #[serde(default)]
    pub shards: usize,
    /// Threads that flush. Default: 4.
    #[serde(default = "defaults::flush_threads")]
    pub flush_threads: usize,
    /// Bytes a second at which all logs are read again and again, so that damage is found while other brokers still hold what
    /// is damaged. 0: never. Default: 20MiB.
    #[serde(default = "defaults::scrub_rate")]
    pub scrub_rate: ByteSize,
    /// Bytes a second that compaction reads and writes, over all partitions of topics that are compacted. 0: none is compacted
    /// here. Default: 64MiB.
    #[serde(default = "defaults::compaction_rate")]
    pub compaction_rate: ByteSize,
    /// Memory for the keys of the one partition that is compacted at a time, 32 bytes or so for each. With more keys than fit, a
    /// partition is compacted in several passes. Default: 64MiB. Minimum: 1MiB. Maximum: 4GiB.
    #[serde(default = "defaults::compaction_map")]
    pub compaction_map: ByteSize,
    /// Between two looks for a partition that is dirty enough to be compacted, where there was none. Default: 15s.
    #[serde(default = "defaults::compaction_interval", with = "duration")]
    pub compaction_interval: Duration,
    /// How partitions are kept on disk.
    #[serde(default)]
    pub log: LogConfig,
    /// How partitions are replicated.
    #[serde(default)]
    pub replication: ReplicationConfig,
}

/// Where a controller is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ControllerEndpoint {
    /// Its number.
    pub id: ControllerId,
    /// Its zone.
    pub zone: ZoneId,
    /// `host:port` at which it listens.
    pub endpoint: String,
}

/// How partitions are replicated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ReplicationConfig {
    /// Topics with durability `memory` are flushed this long after an append at the latest. Default: 500ms.
    #[serde(with = "duration")]
    pub flush_interval: Duration,
    /// Bytes of one partition sent to a follower and not acknowledged by it. Default: 8MiB.
    pub inflight_limit: ByteSize,
    /// Bytes queued for one other broker. What does not fit is dropped and sent again later. Default: 128MiB.
    pub peer_queue: ByteSize,
    /// A leader that heard from no majority for this long refuses records with NOT_ENOUGH_REPLICAS, and answers those
    /// that wait for their commit with NOT_ENOUGH_REPLICAS_AFTER_APPEND. Where nothing happens leaders make themselves heard
    /// three times in it, or twice in `follower_read_staleness` where that is more often. Default: 3s.
    #[serde(with = "duration")]
    pub quorum_timeout: Duration,
    /// A leader that does not get on for this long asks the controllers for another. Default: 5s.
    #[serde(with = "duration")]
    pub stall_timeout: Duration,
    /// A follower that did not hear from its leader for this long sends consumers to the leader. Default: 2s.
    #[serde(with = "duration")]
    pub follower_read_staleness: Duration,
}

impl Default for ReplicationConfig {
    fn default() -> Self {
        let replica = ReplicaConfig::default();
        ReplicationConfig {
            flush_interval: replica.flush_interval,
            inflight_limit: ByteSize(replica.inflight_limit as u64),
            peer_queue: ByteSize(128 << 20),
            quorum_timeout: replica.quorum_timeout,
            stall_timeout: replica.stall_timeout,
            follower_read_staleness: Duration::from_secs(2),
        }
    }
}

impl ReplicationConfig {
    /// How often a leader makes itself heard of which nobody has anything to learn: one answer, or one round, may be late or
    /// lost, and neither does the leader take itself for cut off, nor a follower what it reads for old.
    pub(crate) fn calm_lead_interval(&self) -> Duration {
        (self.quorum_timeout / 3).min(self.follower_read_staleness / 2)
    }
}

mod defaults {
    use std::time::Duration;

    use holdfast_log::ByteSize;

    pub(super) fn heartbeat_interval() -> Duration {
        Duration::from_millis(100)
    }

    pub(super) fn drain_timeout() -> Duration {
        Duration::from_secs(5)
    }

    pub(super) fn max_batch_size() -> ByteSize {
        ByteSize(4 << 20)
    }

    pub(super) fn max_inflight_produce() -> ByteSize {
        ByteSize(256 << 20)
    }

    pub(super) fn max_inflight_fetch() -> ByteSize {
        ByteSize(256 << 20)
    }

    pub(super) fn flush_threads() -> usize {
        4
    }

    pub(super) fn newest_batches() -> ByteSize {
        ByteSize(64 << 20)
    }

    pub(super) fn scrub_rate() -> ByteSize {
        ByteSize(20 << 20)
    }

    pub(super) fn compaction_rate() -> ByteSize {
        ByteSize(64 << 20)
    }

    pub(super) fn compaction_map() -> ByteSize {
        ByteSize(64 << 20)
    }

    pub(super) fn compaction_interval() -> Duration {
        Duration::from_secs(15)
    }
}

impl BrokerConfig {
    /// A configuration with defaults for all that has one.
    pub fn new(
        id: BrokerId,
        zone: ZoneId,
        data_dir: PathBuf,
        client_listen: String,
        peer_listen: String,
        controllers: Vec<ControllerEndpoint>,
    ) -> BrokerConfig {
        BrokerConfig {
            id,
            zone,
            data_dir,
            client_listen,
            peer_listen,
            client_endpoint: None,
            peer_endpoint: None,
            controllers,
            heartbeat_interval: defaults::heartbeat_interval(),
            drain_timeout: defaults::drain_timeout(),
            max_batch_size: defaults::max_batch_size(),
            max_inflight_produce: defaults::max_inflight_produce(),
            max_inflight_fetch: defaults::max_inflight_fetch(),
            newest_batches: defaults::newest_batches(),
            disk_reserve: DiskReserve::Auto,
            shards: 0,
            flush_threads: defaults::flush_threads(),
            scrub_rate: defaults::scrub_rate(),
            compaction_rate: defaults::compaction_rate(),
            compaction_map: defaults::compaction_map(),
            compaction_interval: defaults::compaction_interval(),
            log: LogConfig::default(),
            replication: ReplicationConfig::default(),
        }
    }

    /// Every problem of this section, one line each; empty if it can be used.
    pub fn validate(&self) -> Vec<String> {
        let mut problems = self.log.validate();
        let mut check = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_owned());
            }
        };
        let name = |text: &str| !text.is_empty() && text.len() <= MAX_NAME;
        let address = |text: &str| {
            name(text) && text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        };
        check(name(self.zone.as_str()), "zone is empty or longer than 256 bytes");
        check(address(&self.client_listen), "client-listen is not of the form host:port");
        check(address(&self.peer_listen), "peer-listen is not of the form host:port");
        check(
            self.client_endpoint.as_deref().is_none_or(address),
            "client-endpoint is not of the form host:port",
        );
        check(
            self.peer_endpoint.as_deref().is_none_or(address),
            "peer-endpoint is not of the form host:port",
        );
        check(!self.controllers.is_empty(), "controllers is empty: name every controller of the cluster");
        check(
            self.controllers.iter().all(|controller| address(&controller.endpoint)),
            "an endpoint of controllers is not of the form host:port",
        );
        check(self.heartbeat_interval >= Duration::from_millis(10), "heartbeat-interval is below 10ms");
        check(
            (1 << 10..=16 << 20).contains(&self.max_batch_size.0),
            "max-batch-size is not within 1KiB to 16MiB",
        );
        check(
            self.max_inflight_produce.0 >= self.max_batch_size.0,
            "max-inflight-produce is below max-batch-size",
        );
        check(self.max_inflight_fetch.0 >= 32 << 20, "max-inflight-fetch is below 32MiB");
        check((1..=64).contains(&self.flush_threads), "flush-threads is not within 1 to 64");
        check(self.shards <= 256, "shards is above 256");
        check(
            self.scrub_rate.0 == 0 || self.scrub_rate.0 >= 64 << 10,
            "scrub-rate is below 64KiB, and not 0",
        );
        check(
            self.compaction_rate.0 == 0 || self.compaction_rate.0 >= 64 << 10,
            "compaction-rate is below 64KiB, and not 0",
        );
        check(
            (1 << 20..=4 << 30).contains(&self.compaction_map.0),
            "compaction-map is not within 1MiB to 4GiB",
        );
        check(self.compaction_interval >= Duration::from_millis(10), "compaction-interval is below 10ms");
        let replication = &self.replication;
        check(
            (1 << 20..=1 << 30).contains(&replication.inflight_limit.0),
            "replication.inflight-limit is not within 1MiB to 1GiB",
        );
        check(
            replication.peer_queue.0 >= replication.inflight_limit.0,
            "replication.peer-queue is below replication.inflight-limit",
        );
        problems
    }

    pub(crate) fn client_endpoint(&self) -> &str {
        self.client_endpoint.as_deref().unwrap_or(&self.client_listen)
    }

    pub(crate) fn peer_endpoint(&self) -> &str {
        self.peer_endpoint.as_deref().unwrap_or(&self.peer_listen)
    }

    pub(crate) fn shard_count(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        if self.shards == 0 { (cores / 2).max(1) } else { self.shards }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rounds of a calm leader fit into what makes a follower's reads old, three into what makes the leader refuse.
    #[test]
    fn a_calm_leader_is_heard_often_enough_for_both_timeouts() {
        let of = |quorum_timeout, follower_read_staleness| {
            let (quorum_timeout, follower_read_staleness) =
                (Duration::from_millis(quorum_timeout), Duration::from_millis(follower_read_staleness));
            ReplicationConfig { quorum_timeout, follower_read_staleness, ..ReplicationConfig::default() }
                .calm_lead_interval()
        };
        assert_eq!(ReplicationConfig::default().calm_lead_interval(), Duration::from_secs(1));
        assert_eq!(of(1500, 2000), Duration::from_millis(500));
        assert_eq!(of(3000, 600), Duration::from_millis(300));
    }
}
