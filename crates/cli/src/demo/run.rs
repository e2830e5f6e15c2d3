//! The demo from start to report.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_checker::Event;
use holdfast_checker::history::Edge;
use holdfast_client::Client;
use holdfast_core::ZoneId;
use holdfast_core::metadata::{ClusterMap, TopicSpec};
use tokio_util::sync::CancellationToken;

use super::cluster::{ClusterOptions, LocalCluster, ZONES};
use super::gaps::Gaps;
use super::load::{self, Load, RECORD_SIZE};
use super::readers;
use super::report::{Failover, RecoveryTime, Report, rounded};
use super::screen::{Frame, Key, Screen};
use super::script::{Action, Script, Step};
use super::witness::{Witness, WitnessError};
use crate::exit::{self, CliError};

const TOPIC: &str = "demo";
/// The ports that the documentation names; others where they are taken.
const CLIENT_PORT: u16 = 7070;
/// How long the cluster may take to have a leader for every partition.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long everything that was sent may take to have an outcome, and to be read back, once all zones are up.
const FINISH_PATIENCE: Duration = Duration::from_secs(180);
/// After the last step of a script the load goes on for so long.
const AFTERMATH: Duration = Duration::from_secs(10);
/// Without a script, a duration or a terminal.
const DEFAULT_DURATION: Duration = Duration::from_secs(30);

/// What to run.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// What happens when.
    pub script: Script,
    /// How long the load runs; `None` for as long as the screen is looked at, or as the script needs.
    pub duration: Option<Duration>,
    /// Load in MB/s.
    pub rate: f64,
    /// Partitions of the topic.
    pub partitions: u32,
    /// Where files are kept.
    pub dir: PathBuf,
    /// Where the history of the run is kept, if anywhere.
    pub history: Option<PathBuf>,
    /// Whether to draw live figures and take keys.
    pub screen: bool,
}

/// Starts a cluster, puts it under load, loses and heals zones, reads everything back.
///
/// # Errors
/// Where the cluster cannot be started or used at all. What it broke is in the report.
pub async fn run(options: DemoOptions) -> Result<Report, CliError> {
    let witness = Witness::new(TOPIC, options.partitions, options.history.as_deref());
    let witness = Arc::new(witness.map_err(|error| no_verdict(&error))?);
    let cluster = start_cluster(&options.dir).await?;
    let bootstrap = cluster.bootstrap();
    let demo = Demo {
        cluster: Arc::new(Mutex::new(Some(cluster))),
        witness,
        gaps: Arc::new(Gaps::new(options.partitions)),
        client: connect(&bootstrap).await?,
        bootstrap,
        options,
    };
    let outcome = demo.run().await;
    demo.end().await;
    outcome
}

struct Demo {
    options: DemoOptions,
    /// Gone once it was shut down.
    cluster: Arc<Mutex<Option<LocalCluster>>>,
    bootstrap: Vec<String>,
    client: Client,
    witness: Arc<Witness>,
    gaps: Arc<Gaps>,
}

/// A zone that was killed.
struct Fault {
    zone: usize,
    /// Partitions that were led there.
    led: BTreeSet<u32>,
    at: Instant,
    healed: Option<Instant>,
}

impl Demo {
    async fn run(&self) -> Result<Report, CliError> {
        self.create_topic().await?;
        eprintln!(
            "three zones on {}, {} partitions, {} MB/s; from another terminal: holdfast cluster status -b {}",
            self.bootstrap.join(" "),
            self.options.partitions,
            self.options.rate,
            self.bootstrap[0]
        );
        let stop = CancellationToken::new();
        let begun = Instant::now();
        let load = load::start(&self.client, TOPIC, self.options.rate, &self.witness, &self.gaps, &stop)
            .await
            .map_err(|error| {
                CliError::new(exit::SOFTWARE, "starting the load", error.to_string(), "try again")
            })?;
        let reader = tokio::spawn(readers::read_along(
            self.client.clone(),
            TOPIC.to_owned(),
            Arc::clone(&self.witness),
            stop.clone(),
        ));
        let faults = self.play(begun, &load).await;
        stop.cancel();
        let took = begun.elapsed();
        let faults = faults?;
        let failovers = self.failovers(&faults, Instant::now());
        self.heal_all(&faults).await?;
        let read_back = self.finish(load, reader).await?;
        let judged = self.witness.finish().map_err(|error| no_verdict(&error))?;
        let throughput = judged.counts.values.acked as f64 * RECORD_SIZE as f64 / 1e6 / took.as_secs_f64();
        Ok(Report::new(judged, read_back, throughput, self.gaps.latency_ms([0.5, 0.99, 0.999]), failovers))
    }

