//! `holdfast consume`: records to standard output.
//!
//! Output is written out whenever no record is ready, so that a pipe sees what there is, and in large pieces otherwise.

mod offset;
pub(crate) mod print;

use std::io;
use std::process::ExitCode;

use futures::stream::{self, FuturesUnordered, SelectAll, StreamExt as _};
use futures::{FutureExt as _, Stream};
use holdfast_client::{
    Client, ConsumeError, Consumer, ConsumerConfig, FetchedBatch, StartAt, Until, WhenTrimmed,
};
use holdfast_core::ErrorCode;
use holdfast_proto::ApiError;
use std::pin::Pin;
use tokio_util::sync::CancellationToken;

use super::connect::{build_failed, connect, interrupts};
use crate::args::{ConsumeArgs, Global};
use crate::config::chain;
use crate::exit::{self, CliError};
use crate::output::write_failed;
use offset::{From, Place};
use print::Printer;

type Batches = Pin<Box<dyn Stream<Item = Result<FetchedBatch, ConsumeError>> + Send>>;

pub(crate) async fn run(global: &Global, args: ConsumeArgs) -> Result<ExitCode, CliError> {
    let from = From::parse(&args.offset, std::time::SystemTime::now())?;
    let (interrupted, _) = interrupts();
    let client = connect(global).await?;
    let mut batches = tokio::select! {
        batches = open(&client, &args, from) => batches?,
        () = interrupted.cancelled() => return Ok(ended(0, true)),
    };
    let mut printer = Printer::new(global.format, &args);
    let outcome = copy(&mut batches, &mut printer, args.count, &interrupted).await;
    match outcome {
        Ok(()) => Ok(ended(printer.count(), interrupted.is_cancelled())),
        Err(Stopped::Consume(error)) => {
            // The error matters more than whether what came before it can be written out.
            let _ = printer.flush();
            Err(consume_failed(&args.topic, &error))
        }
        // Whoever read us has what it wanted.
        Err(Stopped::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(Stopped::Write(error)) => Err(write_failed(&error)),
    }
}

fn ended(count: u64, interrupted: bool) -> ExitCode {
    if interrupted {
        eprintln!("read {count}");
    }
    ExitCode::SUCCESS
}

/// Opens the partitions asked for. Those that begin at the same place share a consumer.
async fn open(client: &Client, args: &ConsumeArgs, from: From) -> Result<SelectAll<Batches>, CliError> {
    let what = || format!("reading topic {:?}", args.topic);
    let until = if args.exit_at_end { Until::HighWatermarkAtStart } else { Until::Never };
    let places = offset::places(client, &args.topic, &args.partitions, from).await?;
    let groups = group(places);
    // Each consumer has its share of the memory that one would have.
    let defaults = ConsumerConfig::default();
    let prefetch = (defaults.prefetch / groups.len().max(1)).max(defaults.max_bytes as usize);
    let when_trimmed = if args.skip_trimmed { WhenTrimmed::Skip } else { WhenTrimmed::Fail };
    let opened = groups.into_iter().map(|(start, partitions)| {
        let builder = client.consumer(&args.topic).start(start).stop(until);
        let builder = builder.config(ConsumerConfig { prefetch, when_trimmed, ..ConsumerConfig::default() });
        match partitions {
            Some(partitions) => builder.partitions(partitions).build(),
            None => builder.build(),
        }
    });
    let mut opened: FuturesUnordered<_> = opened.collect();
    let mut batches = SelectAll::new();
    while let Some(consumer) = opened.next().await {
        batches.push(stream_of(consumer.map_err(|error| build_failed(what(), &error))?));
    }
    Ok(batches)
}

/// Partitions by where they begin; `None` stands for all of the topic.
fn group(places: Vec<Place>) -> Vec<(StartAt, Option<Vec<u32>>)> {
    let mut groups: Vec<(StartAt, Option<Vec<u32>>)> = Vec::new();
    for Place { partition, start } in places {
        let group = groups.iter_mut().find(|(known, partitions)| *known == start && partitions.is_some());
        match (group, partition) {
            (Some((_, Some(partitions))), Some(partition)) => partitions.push(partition),
            (_, partition) => groups.push((start, partition.map(|partition| vec![partition]))),
        }
    }
    groups
}

fn stream_of(consumer: Consumer) -> Batches {
    Box::pin(stream::unfold(consumer, |mut consumer| async move {
        let batch = consumer.next_batch().await?;
        Some((batch, consumer))
    }))
}

/// Why copying ended before all was read.
enum Stopped {
    Consume(ConsumeError),
    Write(io::Error),
}

/// Prints what comes, until the end, `limit` records, or `interrupted`.
async fn copy(
    batches: &mut SelectAll<Batches>,
    printer: &mut Printer,
    limit: Option<u64>,
    interrupted: &CancellationToken,
) -> Result<(), Stopped> {
    let wanted = |printer: &Printer| limit.is_none_or(|limit| printer.count() < limit);
    while wanted(printer) && !interrupted.is_cancelled() {
        let ready = batches.next().now_or_never();
        let batch = match ready {
            Some(batch) => batch,
            None => {
                printer.flush().map_err(Stopped::Write)?;
                tokio::select! {
                    batch = batches.next() => batch,
                    () = interrupted.cancelled() => break,
                }
            }
        };
        let Some(batch) = batch else { break };
        let batch = batch.map_err(Stopped::Consume)?;
        for record in &batch.records {
            if !wanted(printer) {
                break;
            }
            printer.print(batch.partition, record).map_err(Stopped::Write)?;
        }
    }
    printer.flush().map_err(Stopped::Write)
}

fn consume_failed(topic: &str, error: &ConsumeError) -> CliError {
    let what = format!("reading topic {topic:?}");
    match error {
        ConsumeError::Refused { source, .. } => CliError::api(what, source),
        ConsumeError::OutOfRange { .. } => {
            CliError::api(what, &ApiError::new(ErrorCode::OffsetOutOfRange, error.to_string()))
        }
        ConsumeError::Decode { .. } => {
            let next = "what the brokers gave is damaged: see their logs, and keep them";
            CliError::new(exit::SOFTWARE, what, chain(error), next)
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_core::Offset;

    use super::*;

    #[test]
    fn partitions_that_begin_alike_share_a_consumer() {
        let place =
            |partition, offset| Place { partition: Some(partition), start: StartAt::Offset(Offset(offset)) };
        let groups = group(vec![place(0, 5), place(1, 7), place(2, 5)]);
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0], (StartAt::Offset(Offset(5)), Some(vec![0, 2])));
        let all = group(vec![Place { partition: None, start: StartAt::End }]);
        assert_eq!(all, [(StartAt::End, None)]);
    }

    #[test]
    fn an_offset_out_of_range_is_bad_data_and_names_the_range() {
        let error = ConsumeError::OutOfRange {
            partition: 1,
            position: Offset(9),
            log_start_offset: Some(Offset(2)),
            high_watermark: Some(Offset(7)),
        };
        let error = consume_failed("t", &error);
        assert_eq!(error.exit, exit::DATA);
        assert!(error.why.contains("from 2 to 7"), "{error}");
    }
}
