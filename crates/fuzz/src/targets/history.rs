//! Histories of what clients did and saw, and the verdict on them.

use holdfast_checker::{Event, Reader, Writer, judge};

use crate::corpus::Input;
use crate::target::{Memory, Target};

pub(super) fn targets() -> Vec<Target> {
    vec![Target {
        name: "history",
        about: "a recorded history, line by line, and the checker's verdict",
        // Histograms of the verdict have a fixed size.
        memory: Memory { fixed: 16 << 20, per_byte: 512 },
        written: Vec::new,
        run: history,
    }]
}

fn history(input: &Input) -> bool {
    let events: Result<Vec<Event>, _> =
        Reader::new(input.bytes()).map(|event| event.map(|(_, event)| event)).collect();
    let Ok(events) = events else { return false };
    let again: Result<Vec<Event>, _> =
        Reader::new(&written(&events)[..]).map(|event| event.map(|(_, event)| event)).collect();
    assert!(again.is_ok_and(|again| again == events), "a history is read back as it is written");
    let Ok(report) = judge(&events) else { return false };
    // What people see of it.
    let _ = report.to_string();
    true
}

fn written(events: &[Event]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for event in events {
        writer.write(event).expect("memory does not fail");
    }
    writer.finish().expect("memory does not fail")
}
