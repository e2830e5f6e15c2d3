//! Scripts in `testdata/`: events in, actions out, one replica, reviewed as a diff.
//!
//! ```text
//! replica r1 of r1 r2 r3 mode disk      the replica under test; more words as in `parse::Header`
//! # a comment
//! > assign term 1 leader r1             an event
//!   persist #1 promise 1.0 ...          what the replica asks for because of it
//! ```
//! `UPDATE_SCRIPTS=1 cargo nextest run -p holdfast-core --test scripts` writes the actions anew; then read the diff.

#![allow(clippy::unwrap_used, reason = "a test: a failed unwrap names its line")]

mod parse;
mod render;

use std::path::{Path, PathBuf};

use holdfast_core::Timestamp;
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::{Action, Event, Replica};

use parse::{Header, Step};

/// A replica, with a log that does what it is asked at once.
struct Runner {
    replica: Replica,
    log: Vec<RecordBatch>,
    now: Timestamp,
}

impl Runner {
    fn new(header: Header) -> Runner {
        let now = Timestamp(1);
        let (config, log, loaded) = header.load();
        Runner { replica: Replica::new(now, config, loaded), log, now }
    }

    fn perform(&mut self, step: Step) {
        let event = match step {
            Step::Event(event) => event,
            Step::Wait(duration) => {
                self.now = self.now + duration;
                Event::Timer
            }
            Step::Read { to, epoch, from } => {
                let wanted = self.log.iter().filter(|batch| batch.header().next_offset() > from);
                Event::Read { to, epoch, from, batches: wanted.cloned().collect() }
            }
        };
        self.replica.handle(self.now, event);
    }

    fn drain(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(action) = self.replica.next_action() {
            lines.push(format!("  {}", render::action(&action)));
            match action {
                Action::Append { batches } => self.log.extend(batches),
                Action::Truncate { end } => self.log.retain(|batch| batch.header().base_offset < end),
                Action::Trim { start, .. } => {
                    self.log.retain(|batch| batch.header().base_offset >= start.end);
                }
                Action::Reset { .. } => self.log.clear(),
                _ => {}
            }
        }
        lines
    }
}

/// The script with the actions that the replica asked for in place of those that stand there.
fn play(text: &str) -> String {
    let mut output = Vec::new();
    let mut runner: Option<Runner> = None;
    for line in text.lines() {
        if let Some(words) = line.strip_prefix("replica ") {
            output.push(line.to_owned());
            let mut started = Runner::new(Header::parse(words));
            output.extend(started.drain());
            runner = Some(started);
        } else if let Some(words) = line.strip_prefix("> ") {
            output.push(line.to_owned());
            let runner = runner.as_mut().expect("the first line names the replica");
            runner.perform(parse::step(words));
            output.extend(runner.drain());
        } else if !line.starts_with("  ") {
            output.push(line.to_owned());
        }
    }
    output.join("\n") + "\n"
}

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let entries = std::fs::read_dir(&folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    paths
}

#[test]
fn replicas_ask_for_what_the_scripts_say() {
    let update = std::env::var_os("UPDATE_SCRIPTS").is_some();
    let mut differing = Vec::new();
    for path in scripts() {
        let expected = std::fs::read_to_string(&path).unwrap();
        let actual = play(&expected);
        if update {
            std::fs::write(&path, &actual).unwrap();
        } else if actual != expected {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let pair = expected.lines().zip(actual.lines()).enumerate().find(|(_, (old, new))| old != new);
            differing.push(format!("{name}: {pair:?}"));
        }
    }
    assert!(differing.is_empty(), "first differing line of each (UPDATE_SCRIPTS=1 rewrites): {differing:#?}");
}

#[test]
fn every_script_says_what_it_proves() {
    for path in scripts() {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# "), "{} opens without a sentence on what it proves", path.display());
        assert!(text.contains("\n  "), "{} expects nothing", path.display());
    }
}
