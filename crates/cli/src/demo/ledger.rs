//! Which records were acknowledged, and which came back.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes in front of a record's value that number it: partition (u32) and number in the partition (u64), big endian.
pub(super) const NUMBER_LEN: usize = 12;

/// Writes the number of a record.
pub(super) fn put_number(value: &mut [u8], partition: u32, number: u64) {
    value[0..4].copy_from_slice(&partition.to_be_bytes());
    value[4..NUMBER_LEN].copy_from_slice(&number.to_be_bytes());
}

/// Reads the number of a record; `None` where it is not one of ours.
pub(super) fn number_of(value: &[u8]) -> Option<(u32, u64)> {
    let partition = value.first_chunk::<4>()?;
    let number = value.get(4..NUMBER_LEN)?.first_chunk::<8>()?;
    Some((u32::from_be_bytes(*partition), u64::from_be_bytes(*number)))
}

/// What became of a record that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Acked,
    Failed,
    Unknown,
}

/// Totals of all partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) acked: u64,
    pub(super) failed: u64,
    pub(super) unknown: u64,
    pub(super) read_back: u64,
    /// Acknowledged, or seen by a reader before, and not read back.
    pub(super) lost: u64,
    /// Read back more than once.
    pub(super) duplicated: u64,
    /// Refused for certain, and there all the same.
    pub(super) resurrected: u64,
    /// Not in the order they were sent in.
    pub(super) disordered: u64,
}

/// The records of all partitions by number.
#[derive(Debug)]
pub(super) struct Ledger {
    partitions: Vec<Mutex<Book>>,
}

#[derive(Debug, Default)]
struct Book {
    acked: Bits,
    failed: Bits,
    unknown: u64,
    /// By whoever reads along.
    seen: Bits,
    read_back: Bits,
    duplicated: u64,
    disordered: u64,
    last_read: Option<u64>,
}

impl Ledger {
    pub(super) fn new(partitions: u32) -> Ledger {
        Ledger { partitions: (0..partitions).map(|_| Mutex::default()).collect() }
    }

    pub(super) fn sent(&self, partition: u32, number: u64, outcome: Outcome) {
        let Some(mut book) = self.book(partition) else { return };
        match outcome {
            Outcome::Acked => _ = book.acked.set(number),
            Outcome::Failed => _ = book.failed.set(number),
            Outcome::Unknown => book.unknown += 1,
        }
    }

    /// Seen by the reader that runs beside the load.
    pub(super) fn seen(&self, partition: u32, number: u64) {
        if let Some(mut book) = self.book(partition) {
            book.seen.set(number);
        }
    }

    /// Read by the last reader, from the beginning.
    pub(super) fn read_back(&self, partition: u32, number: u64) {
        let Some(mut book) = self.book(partition) else { return };
        if !book.read_back.set(number) {
            book.duplicated += 1;
        } else if book.last_read.is_some_and(|last| last > number) {
            book.disordered += 1;
        }
        book.last_read = Some(number);
    }

    /// How many were seen by the reader beside the load.
    pub(super) fn seen_total(&self) -> u64 {
        self.books().map(|book| book.seen.count()).sum()
    }

    pub(super) fn totals(&self) -> Totals {
        self.books().fold(Totals::default(), |totals, book| Totals {
            acked: totals.acked + book.acked.count(),
            failed: totals.failed + book.failed.count(),
            unknown: totals.unknown + book.unknown,
            read_back: totals.read_back + book.read_back.count(),
            lost: totals.lost + book.acked.or(&book.seen).without(&book.read_back).count(),
            duplicated: totals.duplicated + book.duplicated,
            resurrected: totals.resurrected + book.failed.and(&book.read_back).count(),
            disordered: totals.disordered + book.disordered,
        })
    }

    fn book(&self, partition: u32) -> Option<MutexGuard<'_, Book>> {
        Some(self.partitions.get(partition as usize)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn books(&self) -> impl Iterator<Item = MutexGuard<'_, Book>> {
        self.partitions.iter().map(|book| book.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A set of numbers from 0: one bit each.
#[derive(Debug, Default)]
struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// Adds a number; says whether it was new.
    fn set(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }

    fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    fn combine(&self, other: &Bits, with: impl Fn(u64, u64) -> u64) -> Bits {
        let length = self.words.len().max(other.words.len());
        let word = |bits: &Bits, at: usize| bits.words.get(at).copied().unwrap_or(0);
        Bits { words: (0..length).map(|at| with(word(self, at), word(other, at))).collect() }
    }

    fn or(&self, other: &Bits) -> Bits {
        self.combine(other, |a, b| a | b)
    }

    fn and(&self, other: &Bits) -> Bits {
        self.combine(other, |a, b| a & b)
    }

    fn without(&self, other: &Bits) -> Bits {
        self.combine(other, |a, b| a & !b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_broken_promise_is_counted() {
        let ledger = Ledger::new(2);
        for number in 0..100 {
            ledger.sent(0, number, Outcome::Acked);
        }
        ledger.sent(1, 0, Outcome::Failed);
        ledger.sent(1, 1, Outcome::Unknown);
        ledger.seen(1, 1);
        for number in (0..100).filter(|&number| number != 70).chain([5]) {
            ledger.read_back(0, number);
        }
        ledger.read_back(1, 0);
        let expected = Totals {
            acked: 100,
            failed: 1,
            unknown: 1,
            read_back: 100,
            lost: 2, // number 70, and what a reader had seen
            duplicated: 1,
            resurrected: 1,
            disordered: 0,
        };
        assert_eq!(ledger.totals(), expected);
        ledger.read_back(0, 70);
        assert_eq!(ledger.totals().disordered, 0, "70 follows the repeated 5");
        ledger.read_back(1, 9);
        ledger.read_back(1, 2);
        assert_eq!(ledger.totals().disordered, 1);
    }

    #[test]
    fn numbers_read_back() {
        let mut value = [0; 20];
        put_number(&mut value, 7, 1 << 40);
        assert_eq!(number_of(&value), Some((7, 1 << 40)));
        assert_eq!(number_of(&value[..11]), None);
    }
}
