//! Histories of a correct log are valid, whatever clients and network do to them; each planted defect is found.
//!
//! The model is one committed log without any replication: batches are appended whole, some answers are lost, some
//! sends fail before they are appended, late ones are appended after their sender gave up, processes crash, epochs
//! change and leave a hole where their marker is, readers go on from where they were or are assigned anew.

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::judge;
use super::model::{history, steps};
use super::plant::{PLANTED, plant};
use crate::history::Event;
use crate::report::Verdict;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn histories_of_a_correct_log_are_valid(steps in steps()) {
        let history = history(&steps);
        let report = judge(&history).unwrap();
        prop_assert_eq!(report.verdict, Verdict::Valid, "{}", report);
    }

    #[test]
    fn planted_defects_are_found(steps in steps(), pick in any::<Index>()) {
        let sound = history(&steps);
        for kind in PLANTED {
            let mut broken = sound.clone();
            if plant(kind, &mut broken, pick).is_some() {
                let report = judge(&broken).unwrap();
                prop_assert!(report.anomalies.count(kind) > 0, "{} was planted: {}", kind, report);
            }
        }
    }

    #[test]
    fn a_history_survives_its_file(steps in steps()) {
        let history = history(&steps);
        let mut writer = crate::Writer::new(Vec::new());
        history.iter().for_each(|event| writer.write(event).unwrap());
        let bytes = writer.finish().unwrap();
        let read: Result<Vec<_>, _> = crate::Reader::new(&*bytes).collect();
        let read: Vec<Event> = read.unwrap().into_iter().map(|(_, event)| event).collect();
        prop_assert_eq!(read, history);
    }

    #[test]
    fn garbage_is_refused_and_harms_nobody(steps in steps(), at in any::<Index>(), byte in any::<u8>()) {
        let mut bytes = Vec::new();
        history(&steps).iter().for_each(|event| crate::Writer::new(&mut bytes).write(event).unwrap());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let mut checker = super::super::Checker::new();
        for next in crate::Reader::new(&*bytes) {
            let Ok((line, event)) = next else { return Ok(()) };
            if checker.observe(line, &event).is_err() {
                return Ok(());
            }
        }
        let _report = checker.finish();
    }
}

/// Every kind finds a place among a few histories, so that the property above proves something.
#[test]
fn every_defect_finds_a_place() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut planted = PLANTED.map(|kind| (kind, 0));
    for _ in 0..200 {
        let sound = history(&steps().new_tree(&mut runner).unwrap().current());
        let pick = any::<Index>().new_tree(&mut runner).unwrap().current();
        for (kind, count) in &mut planted {
            *count += usize::from(plant(*kind, &mut sound.clone(), pick).is_some());
        }
    }
    assert!(planted.iter().all(|&(_, count)| count >= 20), "{planted:?}");
}
