//! `holdfast produce`: a record for every line of the input.
//!
//! ```text
//!  reader thread ─► bounded queue of chunks ─► lines ─► producer's buffer ─► outcomes, counted
//! ```
//! A full buffer stops the splitting of lines, a full queue the reading: memory is bounded whatever the input.

mod form;
mod input;
mod lines;
mod outcomes;
mod summary;

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use holdfast_client::{
    CloseReport, Compression, Pending, Producer, ProducerConfig, Record, SendError, TrySendError,
};
use holdfast_core::ErrorCode;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connect::{build_failed, connect, interrupts};
use crate::args::{CompressionArg, Global, ProduceArgs};
use crate::exit::{self, CliError};
use form::Form;
use input::Input;
use lines::Lines;
use outcomes::{Outcomes, Report};
use summary::{Problem, Summary, ending};

/// How long the producer may take to end once every outcome is known.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// A leader that is silent for this long counts as lost, unless the delivery timeout is shorter.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn run(global: &Global, args: ProduceArgs) -> Result<ExitCode, CliError> {
    let what = || format!("producing to topic {:?}", args.topic);
    if args.key_separator.as_deref() == Some("") {
        let next = "give at least one character, or leave the flag out for records without keys";
        return Err(CliError::new(exit::USAGE, what(), "--key-separator is empty", next));
    }
    let mut input = Input::open(args.file.as_deref())?;
    let client = connect(global).await?;
    let producer = client.producer(&args.topic).config(config(&args));
    let producer = producer.build().await.map_err(|error| build_failed(what(), &error))?;
    if let Some(partition) = args.partition.filter(|partition| *partition >= producer.partitions()) {
        let why = format!("there is no partition {partition}: the topic has {}", producer.partitions());
        return Err(CliError::new(exit::DATA, what(), why, "see `holdfast topic describe`"));
    }
    let report = args.print_offsets.then(|| Report::new(global.format));
    let (interrupted, impatient) = interrupts();
    let mut session = Session {
        form: Form::of(&args),
        partition: args.partition,
        outcomes: Outcomes::new(report),
        refused: 0,
        taken_bytes: 0,
        stopped: None,
        producer,
    };
    let started = Instant::now();
    session.feed(&mut input, &interrupted).await?;
    let counts = session.finish(&impatient).await?;
    let summary = Summary { counts, bytes: session.taken_bytes, time: started.elapsed() };
    let first_error = session.stopped.take().or(session.outcomes.take_first_error());
    summary.print(global, &args.topic, first_error.as_ref())?;
    ending(&counts, first_error, &args.topic)
}

fn config(args: &ProduceArgs) -> ProducerConfig {
    let request_timeout = REQUEST_TIMEOUT.min(args.delivery_timeout.saturating_sub(args.linger));
    ProducerConfig {
        batch_size: args.batch_size,
        linger: args.linger,
        compression: compression(args.compression),
        delivery_timeout: args.delivery_timeout,
        request_timeout,
        buffer_memory: ProducerConfig::default().buffer_memory.max(args.batch_size.saturating_mul(8)),
        ..ProducerConfig::default()
    }
}

pub(crate) fn compression(arg: CompressionArg) -> Compression {
    match arg {
        CompressionArg::None => Compression::None,
        CompressionArg::Gzip => Compression::Gzip,
        CompressionArg::Snappy => Compression::Snappy,
        CompressionArg::Lz4 => Compression::Lz4,
        CompressionArg::Zstd => Compression::Zstd,
    }
}

struct Session {
    producer: Producer,
    form: Form,
    partition: Option<u32>,
    outcomes: Outcomes,
    /// Records that the producer did not take.
    refused: u64,
    /// Bytes of keys and values of the records taken.
    taken_bytes: u64,
    /// Why reading ended early.
    stopped: Option<Problem>,
}

