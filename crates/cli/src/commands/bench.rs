//! `holdfast bench`. Of producers: throughput, and the acknowledgement latency of every single record.
//!
//! Without a rate the loop is closed: every producer keeps its buffer full, and latency counts from when the buffer took
//! a record. With a rate it is open: latency counts from when a record was due, so that a stall is not hidden.

mod flights;
mod measure;
mod pace;
mod probe;
mod report;
mod sender;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use holdfast_client::{Producer, ProducerConfig};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::connect::{build_failed, connect, interrupts};
use super::produce::compression;
use crate::args::{BenchCommand, BenchProduceArgs, Global};
use crate::exit::{self, CliError};
use measure::{Meter, Totals};
use pace::Pace;
use sender::{Sender, Sent};

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);
/// Producers at most: each has its own connections and buffer.
const MAX_CLIENTS: usize = 1024;
/// A record with its batch header must pass a broker's limit.
const MAX_RECORD: usize = 4 << 20;

pub(crate) async fn run(global: &Global, command: BenchCommand) -> Result<ExitCode, CliError> {
    match command {
        BenchCommand::Produce(args) => produce(global, args).await,
        BenchCommand::Probe(args) => probe::run(global, &args).await,
    }
}

async fn produce(global: &Global, args: BenchProduceArgs) -> Result<ExitCode, CliError> {
    validate(&args)?;
    let (interrupted, impatient) = interrupts();
    let mut producers = Vec::with_capacity(args.clients);
    let meters: Vec<Arc<Meter>> = (0..args.clients).map(|_| Arc::new(Meter::default())).collect();
    for meter in &meters {
        producers.push(producer(global, &args, meter.clone()).await?);
    }
    // After all that can be refused: an error stands alone.
    report::print_parameters(&args);
    let values = sender::values(args.record);
    let start = Instant::now();
    let mut senders = JoinSet::new();
    for (number, (producer, meter)) in producers.into_iter().zip(&meters).enumerate() {
        let pace = args.rate.map(|rate| Pace::new(start, rate, number, args.clients));
        let sender = Sender::new(producer, meter.clone(), values.clone(), args.record, args.keys, pace);
        senders.spawn(sender.run(start + args.duration, interrupted.clone(), impatient.clone()));
    }
    let (totals, sent) = follow(&args, start, &meters, senders).await?;
    report::print_total(global, &args, &totals, &sent)?;
    Ok(ExitCode::from(if sent.is_clean() { exit::OK } else { exit::WARNING }))
}

fn validate(args: &BenchProduceArgs) -> Result<(), CliError> {
    let mut problems = Vec::new();
    let mut check = |holds: bool, problem: &str| {
        if !holds {
            problems.push(problem.to_owned());
        }
    };
    check((1..=MAX_CLIENTS).contains(&args.clients), "--clients must be 1 to 1024");
    check((1..=MAX_RECORD).contains(&args.record), "--record must be 1 to 4194304 bytes");
    check(!args.duration.is_zero(), "--duration must not be zero");
    check(args.rate != Some(0), "--rate must not be zero");
    if problems.is_empty() {
        return Ok(());
    }
    Err(CliError::new(
        exit::USAGE,
        "reading the flags of bench produce",
        problems.join("; "),
        "correct these flags",
    ))
}

/// A producer with connections of its own.
async fn producer(global: &Global, args: &BenchProduceArgs, meter: Arc<Meter>) -> Result<Producer, CliError> {
    let client = connect(global).await?;
    let config = ProducerConfig {
        batch_size: args.batch_size,
        linger: args.linger,
        compression: compression(args.compression),
        buffer_memory: args.buffer.max(args.batch_size).max(2 * args.record),
        ..ProducerConfig::default()
    };
    let builder = client.producer(&args.topic).config(config);
    let producer = builder.on_ack(Arc::new(move |_| meter.batch_acked.notify_one())).build().await;
    producer.map_err(|error| build_failed(format!("producing to topic {:?}", args.topic), &error))
}

/// Prints a line per second until every sender has ended.
async fn follow(
    args: &BenchProduceArgs,
    start: Instant,
    meters: &[Arc<Meter>],
    mut senders: JoinSet<Sent>,
) -> Result<(Totals, Sent), CliError> {
    let mut totals = Totals::new(start);
    let mut sent = Sent::default();
    let mut ticks = interval_at(start + PROGRESS, PROGRESS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ended = senders.join_next() => match ended {
                Some(Ok(ended)) => sent.add(ended),
                Some(Err(error)) => {
                    let next = "report this, with the command line";
                    return Err(CliError::new(exit::SOFTWARE, "sending", error.to_string(), next));
                }
                None => break,
            },
            now = ticks.tick() => report::print_progress(args, &totals.take_interval(meters, now)),
        }
    }
    totals.take_interval(meters, Instant::now());
    Ok((totals, sent))
}

/// What ends sending early, and what ends waiting for outcomes.
type Stop = CancellationToken;

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Arguments, Command};

    fn validated(flags: &str) -> Result<(), CliError> {
        let line = format!("holdfast bench produce orders {flags}");
        let Command::Bench(args) = Arguments::try_parse_from(line.split_whitespace()).unwrap().command else {
            panic!("another command")
        };
        let BenchCommand::Produce(args) = args.command else { panic!("not a produce") };
        validate(&args)
    }

    #[test]
    fn flags_that_make_no_sense_are_named_at_once() {
        validated("").unwrap();
        let error = validated("--clients 0 --record 0 --rate 0 --duration 0s").unwrap_err();
        assert_eq!(error.exit, exit::USAGE);
        assert_eq!(error.why.split(';').count(), 4, "{error}");
    }
}