    async fn create_topic(&self) -> Result<(), CliError> {
        let spec = TopicSpec { partitions: self.options.partitions, ..TopicSpec::default() };
        let give_up = Instant::now() + START_PATIENCE;
        loop {
            match self.client.create_topic(TOPIC, spec.clone()).await {
                Ok(_) => return Ok(()),
                // The brokers of all zones register within a moment of their start.
                Err(error) if Instant::now() < give_up => {
                    tracing::debug!(%error, "topic not created yet");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(CliError::api("creating the demo's topic", &error)),
            }
        }
    }

    /// Plays script, keys and clock until the end.
    async fn play(&self, begun: Instant, load: &Load) -> Result<Vec<Fault>, CliError> {
        let mut screen = if self.options.screen { Some(Screen::open()?) } else { None };
        let mut faults: Vec<Fault> = Vec::new();
        let mut steps = self.options.script.steps.iter().copied().peekable();
        let end = self.end_of_load();
        let mut frames = tokio::time::interval(Duration::from_millis(250));
        loop {
            let at = |after: Duration| tokio::time::Instant::from_std(begun + after);
            let next_step = steps.peek().map_or(Duration::MAX, |step| step.at);
            let never = Duration::from_secs(u64::from(u32::MAX));
            tokio::select! {
                () = tokio::time::sleep_until(at(next_step.min(never))) => {
                    if let Some(step) = steps.next() {
                        self.perform(step, &mut faults).await?;
                    }
                }
                () = tokio::time::sleep_until(at(end.unwrap_or(never))) => return Ok(faults),
                _ = frames.tick(), if screen.is_some() => {
                    if let Some(screen) = &mut screen {
                        screen.draw(&self.frame(begun, load, &faults))?;
                    }
                }
                key = next_key(&mut screen) => match key {
                    Key::Quit => return Ok(faults),
                    Key::Zone(zone) => {
                        let up = self.with_cluster(move |cluster| cluster.is_up(zone)).await.unwrap_or(false);
                        let action = if up { Action::Kill } else { Action::Heal };
                        self.perform(Step { action, zone, at: begun.elapsed() }, &mut faults).await?;
                    }
                },
            }
        }
    }

    fn end_of_load(&self) -> Option<Duration> {
        match self.options.duration {
            Some(duration) => Some(duration),
            None if !self.options.script.steps.is_empty() => Some(self.options.script.end() + AFTERMATH),
            None if self.options.screen => None,
            None => Some(DEFAULT_DURATION),
        }
    }

    async fn perform(&self, step: Step, faults: &mut Vec<Fault>) -> Result<(), CliError> {
        let zone = step.zone;
        match step.action {
            Action::Kill => {
                let led = led_in(&self.client.map(), ZONES[zone]);
                self.gaps.fault();
                self.note_fault(zone, Edge::Begin);
                faults.push(Fault { zone, led, at: Instant::now(), healed: None });
                self.with_cluster(move |cluster| cluster.kill(zone)).await;
            }
            Action::Heal => {
                if let Some(fault) = faults.iter_mut().rev().find(|fault| fault.zone == zone) {
                    fault.healed = Some(Instant::now());
                    self.note_fault(zone, Edge::End);
                }
                let healed = self.with_cluster(move |cluster| cluster.heal(zone)).await;
                healed.unwrap_or(Ok(())).map_err(|error| heal_failed(zone, &error))?;
            }
        }
        Ok(())
    }

    fn note_fault(&self, zone: usize, edge: Edge) {
        let (name, zone) = (format!("kill zone {}", ZONES[zone]), ZONES[zone]);
        self.witness.note([Event::fault(self.witness.now_us(), &name, Some(zone), edge)]);
    }

    async fn heal_all(&self, faults: &[Fault]) -> Result<(), CliError> {
        for fault in faults.iter().filter(|fault| fault.healed.is_none()) {
            self.note_fault(fault.zone, Edge::End);
        }
        for zone in 0..ZONES.len() {
            let healed = self.with_cluster(move |cluster| cluster.heal(zone)).await;
            healed.unwrap_or(Ok(())).map_err(|error| heal_failed(zone, &error))?;
        }
        Ok(())
    }

    /// Waits for every outcome, then reads everything back with a client that knows nothing of the run.
    async fn finish(&self, load: Load, reader: tokio::task::JoinHandle<()>) -> Result<u64, CliError> {
        let ending = async {
            load.finish().await;
            // It was told to stop; what it saw is noted.
            let _ = reader.await;
            let fresh = connect(&self.bootstrap).await?;
            readers::read_back(&fresh, TOPIC, &self.witness).await.map_err(|problem| {
                CliError::new(
                    exit::CRITICAL,
                    "reading back what was written",
                    problem,
                    "see the report of the run above",
                )
            })
        };
        tokio::time::timeout(FINISH_PATIENCE, ending).await.unwrap_or_else(|_| {
            let why =
                format!("not everything had an outcome and was read within {} s", FINISH_PATIENCE.as_secs());
            Err(CliError::new(exit::CRITICAL, "ending the demo", why, "run it again with HOLDFAST_LOG=info"))
        })
    }

    fn failovers(&self, faults: &[Fault], now: Instant) -> Vec<Failover> {
        let quiet = self.gaps.quiet_p999();
        let millis = |duration: Duration| rounded(duration.as_secs_f64() * 1000.0);
        let describe = |fault: &Fault| {
            let longest = |partition| self.gaps.longest(partition, fault.at, fault.healed.unwrap_or(now));
            let recovery =
                fault.led.iter().map(|&partition| millis(longest(partition).saturating_sub(quiet)));
            let others = (0..self.options.partitions).filter(|partition| !fault.led.contains(partition));
            Failover {
                zone: ZONES[fault.zone].to_owned(),
                rto_ms: RecoveryTime::of(recovery.collect()),
                moved: fault.led.len(),
                quiet_gap_ms: millis(quiet),
                unaffected_gap_ms_max: others.map(|partition| millis(longest(partition))).fold(0.0, f64::max),
            }
        };
        faults.iter().map(describe).collect()
    }

    fn frame(&self, begun: Instant, load: &Load, faults: &[Fault]) -> Frame {
        let map = self.client.map();
        let stats = load.producer.stats();
        let [p50, p99, _] = self.gaps.latency_ms([0.5, 0.99, 0.999]);
        Frame {
            elapsed: begun.elapsed(),
            bootstrap: self.bootstrap.clone(),
            zones: ZONES.map(|zone| (map_says_up(&map, zone), led_in(&map, zone).len())),
            partitions: self.options.partitions,
            acked: stats.acked,
            seen: self.witness.counts().records_shown,
            unknown: stats.unknown,
            throughput_mb_s: stats.acked as f64 * RECORD_SIZE as f64 / 1e6 / begun.elapsed().as_secs_f64(),
            p50_ms: p50,
            p99_ms: p99,
            failovers: self.failovers(faults, Instant::now()),
        }
    }

    /// The cluster's methods block, so they run where that harms nobody.
    async fn with_cluster<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut LocalCluster) -> T + Send + 'static,
    ) -> Option<T> {
        let cluster = Arc::clone(&self.cluster);
        let done = tokio::task::spawn_blocking(move || {
            cluster.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(work)
        });
        done.await.ok().flatten()
    }

    async fn end(&self) {
        let cluster = Arc::clone(&self.cluster);
        let ended = tokio::task::spawn_blocking(move || {
            let cluster = cluster.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(cluster) = cluster {
                cluster.shutdown();
            }
        });
        // A panic in there was reported by its own thread.
        let _ = ended.await;
    }
}

