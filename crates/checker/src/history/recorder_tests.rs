//! What the recorder promises: order, wholeness, and that it says when it cannot keep them.

use std::io::{self, Write};
use std::sync::mpsc;

use super::*;
use crate::history::{PollStage, Reader};

fn event(process: u64, op: u64) -> Event {
    Event::poll(op, process, op, &"t/0".into(), PollStage::Invoke)
}

#[test]
fn events_of_many_threads_come_out_whole_and_in_order() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (recorder, recording) = Recorder::create(file.path()).unwrap();
    std::thread::scope(|scope| {
        for process in 0..4 {
            let recorder = recorder.clone();
            scope.spawn(move || (0..5000).for_each(|op| recorder.record(&event(process, op)).unwrap()));
        }
    });
    recording.finish().unwrap();
    let input = io::BufReader::new(File::open(file.path()).unwrap());
    let mut next = [0; 4];
    for event in Reader::new(input) {
        let (_, event) = event.unwrap();
        assert_eq!(event.op, next[event.process as usize]);
        next[event.process as usize] += 1;
    }
    assert_eq!(next, [5000; 4]);
    assert!(matches!(recorder.record(&event(0, 0)), Err(RecordError::Closed)));
}

/// Refuses everything.
struct FullDisk;

impl Write for FullDisk {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_everybody_hears_of_it() {
    let (recorder, recording) = Recorder::write_to(FullDisk).unwrap();
    let first = recorder.record(&event(0, 0));
    assert!(matches!(first, Ok(()) | Err(RecordError::Io(_))), "{first:?}");
    assert!(matches!(recording.finish(), Err(RecordError::Io(_))));
    assert!(matches!(recorder.record(&event(0, 1)), Err(RecordError::Io(_))));
}

/// Takes nothing until it is let go.
struct StuckDisk(mpsc::Receiver<()>);

impl Write for StuckDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Let go, or the test is over.
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stuck_disk_holds_nobody_up_for_ever() {
    let (let_go, stuck) = mpsc::channel();
    let (recorder, recording) =
        Recorder::write_to_within(StuckDisk(stuck), 1000, Duration::from_millis(20)).unwrap();
    let refused = (0..1000).find_map(|op| recorder.record(&event(0, op)).err());
    assert!(matches!(refused, Some(RecordError::Stalled { .. })), "{refused:?}");
    assert!(matches!(recorder.record(&event(0, 1)), Err(RecordError::Stalled { .. })));
    drop(let_go);
    assert!(matches!(recording.finish(), Err(RecordError::Stalled { .. })));
}

#[test]
fn a_line_larger_than_the_buffer_passes_alone() {
    let (recorder, recording) = Recorder::write_to_within(io::sink(), 10, Duration::from_secs(60)).unwrap();
    (0..100).for_each(|op| recorder.record(&event(0, op)).unwrap());
    recording.finish().unwrap();
}
