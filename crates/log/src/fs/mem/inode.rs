//! A file's content: as it reads now, and as it would read after a crash.

use std::io;
use std::ops::Range;

use super::Random;

/// What a disk writes in one piece.
const BLOCK: usize = 512;

#[derive(Debug)]
enum Change {
    Write { position: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Debug, Default)]
pub(super) struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    /// What turns `durable` into `content`, unless a sync failed in between.
    unsynced: Vec<Change>,
    /// What cannot be read before it is written anew.
    unreadable: Vec<Range<usize>>,
    /// Whether a flush of the whole file system lost changes: the next one of this file says so, once.
    failed: bool,
}

impl Inode {
    pub(super) fn len(&self) -> u64 {
        self.content.len() as u64
    }

    pub(super) fn read(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        let source = usize::try_from(position)
            .ok()
            .and_then(|start| self.content.get(start..start.checked_add(buffer.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let (from, to) = (position as usize, position as usize + buffer.len());
        if self.unreadable.iter().any(|bad| bad.start < to && from < bad.end) {
            return Err(io::Error::other("a sector that cannot be read"));
        }
        buffer.copy_from_slice(source);
        Ok(())
    }

    /// Takes bytes out of reach, until they are written anew.
    pub(super) fn spoil(&mut self, bytes: Range<u64>) {
        let end = usize::try_from(bytes.end).unwrap_or(usize::MAX);
        self.unreadable.push(usize::try_from(bytes.start).unwrap_or(usize::MAX)..end);
    }

    pub(super) fn write(&mut self, bytes: Vec<u8>, position: u64) -> io::Result<()> {
        let position = usize::try_from(position).map_err(|_| io::ErrorKind::FileTooLarge)?;
        write_to(&mut self.content, position, &bytes);
        let end = position + bytes.len();
        // What is left of a range on either side of what is written stays unreadable.
        let bad = std::mem::take(&mut self.unreadable).into_iter();
        let left = bad.flat_map(|bad| [bad.start..bad.end.min(position), bad.start.max(end)..bad.end]);
        self.unreadable = left.filter(|bad| !bad.is_empty()).collect();
        self.unsynced.push(Change::Write { position, bytes });
        Ok(())
    }

    pub(super) fn set_len(&mut self, len: u64) {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.content.resize(len, 0);
        self.unsynced.push(Change::SetLen(len));
    }

    /// Makes the changes durable; where that fails, they are lost although they can still be read.
    pub(super) fn sync(&mut self, succeeds: bool) {
        for change in self.unsynced.drain(..) {
            match change {
                _ if !succeeds => {}
                Change::Write { position, bytes } => write_to(&mut self.durable, position, &bytes),
                Change::SetLen(len) => self.durable.resize(len, 0),
            }
        }
    }

    /// As [`sync`](Self::sync), for a flush of the whole file system, which does not say whose changes it lost.
    pub(super) fn sync_with_all(&mut self, succeeds: bool) {
        self.failed |= !succeeds && !self.unsynced.is_empty();
        self.sync(succeeds);
    }

    /// Whether a flush of the whole file system lost changes that nobody has been told of.
    pub(super) fn take_failure(&mut self) -> bool {
        std::mem::take(&mut self.failed)
    }

    /// Goes back to what is durable, plus an arbitrary part of the rest.
    pub(super) fn crash(&mut self, random: &mut Option<Random>) {
        for change in std::mem::take(&mut self.unsynced) {
            let Some(random) = random else { break };
            match change {
                Change::Write { position, bytes } => self.keep_blocks(position, &bytes, random),
                Change::SetLen(len) if random.coin() => self.durable.resize(len, 0),
                Change::SetLen(_) => {}
            }
        }
        self.content = self.durable.clone();
        self.failed = false;
    }

    fn keep_blocks(&mut self, mut position: usize, mut bytes: &[u8], random: &mut Random) {
        while !bytes.is_empty() {
            let to_boundary = BLOCK - position % BLOCK;
            let (block, rest) = bytes.split_at(to_boundary.min(bytes.len()));
            if random.coin() {
                write_to(&mut self.durable, position, block);
            }
            position += block.len();
            bytes = rest;
        }
    }
}

fn write_to(content: &mut Vec<u8>, position: usize, bytes: &[u8]) {
    let end = position + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[position..end].copy_from_slice(bytes);
}
