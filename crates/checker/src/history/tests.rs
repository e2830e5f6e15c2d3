//! Events survive the way to a file and back; whatever is no event is refused with its line.

use std::io::{BufReader, Cursor};

use super::*;

fn event(what: What) -> Event {
    Event { at_us: 12, process: 3, op: 17, what }
}

fn send(stage: SendStage) -> What {
    What::Send(Send { key: "t/0".into(), values: vec![101, 102], stage })
}

fn poll(stage: PollStage) -> What {
    What::Poll(Poll { key: "t/0".into(), stage })
}

/// Every kind of event, and its line in the documented form.
fn samples() -> Vec<(Event, &'static str)> {
    let error: Arc<str> = "NOT_LEADER: broker 2 leads".into();
    let (name, zone) = ("kill zone a", Some("a".into()));
    vec![
        (
            event(send(SendStage::Invoke { deadline_us: None })),
            r#"{"at_us":12,"process":3,"op":17,"type":"invoke","f":"send","key":"t/0","values":[101,102]}"#,
        ),
        (
            event(send(SendStage::Invoke { deadline_us: Some(99) })),
            r#"{"at_us":12,"process":3,"op":17,"type":"invoke","f":"send","key":"t/0","values":[101,102],"deadline_us":99}"#,
        ),
        (
            event(send(SendStage::Ok { base_offset: 55, epoch: Some(513) })),
            r#"{"at_us":12,"process":3,"op":17,"type":"ok","f":"send","key":"t/0","values":[101,102],"base_offset":55,"epoch":513}"#,
        ),
        (
            event(send(SendStage::Fail { error: error.clone() })),
            r#"{"at_us":12,"process":3,"op":17,"type":"fail","f":"send","key":"t/0","values":[101,102],"error":"NOT_LEADER: broker 2 leads"}"#,
        ),
        (
            event(send(SendStage::Info { error: error.clone() })),
            r#"{"at_us":12,"process":3,"op":17,"type":"info","f":"send","key":"t/0","values":[101,102],"error":"NOT_LEADER: broker 2 leads"}"#,
        ),
        (
            event(poll(PollStage::Invoke)),
            r#"{"at_us":12,"process":3,"op":17,"type":"invoke","f":"poll","key":"t/0"}"#,
        ),
        (
            event(poll(PollStage::Ok { records: vec![(55, 101), (56, 102)], high_watermark: Some(57) })),
            r#"{"at_us":12,"process":3,"op":17,"type":"ok","f":"poll","key":"t/0","records":[[55,101],[56,102]],"high_watermark":57}"#,
        ),
        (
            event(poll(PollStage::Fail { records: Vec::new(), error: error.clone() })),
            r#"{"at_us":12,"process":3,"op":17,"type":"fail","f":"poll","key":"t/0","error":"NOT_LEADER: broker 2 leads"}"#,
        ),
        (
            event(poll(PollStage::Info { records: vec![(55, 101)], error })),
            r#"{"at_us":12,"process":3,"op":17,"type":"info","f":"poll","key":"t/0","records":[[55,101]],"error":"NOT_LEADER: broker 2 leads"}"#,
        ),
        (
            event(What::Assign { key: "t/0".into(), offset: 7 }),
            r#"{"at_us":12,"process":3,"op":17,"type":"ok","f":"assign","key":"t/0","offset":7}"#,
        ),
        (event(What::Crash), r#"{"at_us":12,"process":3,"op":17,"type":"ok","f":"crash"}"#),
        (
            event(What::Fault { name: name.into(), zone, edge: Edge::Begin }),
            r#"{"at_us":12,"process":3,"op":17,"type":"begin","f":"fault","name":"kill zone a","zone":"a"}"#,
        ),
        (
            event(What::Fault { name: name.into(), zone: None, edge: Edge::End }),
            r#"{"at_us":12,"process":3,"op":17,"type":"end","f":"fault","name":"kill zone a"}"#,
        ),
        (event(What::Final), r#"{"at_us":12,"process":3,"op":17,"type":"begin","f":"final"}"#),
    ]
}

fn read(text: &str) -> Result<Vec<(u64, Event)>, ReadError> {
    Reader::new(text.as_bytes()).collect()
}

#[test]
fn every_event_has_the_documented_line_and_reads_back() {
    let mut text = String::new();
    for (event, line) in samples() {
        let mut writer = Writer::new(Vec::new());
        writer.write(&event).unwrap();
        let written = String::from_utf8(writer.finish().unwrap()).unwrap();
        assert_eq!(written.trim_end(), line);
        text.push_str(&written);
    }
    let events = read(&text).unwrap();
    let expected = samples().into_iter().zip(1..).map(|((event, _), line)| (line, event));
    assert_eq!(events, expected.collect::<Vec<_>>());
}

#[test]
fn what_is_no_event_is_refused_with_line_and_reason() {
    let good = samples()[0].1;
    for (line, reason) in [
        ("", "line 2: not an event"),
        ("nonsense", "line 2: not an event"),
        (r#"{"at_us":1}"#, "missing field `process`"),
        (r#"{"at_us":-1,"process":0,"op":0,"type":"ok","f":"crash"}"#, "invalid value"),
        (
            r#"{"at_us":1,"process":0,"op":0,"type":"ok","f":"crash","colour":"red"}"#,
            "unknown field `colour`",
        ),
        (r#"{"at_us":1,"process":0,"op":0,"type":"odd","f":"crash"}"#, "unknown variant `odd`"),
        (
            r#"{"at_us":1,"process":0,"op":0,"type":"ok","f":"crash","key":"t/0"}"#,
            "cannot have the field \"key\"",
        ),
        (r#"{"at_us":1,"process":0,"op":0,"type":"begin","f":"crash"}"#, "cannot be of type \"begin\""),
        (
            r#"{"at_us":1,"process":0,"op":0,"type":"ok","f":"assign","key":"t/0"}"#,
            "needs the field \"offset\"",
        ),
        (
            r#"{"at_us":1,"process":0,"op":0,"type":"invoke","f":"send","key":"t/0","values":[]}"#,
            "at least one value",
        ),
        (
            r#"{"at_us":1,"process":0,"op":0,"type":"fail","f":"poll","key":"t/0"}"#,
            "needs the field \"error\"",
        ),
        (
            r#"{"at_us":1,"process":0,"op":0,"type":"ok","f":"send","key":"t/0","values":[1],"base_offset":1,"offset":1}"#,
            "cannot have the field \"offset\"",
        ),
    ] {
        let error = read(&format!("{good}\n{line}\n")).unwrap_err();
        assert!(error.to_string().contains(reason), "{line}: {error}");
        assert!(error.to_string().starts_with("line 2"), "{error}");
    }
}

#[test]
fn a_torn_last_line_and_an_endless_line_are_told_apart() {
    let good = samples()[0].1;
    let error = read(&format!("{good}\n{}", &good[..40])).unwrap_err();
    assert!(matches!(error, ReadError::Torn { line: 2 }), "{error}");
    let endless = BufReader::new(std::io::repeat(b'x'));
    let error = Reader::new(endless).next().unwrap().unwrap_err();
    assert!(matches!(error, ReadError::TooLong { line: 1 }), "{error}");
}

#[test]
fn reading_ends_after_the_first_error() {
    let mut reader = Reader::new(Cursor::new("x\ny\n"));
    assert!(reader.next().unwrap().is_err());
    assert!(reader.next().is_none());
}

#[test]
fn values_and_codes_are_found() {
    let mut bytes = [0; 9];
    assert!(put_value(&mut bytes, 1 << 40));
    assert_eq!(value_of(&bytes), Some(1 << 40));
    assert_eq!(value_of(&bytes[..7]), None);
    assert!(!put_value(&mut bytes[..7], 1));
    assert_eq!(error_code("NOT_LEADER: broker 2 leads: truly"), "NOT_LEADER");
    assert_eq!(error_code("TIMEOUT"), "TIMEOUT");
}