impl Session {
    /// Sends the input's lines until it ends, cannot go on, or `interrupted`.
    async fn feed(&mut self, input: &mut Input, interrupted: &CancellationToken) -> Result<(), CliError> {
        let mut lines = Lines::default();
        while self.stopped.is_none() {
            let chunk = tokio::select! {
                biased;
                () = interrupted.cancelled() => return Ok(()),
                chunk = input.next() => chunk,
                () = self.outcomes.oldest() => {
                    self.outcomes.collect()?;
                    continue;
                }
            };
            match chunk {
                None => break,
                Some(Ok(chunk)) => lines.push(chunk),
                Some(Err(error)) => {
                    self.stopped = Some(Problem::Input(error));
                    break;
                }
            }
            while let Some(line) = lines.next_line() {
                if !self.send_line(line, lines.count(), interrupted).await? {
                    return Ok(());
                }
            }
            if lines.is_too_long() {
                self.stopped = Some(Problem::Input(lines.too_long()));
            }
            self.outcomes.collect()?;
        }
        if self.stopped.is_none()
            && let Some(line) = lines.last_line()
        {
            self.send_line(line, lines.count(), interrupted).await?;
        }
        Ok(())
    }

    /// Sends what a line stands for; `false` where nothing more is to be sent.
    async fn send_line(
        &mut self,
        line: Bytes,
        number: u64,
        interrupted: &CancellationToken,
    ) -> Result<bool, CliError> {
        let record = match (self.form.record(line), self.partition) {
            (Ok(record), Some(partition)) => record.with_partition(partition),
            (Ok(record), None) => record,
            (Err(problem), _) => {
                let why = format!("line {number} is no record: {problem}");
                let next = "correct that line; the lines before it were sent";
                self.stopped = Some(Problem::Input(CliError::new(
                    exit::DATA,
                    "cutting the input into records",
                    why,
                    next,
                )));
                return Ok(false);
            }
        };
        self.send(record, interrupted).await
    }

    /// Hands one record to the producer, waiting for room; `false` where nothing more is to be sent.
    async fn send(&mut self, record: Record, interrupted: &CancellationToken) -> Result<bool, CliError> {
        let size = [record.key(), record.value()].into_iter().flatten().map(<[u8]>::len).sum::<usize>();
        let sent = match self.producer.try_send(record) {
            Ok(pending) => Ok(pending),
            Err(TrySendError::Refused(error)) => Err(error),
            Err(TrySendError::Full(record)) => {
                let Some(sent) = self.send_when_room(record, interrupted).await? else { return Ok(false) };
                sent
            }
        };
        match sent {
            Ok(pending) => {
                self.taken_bytes += size as u64;
                self.outcomes.push(pending)?;
            }
            Err(error) => {
                self.refused += 1;
                // A record that is too large says nothing of the next one; everything else does.
                let alone = error.source.code == ErrorCode::BatchTooLarge;
                if !alone {
                    self.stopped = Some(Problem::Send(error));
                    return Ok(false);
                }
                self.outcomes.note(error);
            }
        }
        Ok(true)
    }

    /// `None` where interrupted: the record was not taken.
    async fn send_when_room(
        &mut self,
        record: Record,
        interrupted: &CancellationToken,
    ) -> Result<Option<Result<Pending, SendError>>, CliError> {
        self.outcomes.collect()?;
        tokio::select! {
            sent = self.producer.send(record) => Ok(Some(sent)),
            () = interrupted.cancelled() => Ok(None),
        }
    }

    /// Waits for the outcome of everything taken; a second interrupt ends the waiting.
    async fn finish(&mut self, impatient: &CancellationToken) -> Result<CloseReport, CliError> {
        let producer = self.producer.clone();
        let flush = producer.flush();
        tokio::pin!(flush);
        loop {
            tokio::select! {
                () = &mut flush => break,
                () = impatient.cancelled() => break,
                () = self.outcomes.oldest() => self.outcomes.collect()?,
            }
        }
        let limit = if impatient.is_cancelled() { Duration::ZERO } else { CLOSE_LIMIT };
        let mut counts = self.producer.close(limit).await;
        self.outcomes.collect_all()?;
        counts.failed += self.refused;
        Ok(counts)
    }
}
