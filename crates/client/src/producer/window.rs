//! The batches of one partition that have a sequence number and no acknowledgement: at most the in-flight limit.
//!
//! A batch enters when it is first sent and leaves when it is acknowledged or given up. Until then it is resent under
//! the same sequence number, so that a leader that has it says so and one that has not takes it once.
//!
//! ```text
//!   lane ──► push ──► [ first │ .. │ last ] ──► acknowledged
//!                        └ cut: all are to be sent again, in this order
//! ```
//! What happens when the first batch is given up decides whether anything can be stored twice:
//! - It is certain not to be stored: no leader ever takes what follows it under these numbers (a gap). The followers
//!   get new numbers under a new producer id.
//! - It is not certain: a follower that may be stored as well is given up with it; only those certain not to be stored
//!   get new numbers.
//! - Its time is up while younger batches still have some: its callers are told "unknown", and it stays, since the
//!   younger ones can only be stored behind it.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use crc_fast::CrcAlgorithm;
use holdfast_core::record_batch::{BatchError, CHECKSUM_OFFSET, Compression, ProducerRef, RecordBatch};
use holdfast_proto::ApiError;
use holdfast_proto::compression::{CompressionError, compress};
use tokio::time::Instant;

use super::lane::OpenBatch;
use super::stats::Ticket;
use crate::error::SendError;

/// A batch cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub(super) enum EncodeError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

/// One batch on its way.
#[derive(Debug)]
pub(super) struct Flight {
    /// Its number in this window; never used twice.
    pub(super) serial: u64,
    pub(super) batch: RecordBatch,
    pub(super) ticket: Ticket,
    /// Sent over the stream that is open now, and not answered.
    pub(super) outstanding: bool,
    /// Sent at least once without a definite answer: it may be stored.
    pub(super) unresolved: bool,
    /// How often it was sent.
    pub(super) attempts: u32,
    pub(super) sent_at: Instant,
    /// Why it will never be taken as it is; acted on when it is the first.
    pub(super) refusal: Option<ApiError>,
}

impl Flight {
    /// Whether it is certain not to be stored.
    fn is_certain(&self) -> bool {
        !self.outstanding && !self.unresolved
    }

    fn lost(self, source: ApiError) {
        let error = if self.is_certain() { SendError::failed(source) } else { SendError::unknown(source) };
        self.ticket.lost(error);
    }
}

/// The window and the producer's place in the sequence.
#[derive(Debug)]
pub(super) struct Window {
    flights: VecDeque<Flight>,
    /// `base_sequence` is that of the next batch. None: the flights wait for numbers under a new producer id.
    producer: Option<ProducerRef>,
    next_serial: u64,
}

