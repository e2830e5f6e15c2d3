//! What a report says besides the names of anomalies.

use super::super::judge;
use super::script::Script;
use super::written;
use crate::anomaly::Kind;
use crate::history::{Edge, PollStage};

#[test]
fn examples_lead_back_to_the_lines() {
    let mut script = written(3);
    script.read(2, &[(1, 11), (2, 12)]);
    let report = script.judge();
    let (kind, finding) = report.anomalies.iter().next().unwrap();
    assert_eq!((kind, finding.count), (Kind::LostWrite, 1));
    let example = &finding.examples[0];
    assert_eq!((example.offset, example.value), (Some(0), Some(10)));
    assert_eq!(example.mentions.iter().map(|place| place.line).collect::<Vec<_>>(), [1, 2]);
    let text = report.to_string();
    assert!(text.contains("t/0 offset 0 value 10: was acknowledged"), "{text}");
    assert!(text.ends_with("INVALID: 1 lost-write"), "{text}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["anomalies"]["lost-write"]["count"], 1);
    assert_eq!((&json["valid"], &json["verdict"]), (&false.into(), &"invalid".into()));
}

#[test]
fn recovery_times_and_lag_are_told_by_fault() {
    let mut script = Script::default();
    for number in 0..10 {
        script.write(1, &[number], number);
    }
    script.read(2, &(0..10).map(|number| (number, number)).collect::<Vec<_>>());
    script.fault("kill", Edge::Begin);
    for _ in 0..50 {
        script.poll(2, PollStage::Ok { records: Vec::new(), high_watermark: None });
    }
    script.write(1, &[10], 10);
    script.fault("kill", Edge::End);
    for _ in 0..10 {
        script.poll(2, PollStage::Ok { records: Vec::new(), high_watermark: None });
    }
    script.write(1, &[11], 11);
    script.write(1, &[12], 12);
    let report = script.judge();
    let rto = &report.rto;
    assert_eq!((rto.faults.len(), rto.raw.count), (1, 1));
    assert_eq!(rto.raw.max_us, 105_000, "from the last write before to the first behind it");
    assert_eq!(rto.quiet_p999_us, 2000, "the gap behind the fault overlaps its end");
    assert_eq!(rto.corrected.max_us, 103_000);
    let (overall, during) = (report.lag.overall, report.lag.faults[0].lag);
    assert_eq!(during.max_us, 0, "nothing was missed while it lasted");
    assert!((18_000..20_100).contains(&overall.max_us), "{overall:?}");
}

#[test]
fn errors_are_counted_by_code() {
    let mut script = Script::default();
    let (failed, unknown) = (script.send(1, &[1]), script.send(1, &[2]));
    script.failed(&failed);
    script.unknown(&unknown);
    script.read_and_fail(2, &[]);
    let errors = script.judge().counts.errors;
    assert_eq!(errors.send_fail.get("NOT_LEADER"), Some(&1));
    assert_eq!(errors.send_info.get("DEADLINE_EXCEEDED"), Some(&1));
    assert_eq!(errors.poll_info.get("CANCELLED"), Some(&1));
}

#[test]
fn one_history_has_one_report() {
    let mut script = written(20);
    script.read(2, &[(1, 11), (1, 11), (4, 99)]);
    assert_eq!(judge(&script.events), judge(&script.events));
}
