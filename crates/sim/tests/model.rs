//! The smallest clusters with every build; `holdfast-sim --model` searches the larger ones.

use holdfast_sim::model::{Bounds, configurations, search};

fn named(name: &str) -> Bounds {
    configurations().into_iter().find(|bounds| bounds.name == name).expect("a configuration of that name")
}

#[test]
fn every_order_of_messages_of_one_term_holds_every_invariant() {
    let report = search(&named("one_term"));
    assert_eq!(report.counterexample, None);
    assert!(report.complete && report.reached.records == 1, "{report}");
}

#[test]
fn every_schedule_of_a_pair_with_two_terms_a_kill_and_a_retry_holds_every_invariant() {
    let report = search(&named("pair_one_kill_one_retry"));
    assert_eq!(report.counterexample, None);
    assert!(report.complete && report.reached.commit_in_last_term, "{report}");
}

#[test]
fn a_search_is_one_history_and_stops_at_its_bound() {
    let bounds = Bounds { states: 3_000, ..named("two_terms") };
    let (first, second) = (search(&bounds), search(&bounds));
    assert_eq!(first, second);
    assert!(!first.complete && first.states >= 3_000, "{first}");
}
