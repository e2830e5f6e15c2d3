//! An event as a JSON object, and back. Fields that are unknown, missing or out of place are refused by name.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Edge, Event, Poll, PollStage, Send, SendStage, What};

/// Why a line is no event.
#[derive(Debug, thiserror::Error)]
pub enum LineProblem {
    /// No JSON object of known fields.
    #[error("not an event: {0}; see docs/checker.md for the fields")]
    Json(#[from] serde_json::Error),
    /// A field that such an event needs.
    #[error("\"{f}\" of type \"{stage}\" needs the field \"{field}\"")]
    Missing {
        /// What the event is about.
        f: &'static str,
        /// Its type.
        stage: &'static str,
        /// Which.
        field: &'static str,
    },
    /// A field that such an event cannot have.
    #[error("\"{f}\" of type \"{stage}\" cannot have the field \"{field}\"")]
    OutOfPlace {
        /// What the event is about.
        f: &'static str,
        /// Its type.
        stage: &'static str,
        /// Which.
        field: &'static str,
    },
    /// A type that such an event cannot have.
    #[error("\"{f}\" cannot be of type \"{stage}\"")]
    NoSuchStage {
        /// What the event is about.
        f: &'static str,
        /// The type.
        stage: &'static str,
    },
    /// A send of nothing.
    #[error("a send needs at least one value")]
    NoValues,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Stage {
    Invoke,
    Ok,
    Fail,
    Info,
    Begin,
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Function {
    Send,
    Poll,
    Assign,
    Crash,
    Fault,
    Final,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::Invoke => "invoke",
            Stage::Ok => "ok",
            Stage::Fail => "fail",
            Stage::Info => "info",
            Stage::Begin => "begin",
            Stage::End => "end",
        }
    }
}

impl Function {
    fn name(self) -> &'static str {
        match self {
            Function::Send => "send",
            Function::Poll => "poll",
            Function::Assign => "assign",
            Function::Crash => "crash",
            Function::Fault => "fault",
            Function::Final => "final",
        }
    }
}

/// All fields that any event has, in the order they are written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    at_us: u64,
    process: u64,
    op: u64,
    #[serde(rename = "type")]
    stage: Stage,
    f: Function,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    values: Option<Cow<'a, [u64]>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base_offset: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    records: Option<Cow<'a, [(u64, u64)]>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    high_watermark: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Cow<'a, str>>,
}

/// Appends the line of an event, with its line feed.
pub(super) fn write(event: &Event, out: &mut Vec<u8>) {
    serde_json::to_writer(&mut *out, &Line::of(event)).expect("numbers and text can be written to memory");
    out.push(b'\n');
}

