//! Heartbeats to every controller, leader or not, so that a new leader already knows who lives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::Stream;
use holdfast_core::metadata::BrokerRegistration;
use holdfast_core::{ControllerId, ErrorCode};
use holdfast_proto::ApiError;
use holdfast_proto::convert::metadata::report_to_wire;
use holdfast_proto::internal::v1::{HeartbeatRequest, HeartbeatResponse};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};

use crate::controllers::{Controller, ControllerView};
use crate::disk_space::Room;
use crate::fatal::Fatal;
use crate::reports::Reports;

/// Pauses before a stream is opened again, the last one from then on. Short after one that worked: this broker is taken for
/// dead when it is not back within the controllers' `reset-grace`.
const RETRY_PAUSES_MS: [u64; 4] = [5, 10, 30, 100];

/// After so many heartbeats what still waits for the controllers is told again.
const REMIND_AFTER: u64 = 20;

/// After so many heartbeats everything is told again: a controller that was behind may have had no use for it yet.
const REPEAT_AFTER: u64 = 600;

/// Reports of so long a moment go in one heartbeat: a failover moves many partitions at once.
const TOGETHER: Duration = Duration::from_millis(2);

/// What every heartbeat says.
#[derive(Clone)]
pub(crate) struct HeartbeatContext {
    pub(crate) cluster: String,
    pub(crate) registration: BrokerRegistration,
    pub(crate) interval: Duration,
    pub(crate) reports: Reports,
    /// Whether this broker is about to stop; said at once when it changes.
    pub(crate) draining: watch::Receiver<bool>,
    /// How much room there is on the disk; said at once where it gets short, or is not any more.
    pub(crate) room: watch::Receiver<Room>,
    /// Set where a controller refuses this broker for good: the process has to end.
    pub(crate) fatal: Fatal,
}

/// Keeps the stream to one controller open for ever; ends with the runtime.
pub(crate) async fn run(context: HeartbeatContext, controller: Arc<Controller>) {
    let mut failures = 0;
    loop {
        if let Err(status) = exchange(&context, &controller).await {
            let error = ApiError::from_status(&status);
            if error.code == ErrorCode::WrongCluster {
                refuse(&context, &controller, &error.message);
            }
            tracing::debug!(controller = %controller.config.id, %error, "heartbeat stream ended");
        }
        let view = controller.view();
        failures = if view.answered.is_some() { 0 } else { failures + 1 };
        controller.set_view(ControllerView { answered: None, ..view });
        let pause = RETRY_PAUSES_MS[failures.min(RETRY_PAUSES_MS.len() - 1)];
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

async fn exchange(context: &HeartbeatContext, controller: &Controller) -> Result<(), tonic::Status> {
    let response = controller.client().heartbeat(heartbeats(context.clone())).await?;
    let mut answers = response.into_inner();
    while let Some(answer) = answers.message().await? {
        take_note(context, controller, &answer);
    }
    Ok(())
}

fn take_note(context: &HeartbeatContext, controller: &Controller, answer: &HeartbeatResponse) {
    controller.set_view(ControllerView {
        answered: Some(Instant::now()),
        term: answer.term,
        leader: (answer.leader_id != 0).then_some(ControllerId(answer.leader_id)),
    });
    if !answer.refusal.is_empty() {
        refuse(context, controller, &answer.refusal);
    }
}

fn refuse(context: &HeartbeatContext, controller: &Controller, refusal: &str) {
    let problem = format!(
        "controller {} at {} refuses this broker: {refusal}",
        controller.config.id, controller.config.endpoint
    );
    context.fatal.report(problem);
}

/// Ticks as long as the stream is read; each heartbeat carries what was reported since the one before.
fn heartbeats(context: HeartbeatContext) -> impl Stream<Item = HeartbeatRequest> + Send + 'static {
    let mut ticks = tokio::time::interval(context.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let news = context.reports.news();
    futures::stream::unfold(
        (context, ticks, news, 0, 1),
        |(mut context, mut ticks, mut news, seen, number): (HeartbeatContext, _, _, _, u64)| async move {
            next_beat(&mut ticks, &mut context, &mut news).await;
            let seen = if number % REPEAT_AFTER == 0 { 0 } else { seen };
            let (mut reports, seen) = context.reports.since(seen);
            if number % REMIND_AFTER == 0 {
                reports.extend(context.reports.unsettled());
            }
            let registration = &context.registration;
            let request = HeartbeatRequest {
                cluster: context.cluster.clone(),
                broker_id: registration.id.0,
                zone: registration.zone.as_str().to_owned(),
                dir: registration.dir.0,
                incarnation: registration.incarnation.0,
                client_endpoint: registration.client_endpoint.clone(),
                peer_endpoint: registration.peer_endpoint.clone(),
                reports: reports.iter().map(|(report, complete)| report_to_wire(report, *complete)).collect(),
                draining: *context.draining.borrow(),
                disk_full: context.room.borrow().is_short(),
            };
            Some((request, (context, ticks, news, seen, number + 1)))
        },
    )
}

/// Waits for the next tick, or for something that is to be said at once. Reports are: the controllers' ledgers time
/// failovers by them.
async fn next_beat(ticks: &mut Interval, context: &mut HeartbeatContext, news: &mut watch::Receiver<u64>) {
    let HeartbeatContext { draining, room, .. } = context;
    let was_short = room.borrow().is_short();
    let reported = async {
        if news.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(TOGETHER).await;
    };
    let changed = async {
        if draining.changed().await.is_err() {
            // Nobody can change it any more.
            std::future::pending::<()>().await;
        }
    };
    let filled = async {
        if room.wait_for(|room| room.is_short() != was_short).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        _ = ticks.tick() => {}
        () = changed => {}
        () = filled => {}
        () = reported => {}
    }
}
