//! `holdfast bench probe`: what a client sees of an outage, partition by partition.
//!
//! A record is due at every partition at a fixed interval, whatever became of the one before. The gaps between
//! acknowledgements are what counts: a stall shows as one long gap.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use holdfast_client::{Client, Producer, ProducerConfig, Record};
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::args::{BenchProbeArgs, Format, Global};
use crate::commands::connect::{build_failed, connect, interrupts};
use crate::demo::gaps::Gaps;
use crate::demo::report::{RecoveryTime, rounded};
use crate::exit::{self, CliError};
use crate::output::{print_json, print_table, table};

/// Bytes of a probe.
const VALUE: [u8; 100] = [b'p'; 100];
/// Their key: a topic that is compacted takes none without.
const KEY: &str = "probe";
/// How long the last probes may take.
const CLOSE_PATIENCE: Duration = Duration::from_secs(60);
/// Gaps before this are those of connecting.
const WARM_UP: Duration = Duration::from_secs(1);

/// What one partition showed.
#[derive(Debug, Serialize)]
struct Probed {
    partition: u32,
    /// The zone that led it when the probe began, if any did.
    led_in: Option<String>,
    longest_gap_ms: f64,
}

pub(crate) async fn run(global: &Global, args: &BenchProbeArgs) -> Result<ExitCode, CliError> {
    if args.interval < Duration::from_millis(1) || args.duration <= WARM_UP {
        let why = "--interval must be at least 1ms, and --duration longer than 1s";
        return Err(CliError::new(
            exit::USAGE,
            "reading the flags of bench probe",
            why,
            "correct these flags",
        ));
    }
    let client = connect(global).await?;
    let partitions = client.map().topic_named(&args.topic).map_or(0, |topic| topic.spec.partitions);
    let gaps = Arc::new(Gaps::new(partitions));
    let watched = Arc::clone(&gaps);
    let producer = client
        .producer(&args.topic)
        .config(ProducerConfig { linger: Duration::ZERO, ..ProducerConfig::default() })
        .on_ack(Arc::new(move |batch| watched.acknowledged(batch.partition, batch.records, batch.latency)))
        .build()
        .await
        .map_err(|error| build_failed(format!("probing topic {}", args.topic), &error))?;
    let begin = Instant::now();
    let led_in = leaders(&client, &args.topic);
    probe(&producer, args, begin).await?;
    let end = Instant::now();
    let probed: Vec<Probed> = (0..partitions)
        .map(|partition| {
            let longest = gaps.longest(partition, (begin + WARM_UP).into_std(), end.into_std());
            Probed {
                partition,
                led_in: led_in.get(partition as usize).cloned().flatten(),
                longest_gap_ms: rounded(longest.as_secs_f64() * 1000.0),
            }
        })
        .collect();
    let report = producer.close(CLOSE_PATIENCE).await;
    print(global, args, &probed, &gaps, report)?;
    let clean = report.failed + report.unknown == 0;
    Ok(ExitCode::from(if clean { exit::OK } else { exit::WARNING }))
}

async fn probe(producer: &Producer, args: &BenchProbeArgs, begin: Instant) -> Result<(), CliError> {
    let (interrupted, _) = interrupts();
    let mut ticks = interval_at(begin, args.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while begin.elapsed() < args.duration && !interrupted.is_cancelled() {
        ticks.tick().await;
        for partition in 0..producer.partitions() {
            let record = Record::new(&VALUE[..]).with_key(KEY).with_partition(partition);
            // Its outcome is counted by the producer.
            drop(producer.send(record).await.map_err(|error| CliError::api("probing", &error.source))?);
        }
    }
    Ok(())
}

fn leaders(client: &Client, topic: &str) -> Vec<Option<String>> {
    let map = client.map();
    let Some(topic) = map.topic_named(topic) else { return Vec::new() };
    let zone = |id| map.leader_of(id).map(|leader| leader.zone.to_string());
    map.partitions_of(topic.id).map(|partition| zone(partition.id)).collect()
}

fn print(
    global: &Global,
    args: &BenchProbeArgs,
    probed: &[Probed],
    gaps: &Gaps,
    report: holdfast_client::CloseReport,
) -> Result<(), CliError> {
    let over_all = RecoveryTime::of(probed.iter().map(|probed| probed.longest_gap_ms).collect());
    let quiet = rounded(gaps.quiet_p999().as_secs_f64() * 1000.0);
    if global.format == Format::Json {
        return print_json(&json!({
            "v": 1,
            "topic": args.topic,
            "interval_ms": args.interval.as_millis() as u64,
            "acked": report.acked,
            "failed": report.failed,
            "unknown": report.unknown,
            "gap_ms_p999": quiet,
            "longest_gap_ms": over_all,
            "partitions": probed,
        }));
    }
    let mut rows = table(&["PARTITION", "LED-IN", "LONGEST-GAP-MS"]);
    for probed in probed {
        let led_in = probed.led_in.clone().unwrap_or_else(|| "-".to_owned());
        rows.add_row([probed.partition.to_string(), led_in, probed.longest_gap_ms.to_string()]);
    }
    print_table(&rows)?;
    let RecoveryTime { p50, p99, max } = over_all;
    eprintln!(
        "longest gap over partitions  p50 {p50} ms  p99 {p99} ms  max {max} ms   acked {}  failed {}  unknown {}",
        report.acked, report.failed, report.unknown
    );
    Ok(())
}