async fn next_key(screen: &mut Option<Screen>) -> Key {
    match screen {
        Some(screen) => screen.next_key().await,
        None => std::future::pending().await,
    }
}

async fn start_cluster(dir: &Path) -> Result<LocalCluster, CliError> {
    let wanted = ClusterOptions { client_port: CLIENT_PORT, ..ClusterOptions::new("demo", dir) };
    let started = tokio::task::spawn_blocking(move || {
        LocalCluster::start(wanted.clone()).or_else(|error| {
            if !matches!(error, super::cluster::ClusterError::Bind { .. }) {
                return Err(error);
            }
            eprintln!("port {CLIENT_PORT} or one beside it is taken: using others");
            LocalCluster::start(ClusterOptions { client_port: 0, ..wanted })
        })
    });
    match started.await {
        Ok(Ok(cluster)) => Ok(cluster),
        Ok(Err(error)) => Err(CliError::new(
            exit::CANNOT_CREATE,
            "starting three zones",
            crate::config::chain(&error),
            "free the port, or name an empty folder with --dir",
        )),
        Err(error) => {
            Err(CliError::new(exit::SOFTWARE, "starting three zones", error.to_string(), "report this"))
        }
    }
}

async fn connect(bootstrap: &[String]) -> Result<Client, CliError> {
    let client = Client::builder().bootstrap(bootstrap.iter().cloned()).connect_timeout(START_PATIENCE);
    client.connect().await.map_err(|error| {
        let why = crate::config::chain(&error);
        CliError::new(
            exit::UNREACHABLE,
            "connecting to the demo's brokers",
            why,
            "run it again with HOLDFAST_LOG=info",
        )
    })
}

/// The load ran, but nobody can say what became of it.
fn no_verdict(error: &WitnessError) -> CliError {
    let (exit, next) = match error {
        WitnessError::Malformed(_) => (exit::SOFTWARE, "report this: the demo recorded what cannot be"),
        _ => (exit::CANNOT_CREATE, "name a file on a disk with room with --history, or leave it out"),
    };
    CliError::new(exit, "keeping the history of the run", error.to_string(), next)
}

fn heal_failed(zone: usize, error: &dyn std::error::Error) -> CliError {
    let what = format!("starting zone {} again", ZONES[zone]);
    CliError::new(exit::CANNOT_CREATE, what, crate::config::chain(error), "run the demo again")
}

/// Partitions of the demo's topic that are led in a zone.
fn led_in(map: &ClusterMap, zone: &str) -> BTreeSet<u32> {
    let Some(topic) = map.topic_named(TOPIC) else { return BTreeSet::new() };
    let zone = ZoneId::new(zone);
    let led = map
        .partitions_of(topic.id)
        .filter(|partition| map.leader_of(partition.id).is_some_and(|leader| leader.zone == zone));
    led.map(|partition| partition.id.index).collect()
}

fn map_says_up(map: &ClusterMap, zone: &str) -> bool {
    map.brokers().any(|broker| broker.zone.as_str() == zone && broker.live)
}