impl Window {
    pub(super) fn new(producer: ProducerRef) -> Window {
        Window { flights: VecDeque::new(), producer: Some(producer), next_serial: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn flights(&self) -> impl Iterator<Item = &Flight> {
        self.flights.iter()
    }

    /// Those to be sent over a fresh stream, in order.
    pub(super) fn unsent(&mut self) -> impl Iterator<Item = &mut Flight> {
        self.flights.iter_mut().filter(|flight| !flight.outstanding && flight.refusal.is_none())
    }

    /// How many are on the stream that is open now.
    pub(super) fn outstanding_count(&self) -> usize {
        self.flights.iter().filter(|flight| flight.outstanding).count()
    }

    /// Whether batches can be numbered.
    pub(super) fn has_producer(&self) -> bool {
        self.producer.is_some()
    }

    /// Whether a batch waits for being given up.
    pub(super) fn has_refusal(&self) -> bool {
        self.flights.iter().any(|flight| flight.refusal.is_some())
    }

    /// Gives a batch the next sequence number. It counts as not sent yet.
    ///
    /// # Errors
    /// Where it cannot be encoded: its records are then reported as failed, and the number stays free.
    pub(super) fn push(&mut self, open: OpenBatch, compression: Compression) -> Result<(), EncodeError> {
        let OpenBatch { builder, ticket, .. } = open;
        let Some(producer) = self.producer else { return Ok(()) };
        let encoded = builder.finish_with(Some(producer), compression, |section| {
            compress(compression, section).map_err(EncodeError::from)
        });
        let batch = match encoded {
            Ok(batch) => batch,
            Err(error) => {
                let code = holdfast_core::ErrorCode::InvalidRequest;
                ticket.lost(SendError::failed(ApiError::new(code, error.to_string())));
                return Err(error);
            }
        };
        self.producer = Some(after(producer, ticket.records()));
        self.flights.push_back(Flight {
            serial: self.next_serial,
            batch,
            ticket,
            outstanding: false,
            unresolved: false,
            attempts: 0,
            sent_at: Instant::now(),
            refusal: None,
        });
        self.next_serial += 1;
        Ok(())
    }

    /// The batch of that serial, if it waits for an answer, with whether it is the first.
    pub(super) fn outstanding(&mut self, serial: u64) -> Option<(&mut Flight, bool)> {
        let first = self.flights.front()?.serial;
        let flight = self.flights.iter_mut().find(|flight| flight.serial == serial && flight.outstanding)?;
        let is_first = flight.serial == first;
        Some((flight, is_first))
    }

    /// Takes out the batch of that serial, if it waits for an answer.
    pub(super) fn take(&mut self, serial: u64) -> Option<Flight> {
        let index = self.flights.iter().position(|flight| flight.serial == serial && flight.outstanding)?;
        self.flights.remove(index)
    }

    /// The stream is gone: everything is to be sent again. `reached` says whether anything may have left this process.
    pub(super) fn cut(&mut self, reached: bool) {
        for flight in &mut self.flights {
            flight.unresolved |= flight.outstanding && reached;
            flight.outstanding = false;
        }
    }

    /// Gives up the first batch if it was refused for good. Says whether it did: the stream is of no more use then.
    pub(super) fn give_up_refused(&mut self) -> bool {
        let Some(error) = self.flights.front_mut().and_then(|flight| flight.refusal.take()) else {
            return false;
        };
        self.give_up_first(error);
        true
    }

    /// Gives up the first batch. The stream must not be used any more.
    fn give_up_first(&mut self, error: ApiError) {
        let Some(first) = self.flights.pop_front() else { return };
        let certain = first.is_certain();
        let base_sequence = first.batch.header().producer.map(|producer| producer.base_sequence);
        first.lost(error.clone());
        if certain {
            for flight in &mut self.flights {
                flight.outstanding = false;
                flight.unresolved = false;
            }
            if let (true, Some(producer), Some(base_sequence)) =
                (self.flights.is_empty(), &mut self.producer, base_sequence)
            {
                producer.base_sequence = base_sequence; // as if it had never been
                return;
            }
        } else {
            self.cut(true);
            for flight in std::mem::take(&mut self.flights) {
                if flight.unresolved { flight.lost(error.clone()) } else { self.flights.push_back(flight) }
            }
        }
        self.producer = None;
    }

    /// Reports what is older than `horizon`. Says whether the stream must be dropped.
    pub(super) fn expire(&mut self, horizon: Instant, error: impl Fn() -> ApiError) -> bool {
        let mut drop_stream = false;
        let expired = |flight: &Flight| flight.ticket.opened <= horizon;
        while self.flights.front().is_some_and(|first| expired(first) && first.is_certain()) {
            self.give_up_first(error());
            drop_stream = true;
        }
        for flight in self.flights.iter().filter(|flight| expired(flight)) {
            flight.ticket.lost(SendError::unknown(error()));
        }
        if !self.flights.is_empty() && self.flights.iter().all(|flight| flight.ticket.is_told()) {
            self.flights.clear();
            self.producer = None;
            drop_stream = true;
        }
        drop_stream
    }

    /// When the next batch expires, given how long a batch has.
    pub(super) fn next_expiry(&self, delivery_timeout: std::time::Duration) -> Option<Instant> {
        let waiting = self.flights.iter().filter(|flight| !flight.ticket.is_told());
        waiting.map(|flight| flight.ticket.opened + delivery_timeout).min()
    }

    /// Numbers everything anew under a fresh producer id.
    ///
    /// # Errors
    /// Where that fails, which only a producer reference out of range can cause; nothing was changed then.
    pub(super) fn renumber(&mut self, producer: ProducerRef) -> Result<(), BatchError> {
        let mut next = producer;
        let mut batches = Vec::with_capacity(self.flights.len());
        for flight in &self.flights {
            batches.push(with_producer(flight.batch.bytes(), next)?);
            next = after(next, flight.ticket.records());
        }
        for (flight, batch) in self.flights.iter_mut().zip(batches) {
            flight.batch = batch;
        }
        self.producer = Some(next);
        Ok(())
    }

    /// Reports everything and forgets it.
    pub(super) fn abandon(&mut self, error: &ApiError) {
        self.cut(true);
        for flight in std::mem::take(&mut self.flights) {
            flight.lost(error.clone());
        }
    }
}

/// The producer's place behind a batch of that many records; numbers wrap after `i32::MAX`.
fn after(producer: ProducerRef, records: u32) -> ProducerRef {
    let next = (producer.base_sequence as u32).wrapping_add(records) & i32::MAX as u32;
    ProducerRef { base_sequence: next as i32, ..producer }
}

/// The same records under another producer id and sequence number.
fn with_producer(batch: &Bytes, producer: ProducerRef) -> Result<RecordBatch, BatchError> {
    let mut bytes = BytesMut::from(&batch[..]);
    bytes[43..51].copy_from_slice(&producer.id.0.to_be_bytes());
    bytes[51..53].copy_from_slice(&producer.epoch.to_be_bytes());
    bytes[53..57].copy_from_slice(&producer.base_sequence.to_be_bytes());
    let crc = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, &bytes[CHECKSUM_OFFSET..]) as u32;
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    RecordBatch::check_crc(bytes.freeze())
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
