//! What `bench` prints.

use serde_json::json;

use super::measure::{Interval, Latencies, Totals};
use super::sender::Sent;
use crate::args::{BenchProduceArgs, CompressionArg, Format, Global};
use crate::commands::human::{megabytes_per_second, per_second};
use crate::exit::CliError;
use crate::output::{print_json, print_line};

/// Percentiles of the total, by name.
const PERCENTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// Everything that decides the result, before it.
pub(super) fn print_parameters(args: &BenchProduceArgs) {
    eprintln!(
        "params  topic={} clients={} record={}B batch={}B linger={} compression={} buffer={}B rate={} duration={} \
         values=random latency-from={}",
        args.topic,
        args.clients,
        args.record,
        args.batch_size,
        humantime::format_duration(args.linger),
        codec(args.compression),
        args.buffer,
        args.rate.map_or_else(|| "max".to_owned(), |rate| format!("{rate}/s")),
        humantime::format_duration(args.duration),
        latency_from(args),
    );
}

fn latency_from(args: &BenchProduceArgs) -> &'static str {
    if args.rate.is_some() { "due" } else { "send" }
}

fn codec(compression: CompressionArg) -> &'static str {
    match compression {
        CompressionArg::None => "none",
        CompressionArg::Gzip => "gzip",
        CompressionArg::Snappy => "snappy",
        CompressionArg::Lz4 => "lz4",
        CompressionArg::Zstd => "zstd",
    }
}

/// One second.
pub(super) fn print_progress(args: &BenchProduceArgs, interval: &Interval) {
    let acked = interval.latencies.len();
    eprintln!(
        "{:>4}s  {:>7.1} MB/s  {:>8.0} rec/s   p50 {:.1}  p99 {:.1}  p99.9 {:.1}  max {:.1} ms   err {}",
        interval.since_start.as_secs(),
        megabytes_per_second(acked * args.record as u64, interval.length),
        per_second(acked, interval.length),
        at(&interval.latencies, 0.5),
        at(&interval.latencies, 0.99),
        at(&interval.latencies, 0.999),
        max(&interval.latencies),
        interval.errors,
    );
}

/// The whole run.
pub(super) fn print_total(
    global: &Global,
    args: &BenchProduceArgs,
    totals: &Totals,
    sent: &Sent,
) -> Result<(), CliError> {
    if let Some(error) = &sent.first_error {
        eprintln!("first error: {} [{}], record {}", error.source.message, error.source.code, outcome(error));
    }
    match global.format {
        Format::Text => print_line(&text(args, totals, sent)),
        Format::Json => print_json(&json(args, totals, sent)),
    }
}

fn outcome(error: &holdfast_client::SendError) -> &'static str {
    match error.outcome {
        holdfast_client::Outcome::Failed => "certainly not stored",
        holdfast_client::Outcome::Unknown => "of unknown outcome",
    }
}

fn text(args: &BenchProduceArgs, totals: &Totals, sent: &Sent) -> String {
    let latencies = totals.latencies();
    let percentiles = PERCENTILES.map(|(name, quantile)| format!("{name} {:.1}", at(latencies, quantile)));
    let unsent = if sent.unsent > 0 { format!("  unsent {}", sent.unsent) } else { String::new() };
    format!(
        "total  {:.1} MB/s  {:.0} rec/s   {}  max {:.1} ms   acked {}  failed {}  unknown {}{unsent}",
        megabytes_per_second(sent.acked * args.record as u64, totals.time()),
        per_second(sent.acked, totals.time()),
        percentiles.join("  "),
        max(latencies),
        sent.acked,
        sent.failed,
        sent.unknown,
    )
}

fn json(args: &BenchProduceArgs, totals: &Totals, sent: &Sent) -> serde_json::Value {
    let latencies = totals.latencies();
    let percentiles: serde_json::Map<String, serde_json::Value> = PERCENTILES
        .iter()
        .map(|&(name, quantile)| (name.to_owned(), at(latencies, quantile).into()))
        .collect();
    json!({
        "v": 1,
        "params": {
            "topic": args.topic,
            "clients": args.clients,
            "record_bytes": args.record,
            "batch_bytes": args.batch_size,
            "buffer_bytes": args.buffer,
            "linger_ms": args.linger.as_secs_f64() * 1e3,
            "compression": codec(args.compression),
            "rate": args.rate,
            "duration_s": args.duration.as_secs_f64(),
            "latency_from": latency_from(args),
        },
        "seconds": totals.time().as_secs_f64(),
        "mb_per_s": megabytes_per_second(sent.acked * args.record as u64, totals.time()),
        "records_per_s": per_second(sent.acked, totals.time()),
        "latency_ms": percentiles,
        "latency_max_ms": max(latencies),
        "acked": sent.acked,
        "failed": sent.failed,
        "unknown": sent.unknown,
        "unsent": sent.unsent,
        "resends": sent.resends,
        "duplicates": sent.duplicates,
        "batches": sent.batches,
        "wire_bytes": sent.wire_bytes,
        "first_error": sent.first_error.as_ref().map(|error| json!({
            "code": error.source.code.name(),
            "message": error.source.message,
        })),
    })
}

/// A quantile in milliseconds.
fn at(latencies: &Latencies, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1e3
}

fn max(latencies: &Latencies) -> f64 {
    latencies.max() as f64 / 1e3
}
