//! Writing index files: a block at a time, a seal when the segment is sealed, and anew what cannot be believed.

use std::sync::Arc;

use holdfast_core::Offset;

use super::PartitionLog;
use crate::compaction::Suffix;
use crate::flush::Part;
use crate::index::ActiveIndex;
use crate::index_file::{self, BLOCK_ENTRIES, BLOCK_LEN};
use crate::recovery;
use crate::segment::{self, Segment};
use crate::{File, Fs, LogError, OpenMode, Recovery};

impl PartitionLog {
    /// Moves full blocks of the active segment's index to the file. They are not flushed before the segment is sealed or
    /// a checkpoint relies on them: a bad block is noticed, and done without. Where there is no room for one it stays in
    /// memory, and nothing more is appended before it is written.
    pub(super) fn write_index(&mut self) -> Result<(), LogError> {
        match self.write_blocks(false) {
            Err(error) if error.is_full() => Ok(()),
            written => written.map(|_| ()),
        }
    }

    /// Writes blocks for which there was no room before.
    pub(super) fn catch_up_index(&mut self) -> Result<(), LogError> {
        let behind = self.shared.read().index.tail().len() >= BLOCK_ENTRIES;
        if behind { self.write_blocks(false).map(|_| ()) } else { Ok(()) }
    }

    /// Completes the active segment's index file, to be flushed with the segment. Returns the number of its blocks.
    pub(super) fn seal_index(&mut self) -> Result<u32, LogError> {
        let written = self.write_blocks(true)?;
        let (active, index) = {
            let view = self.shared.read();
            (*view.active(), view.index.written)
        };
        let file = match written {
            Some(file) => file,
            None => self.index_file(active.base, index.blocks)?,
        };
        self.write_block(&*file, active.base, index.blocks, &index_file::encode_seal(&active, index))?;
        self.dirty.mark_file(active.base, Part::Index, &file);
        Ok(index.blocks)
    }

    /// Returns the file if there was something to write.
    fn write_blocks(&mut self, partial: bool) -> Result<Option<Arc<dyn File>>, LogError> {
        let mut file = None;
        loop {
            let (base, number, block) = {
                let view = self.shared.read();
                let base = view.active().base;
                (base, view.index.written.blocks, view.index.next_block(base, partial))
            };
            let Some(block) = block else { return Ok(file) };
            let opened = match file.take() {
                Some(file) => file,
                None => self.index_file(base, number)?,
            };
            self.write_block(&*opened, base, number, &block)?;
            self.shared.write().index.block_written(&block);
            file = Some(opened);
        }
    }

    fn write_block(
        &self,
        file: &dyn File,
        base: Offset,
        number: u32,
        block: &[u8; BLOCK_LEN],
    ) -> Result<(), LogError> {
        file.write_all_at(&[block], index_file::position(number))
            .map_err(|error| LogError::io("writing index", &index_file::path(&self.shared.dir, base))(error))
    }

    /// The index file of the segment at `base`, for the block of that number. Begun anew for the first one.
    fn index_file(&mut self, base: Offset, number: u32) -> Result<Arc<dyn File>, LogError> {
        if number == 0 {
            self.dirty.mark_dir(self.shared.dir.clone());
        }
        let path = index_file::path(&self.shared.dir, base);
        let mode = if number == 0 { OpenMode::Truncate } else { OpenMode::Existing };
        self.shared.fs.open(&path, mode).map_err(LogError::io("opening index", &path))
    }

    /// Brings the index files in line with the log as it was found.
    pub(super) fn mend_indexes(&mut self, recovery: Recovery) -> Result<(), LogError> {
        let segments = self.shared.read().segments.clone();
        let Some((_, sealed)) = segments.split_last() else { return Ok(()) };
        for (number, segment) in sealed.iter().enumerate() {
            let fs = Arc::clone(&self.shared.fs);
            let known = recovery::sealed(&*fs, &self.shared.dir, recovery, segment.base)
                .filter(|known| Segment { blocks: segment.blocks, ..*known } == *segment);
            let blocks = match known {
                Some(known) => known.blocks,
                None => match self.rebuild_index(&*fs, *segment) {
                    // Done without: reading the log needs no room.
                    Err(error) if error.is_full() => 0,
                    rebuilt => rebuilt?,
                },
            };
            self.shared.write().segments[number].blocks = blocks;
        }
        self.cut_index()?;
        self.write_index()?;
        self.remove_strays(&segments)
    }

    /// The index file of the active segment holds no more than is known of it.
    pub(super) fn cut_index(&mut self) -> Result<(), LogError> {
        let (base, blocks) = {
            let view = self.shared.read();
            (view.active().base, view.index.written.blocks)
        };
        if blocks == 0 {
            return Ok(()); // It is begun anew with the first block.
        }
        let path = index_file::path(&self.shared.dir, base);
        let file = self.shared.fs.open(&path, OpenMode::Existing);
        let cut = file.and_then(|file| file.set_len(index_file::position(blocks)));
        cut.map_err(LogError::io("cutting index", &path))
    }

    /// Reads the headers of a sealed segment and writes its index. Returns the number of blocks.
    fn rebuild_index(&mut self, fs: &dyn Fs, segment: Segment) -> Result<u32, LogError> {
        let held = self.shared.hold(segment)?;
        let path = index_file::path(&self.shared.dir, segment.base);
        let file = fs.open(&path, OpenMode::Truncate).map_err(LogError::io("opening index", &path))?;
        let (mut index, mut known) = (ActiveIndex::default(), Segment::new(segment.base));
        let mut written = Ok(());
        held.get().walk(0, |found| {
            let relative = found.header.base_offset - segment.base;
            index.add(relative, found.position, known.max_timestamp, self.config.index_interval.0);
            known.push(&found.header);
            written = index.write_blocks(&*file, segment.base, false);
            written.is_err()
        })?;
        let sealed = written.and_then(|()| {
            index.write_blocks(&*file, segment.base, true)?;
            let seal = index_file::encode_seal(&segment, index.written);
            file.write_all_at(&[&seal], index_file::position(index.written.blocks))
        });
        sealed.map_err(LogError::io("writing index", &path))?;
        self.dirty.mark_file(segment.base, Part::Index, &file);
        self.dirty.mark_dir(self.shared.dir.clone());
        Ok(index.written.blocks)
    }

    /// Indexes of segments that are gone, and segments written anew that never came to their place.
    fn remove_strays(&self, segments: &[Segment]) -> Result<(), LogError> {
        let (fs, dir) = (&self.shared.fs, &self.shared.dir);
        for name in fs.list(dir).map_err(LogError::io("listing folder", dir))? {
            let stray = segment::parse_name(&name, ".index")
                .is_some_and(|base| segments.iter().all(|segment| segment.base != base));
            if stray || Suffix::is_of(&name) {
                let path = dir.join(name);
                fs.remove_file(&path).map_err(LogError::io("removing what is left over", &path))?;
            }
        }
        Ok(())
    }
}