/// Reads the event of a line. `shared` gives texts that come again and again, such as keys, one place in memory.
pub(super) fn parse(
    bytes: &[u8],
    mut shared: impl FnMut(Cow<'_, str>) -> Arc<str>,
) -> Result<Event, LineProblem> {
    let mut line: Line<'_> = serde_json::from_slice(bytes)?;
    let (at_us, process, op) = (line.at_us, line.process, line.op);
    let what = line.take_what(&mut shared)?;
    line.check_nothing_left()?;
    Ok(Event { at_us, process, op, what })
}

impl<'a> Line<'a> {
    fn empty(event: &Event, f: Function, stage: Stage) -> Line<'a> {
        Line {
            at_us: event.at_us,
            process: event.process,
            op: event.op,
            stage,
            f,
            name: None,
            zone: None,
            key: None,
            values: None,
            deadline_us: None,
            offset: None,
            base_offset: None,
            epoch: None,
            records: None,
            high_watermark: None,
            error: None,
        }
    }

    fn of(event: &'a Event) -> Line<'a> {
        match &event.what {
            What::Send(send) => Line::of_send(event, send),
            What::Poll(poll) => Line::of_poll(event, poll),
            What::Assign { key, offset } => Line {
                key: Some(Cow::Borrowed(key)),
                offset: Some(*offset),
                ..Line::empty(event, Function::Assign, Stage::Ok)
            },
            What::Crash => Line::empty(event, Function::Crash, Stage::Ok),
            What::Fault { name, zone, edge } => {
                let stage = if *edge == Edge::Begin { Stage::Begin } else { Stage::End };
                Line {
                    name: Some(Cow::Borrowed(name)),
                    zone: zone.as_deref().map(Cow::Borrowed),
                    ..Line::empty(event, Function::Fault, stage)
                }
            }
            What::Final => Line::empty(event, Function::Final, Stage::Begin),
        }
    }

    fn of_send(event: &Event, send: &'a Send) -> Line<'a> {
        let line = |stage| Line {
            key: Some(Cow::Borrowed(&*send.key)),
            values: Some(Cow::Borrowed(&*send.values)),
            ..Line::empty(event, Function::Send, stage)
        };
        match &send.stage {
            SendStage::Invoke { deadline_us } => Line { deadline_us: *deadline_us, ..line(Stage::Invoke) },
            SendStage::Ok { base_offset, epoch } => {
                Line { base_offset: Some(*base_offset), epoch: *epoch, ..line(Stage::Ok) }
            }
            SendStage::Fail { error } => Line { error: Some(Cow::Borrowed(error)), ..line(Stage::Fail) },
            SendStage::Info { error } => Line { error: Some(Cow::Borrowed(error)), ..line(Stage::Info) },
        }
    }

    fn of_poll(event: &Event, poll: &'a Poll) -> Line<'a> {
        let line = |stage| Line {
            key: Some(Cow::Borrowed(&*poll.key)),
            ..Line::empty(event, Function::Poll, stage)
        };
        let failed = |stage, records: &'a [(u64, u64)], error: &'a str| Line {
            records: (!records.is_empty()).then_some(Cow::Borrowed(records)),
            error: Some(Cow::Borrowed(error)),
            ..line(stage)
        };
        match &poll.stage {
            PollStage::Invoke => line(Stage::Invoke),
            PollStage::Ok { records, high_watermark } => Line {
                records: Some(Cow::Borrowed(records)),
                high_watermark: *high_watermark,
                ..line(Stage::Ok)
            },
            PollStage::Fail { records, error } => failed(Stage::Fail, records, error),
            PollStage::Info { records, error } => failed(Stage::Info, records, error),
        }
    }

    /// Takes out the fields that belong to such an event.
    fn take_what(&mut self, shared: &mut impl FnMut(Cow<'_, str>) -> Arc<str>) -> Result<What, LineProblem> {
        match (self.f, self.stage) {
            (Function::Send, _) => self.take_send(shared).map(What::Send),
            (Function::Poll, _) => self.take_poll(shared).map(What::Poll),
            (Function::Assign, Stage::Ok) => {
                let key = self.key.take().ok_or_else(|| self.missing("key"))?;
                let offset = self.offset.take().ok_or_else(|| self.missing("offset"))?;
                Ok(What::Assign { key: shared(key), offset })
            }
            (Function::Crash, Stage::Ok) => Ok(What::Crash),
            (Function::Fault, Stage::Begin | Stage::End) => {
                let name = self.name.take().ok_or_else(|| self.missing("name"))?;
                let edge = if self.stage == Stage::Begin { Edge::Begin } else { Edge::End };
                Ok(What::Fault { name: shared(name), zone: self.zone.take().map(&mut *shared), edge })
            }
            (Function::Final, Stage::Begin) => Ok(What::Final),
            (_, _) => Err(self.no_such_stage()),
        }
    }

    fn take_send(&mut self, shared: &mut impl FnMut(Cow<'_, str>) -> Arc<str>) -> Result<Send, LineProblem> {
        let key = self.key.take().ok_or_else(|| self.missing("key"))?;
        let values = self.values.take().ok_or_else(|| self.missing("values"))?.into_owned();
        if values.is_empty() {
            return Err(LineProblem::NoValues);
        }
        let stage = match self.stage {
            Stage::Invoke => SendStage::Invoke { deadline_us: self.deadline_us.take() },
            Stage::Ok => SendStage::Ok {
                base_offset: self.base_offset.take().ok_or_else(|| self.missing("base_offset"))?,
                epoch: self.epoch.take(),
            },
            Stage::Fail => SendStage::Fail { error: self.take_error(shared)? },
            Stage::Info => SendStage::Info { error: self.take_error(shared)? },
            Stage::Begin | Stage::End => return Err(self.no_such_stage()),
        };
        Ok(Send { key: shared(key), values, stage })
    }

    fn take_poll(&mut self, shared: &mut impl FnMut(Cow<'_, str>) -> Arc<str>) -> Result<Poll, LineProblem> {
        let key = self.key.take().ok_or_else(|| self.missing("key"))?;
        let stage = match self.stage {
            Stage::Invoke => PollStage::Invoke,
            Stage::Ok => PollStage::Ok {
                records: self.records.take().ok_or_else(|| self.missing("records"))?.into_owned(),
                high_watermark: self.high_watermark.take(),
            },
            Stage::Fail => PollStage::Fail { records: self.take_records(), error: self.take_error(shared)? },
            Stage::Info => PollStage::Info { records: self.take_records(), error: self.take_error(shared)? },
            Stage::Begin | Stage::End => return Err(self.no_such_stage()),
        };
        Ok(Poll { key: shared(key), stage })
    }

    fn take_records(&mut self) -> Vec<(u64, u64)> {
        self.records.take().map(Cow::into_owned).unwrap_or_default()
    }

    fn take_error(
        &mut self,
        shared: &mut impl FnMut(Cow<'_, str>) -> Arc<str>,
    ) -> Result<Arc<str>, LineProblem> {
        self.error.take().map(shared).ok_or_else(|| self.missing("error"))
    }

    fn check_nothing_left(&self) -> Result<(), LineProblem> {
        let left = [
            ("name", self.name.is_some()),
            ("zone", self.zone.is_some()),
            ("key", self.key.is_some()),
            ("values", self.values.is_some()),
            ("deadline_us", self.deadline_us.is_some()),
            ("offset", self.offset.is_some()),
            ("base_offset", self.base_offset.is_some()),
            ("epoch", self.epoch.is_some()),
            ("records", self.records.is_some()),
            ("high_watermark", self.high_watermark.is_some()),
            ("error", self.error.is_some()),
        ];
        match left.iter().find(|(_, left)| *left) {
            Some((field, _)) => {
                Err(LineProblem::OutOfPlace { f: self.f.name(), stage: self.stage.name(), field })
            }
            None => Ok(()),
        }
    }

    fn missing(&self, field: &'static str) -> LineProblem {
        LineProblem::Missing { f: self.f.name(), stage: self.stage.name(), field }
    }

    fn no_such_stage(&self) -> LineProblem {
        LineProblem::NoSuchStage { f: self.f.name(), stage: self.stage.name() }
    }
}
