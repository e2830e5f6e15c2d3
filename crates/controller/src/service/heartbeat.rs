//! Heartbeats of brokers: noted at once, answered at once, never waiting for the quorum.

use std::sync::Arc;
use std::time::Instant;

use futures::Stream;
use holdfast_core::metadata::BrokerRegistration;
use holdfast_core::{BrokerId, DirId, Incarnation, ZoneId};
use holdfast_proto::convert::metadata::report_from_wire;
use holdfast_proto::internal::v1::{HeartbeatRequest, HeartbeatResponse};
use tokio::runtime::Handle;
use tonic::{Status, Streaming};

use super::check_cluster;
use crate::config::{MAX_NAME, is_endpoint};
use crate::knock;
use crate::ledger::Observation;
use crate::liveness::{Heard, Run, Tracker};
use crate::shared::Shared;

/// One answer per heartbeat, in order. Ends with the broker's stream.
pub(super) fn answers(
    shared: Arc<Shared>,
    heartbeats: Streaming<HeartbeatRequest>,
) -> impl Stream<Item = Result<HeartbeatResponse, Status>> {
    let stream = OpenStream { shared, run: None, number: 0 };
    futures::stream::try_unfold((stream, heartbeats), async |(mut stream, mut heartbeats)| {
        let Some(heartbeat) = heartbeats.message().await? else { return Ok(None) };
        let answer = answer(&mut stream, heartbeat);
        Ok(Some((answer, (stream, heartbeats))))
    })
}

/// A broker's stream; its end, however it comes, is noted.
struct OpenStream {
    shared: Arc<Shared>,
    /// Whose heartbeats it carries.
    run: Option<Run>,
    /// Its number among all streams, once it carries some.
    number: u64,
}

impl OpenStream {
    /// Notes that the stream carries heartbeats of `run`.
    fn carries(&mut self, tracker: &mut Tracker, run: Run) {
        if self.run != Some(run) {
            self.carries_none(tracker);
            self.run = Some(run);
            self.number = tracker.opened(run);
        }
    }

    /// What comes on it does not count.
    fn carries_none(&mut self, tracker: &mut Tracker) {
        if let Some(earlier) = self.run.take() {
            // The stream is still there: nothing is to be found out about its process.
            let _ = tracker.closed(Instant::now(), earlier);
        }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let Some(run) = self.run else { return };
        let (listened, grace) = {
            let mut brokers = self.shared.brokers();
            let listened = brokers.tracker.closed(Instant::now(), run);
            if listened.is_some() {
                self.shared.quorum.serving().with_map(|map| brokers.reports.cut(map, run.0));
            }
            (listened, brokers.tracker.reset_grace())
        };
        if listened.is_some() {
            self.shared.observer.note(Observation::Cut(run));
        }
        if let (Some(endpoint), Ok(runtime)) = (listened, Handle::try_current()) {
            runtime.spawn(knock::after_cut(Arc::clone(&self.shared), run, endpoint, grace));
        }
        self.shared.wake.notify_one();
    }
}

fn answer(stream: &mut OpenStream, heartbeat: HeartbeatRequest) -> HeartbeatResponse {
    let refusal = note(stream, heartbeat).err().unwrap_or_default();
    let shared = &stream.shared;
    let standing = shared.quorum.standing();
    HeartbeatResponse {
        controller_id: shared.id.0,
        term: standing.term,
        leader_id: standing.leader.map_or(0, |leader| leader.0),
        metadata_index: shared.quorum.serving().with_map(|map| map.index()),
        refusal,
    }
}

/// Notes the heartbeat; otherwise says why it does not count.
fn note(stream: &mut OpenStream, mut heartbeat: HeartbeatRequest) -> Result<(), String> {
    let shared = Arc::clone(&stream.shared);
    check_cluster(&shared, &heartbeat.cluster).map_err(|error| error.message)?;
    let broker = BrokerId(heartbeat.broker_id);
    let (reports, draining) = (std::mem::take(&mut heartbeat.reports), heartbeat.draining);
    let disk_full = heartbeat.disk_full;
    let registration = registration(heartbeat)?;
    let run = (broker, registration.incarnation);
    let now = Instant::now();
    let mut brokers = shared.brokers();
    shared.quorum.serving().with_map(|map| {
        let heard = brokers.tracker.heard(now, map, registration);
        let Ok(Heard::Known | Heard::News) = heard else {
            stream.carries_none(&mut brokers.tracker);
            return heard.map(drop).map_err(|refusal| refusal.to_string());
        };
        stream.carries(&mut brokers.tracker, run);
        // What waited on an earlier stream is no more what is.
        let reports = if brokers.tracker.is_latest(run, stream.number) { reports } else { Vec::new() };
        shared.observer.note(Observation::Heard(run));
        brokers.upkeep.disk_is_full(broker, disk_full);
        let leaves = draining && brokers.leaving.said(map, run);
        for report in reports {
            match report_from_wire(report) {
                Ok((report, complete)) => {
                    brokers.reports.reported(now, map, broker, &report, complete);
                    shared.observer.note(Observation::Reported(broker, report));
                }
                Err(error) => tracing::warn!(%broker, %error, "a leader's report makes no sense"),
            }
        }
        if heard == Ok(Heard::News) || leaves || !brokers.reports.is_empty() {
            shared.wake.notify_one();
        }
        Ok(())
    })
}

/// What the broker says of itself, within bounds: it goes into the log and to everybody.
fn registration(heartbeat: HeartbeatRequest) -> Result<BrokerRegistration, String> {
    if heartbeat.zone.is_empty() || heartbeat.zone.len() > MAX_NAME {
        return Err(format!("zone must have 1 to {MAX_NAME} bytes"));
    }
    for (name, endpoint) in [("client", &heartbeat.client_endpoint), ("peer", &heartbeat.peer_endpoint)] {
        if !is_endpoint(endpoint) {
            return Err(format!("{name} endpoint is not host:port of at most {MAX_NAME} bytes"));
        }
    }
    Ok(BrokerRegistration {
        id: BrokerId(heartbeat.broker_id),
        zone: ZoneId::new(&heartbeat.zone),
        dir: DirId(heartbeat.dir),
        incarnation: Incarnation(heartbeat.incarnation),
        client_endpoint: heartbeat.client_endpoint,
        peer_endpoint: heartbeat.peer_endpoint,
    })
}
