//! One machine, made-up time: when it stands, and whom it believes in.

use std::time::Duration;

use super::*;

const TIMEOUT: Duration = Duration::from_millis(500);

fn log(index: u64) -> Option<LastLog> {
    Some(LastLog { term: 4, leader: 1, index })
}

/// Controller 2 of three or five; 1 led term 4 and was heard at 1000.
struct Machine {
    start: Instant,
    election: Election,
    facts: Facts,
}

impl Machine {
    fn new(voters: u64) -> Self {
        let start = Instant::now();
        let ids = (1..=voters).map(ControllerId);
        let election = Election::new(start, ControllerId(2), ids, Timing::of(TIMEOUT));
        let leader = Some(ControllerId(1));
        let facts =
            Facts { term: 4, leader, leading: false, voter: true, last_log: log(9), stands_still: false };
        let mut machine = Machine { start, election, facts };
        machine.note(0, facts);
        machine.awake(0, 1000);
        machine.election.heard(machine.at(1000), ControllerId(1));
        machine
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn note(&mut self, ms: u64, facts: Facts) {
        self.facts = facts;
        self.election.note(self.at(ms), facts);
    }

    /// Looks every 10 ms from `from` on, so that nothing is taken for a pause; gives the first time that it asks for votes or
    /// stands.
    fn awake(&mut self, from: u64, to: u64) -> Option<u64> {
        (from..=to).step_by(10).find(|&ms| {
            let now = self.at(ms);
            self.election.note(now, self.facts);
            self.election.look(now).step.is_some()
        })
    }

    /// `id` answers a question of just before.
    fn told(&mut self, ms: u64, id: u64, account: Account) {
        self.election.answered(self.at(ms), ControllerId(id), self.at(ms - 1), account);
    }

    fn fails(&mut self, ms: u64, id: u64) {
        self.election.failed(self.at(ms), ControllerId(id));
        self.election.failed(self.at(ms + 1), ControllerId(id));
    }

    fn leader(&self, ms: u64) -> Option<u64> {
        self.election.leader(self.at(ms)).map(|leader| leader.0)
    }
}

/// Has lost the leader that it heard `ago` ms before.
fn lost(ago: u64, index: u64) -> Account {
    Account {
        term: 4,
        leader: None,
        lost: true,
        may_stand: true,
        heard_ago: Some(Duration::from_millis(ago)),
        last_log: log(index),
    }
}

fn follows() -> Account {
    Account { leader: Some(ControllerId(1)), lost: false, ..lost(10, 9) }
}

#[test]
fn a_leader_whose_connection_is_refused_is_replaced_when_the_voters_lease_ends() {
    let mut machine = Machine::new(3);
    machine.fails(1010, 1);
    assert_eq!(machine.leader(1011), None);
    assert_eq!(machine.awake(1020, 1060), None, "nobody else has lost it");
    machine.told(1070, 3, lost(40, 9));
    // Heard at 1030, lease of 101 ms, margin of 5 ms.
    assert_eq!(machine.awake(1070, 1400), Some(1140));
}

#[test]
fn a_connection_that_comes_back_or_a_heartbeat_makes_the_break_undone() {
    let mut machine = Machine::new(3);
    machine.election.failed(machine.at(1010), ControllerId(1));
    assert_eq!(machine.leader(1020), Some(1), "a first failure may be a reset");
    machine.told(1030, 1, Account { leader: Some(ControllerId(1)), ..follows() });
    assert_eq!(machine.leader(1200), Some(1));
    machine.fails(1210, 1);
    assert_eq!(machine.leader(1215), None);
    machine.election.heard(machine.at(1220), ControllerId(1));
    assert_eq!(machine.leader(1225), Some(1));
    machine.election.failed(machine.at(1230), ControllerId(1));
    assert_eq!(machine.leader(1230), None, "and refused again");
}

/// A heartbeat comes in time, if the leader lives: nobody has to find out by an election.
#[test]
fn broken_connections_are_believed_when_the_leader_would_have_been_heard_again() {
    let mut machine = Machine::new(3);
    machine.fails(1010, 1);
    machine.told(1020, 3, lost(500, 9));
    assert_eq!(machine.awake(1020, 1400), Some(1110), "heard at 1000, lease of 101 ms");
    // One that says itself that it leads no more may be heard for ever.
    let mut machine = Machine::new(3);
    machine.told(1020, 3, lost(500, 9));
    machine.told(1020, 1, Account { may_stand: false, ..lost(0, 9) });
    machine.election.heard(machine.at(1020), ControllerId(1));
    assert_eq!(machine.awake(1020, 1400), Some(1130), "its rank, and no lease");
}

#[test]
fn an_attempt_to_connect_that_hangs_counts_after_a_grace() {
    let mut machine = Machine::new(3);
    machine.election.failed(machine.at(1010), ControllerId(1));
    assert_eq!((machine.leader(1110), machine.leader(1111)), (Some(1), None));
}

#[test]
fn a_silent_leader_is_lost_after_the_election_timeout() {
    let mut machine = Machine::new(3);
    assert_eq!(machine.awake(1010, 1490), None);
    assert_eq!((machine.leader(1499), machine.leader(1500)), (Some(1), None));
    machine.told(1500, 3, lost(500, 9));
    assert_eq!(machine.awake(1500, 1600), Some(1510));
}

#[test]
fn who_does_not_know_a_majority_behind_it_never_stands() {
    let mut machine = Machine::new(3);
    machine.fails(1010, 1);
    machine.told(1020, 3, follows());
    assert_eq!(machine.awake(1020, 1600), None, "the other hears the leader");
    machine.told(1610, 3, lost(600, 9));
    assert_eq!(machine.awake(2020, 9000), None, "its answer is too old");
    let mut machine = Machine::new(5);
    machine.fails(1010, 1);
    machine.told(1020, 3, lost(20, 9));
    machine.told(1020, 4, follows());
    assert_eq!(machine.awake(1020, 1400), None, "two of five");
}

#[test]
fn a_leader_in_reach_is_not_challenged() {
    let mut machine = Machine::new(3);
    assert_eq!(machine.awake(1010, 1500), None);
    machine.told(1500, 3, lost(500, 9));
    machine.told(1500, 1, Account { leader: Some(ControllerId(1)), may_stand: false, ..follows() });
    assert_eq!(machine.awake(1500, 1600), None);
}

#[test]
fn a_leader_that_says_that_it_does_not_lead_is_not_believed() {
    let mut machine = Machine::new(3);
    machine.told(1010, 1, Account { may_stand: false, ..lost(0, 9) });
    machine.election.heard(machine.at(1020), ControllerId(1));
    assert_eq!(machine.leader(1020), None);
    machine.told(1030, 1, Account { leader: Some(ControllerId(1)), ..follows() });
    assert_eq!(machine.leader(1030), Some(1));
}

#[test]
fn the_longest_log_stands_first_then_the_lowest_number_a_step_apart() {
    for (theirs, stands) in [(8, 1520), (9, 1520), (10, 1620)] {
        let mut machine = Machine::new(5);
        assert_eq!(machine.awake(1010, 1500), None);
        for id in [3, 4] {
            machine.told(1505, id, lost(500, if id == 3 { theirs } else { 9 }));
        }
        machine.told(1505, 5, lost(500, 1));
        assert_eq!(machine.awake(1510, 1900), Some(stands), "{theirs}");
    }
    let mut machine = Machine::new(3);
    assert_eq!(machine.awake(1010, 1500), None);
    machine.told(1505, 3, lost(500, 10));
    assert_eq!(machine.awake(1510, 1900), None, "it would not get the vote of the longer log");
}

/// 3 has a free vote from `from` to `to`: what is done first, and when.
fn first_step(machine: &mut Machine, from: u64, to: u64) -> Option<(u64, Step)> {
    (from..to).step_by(10).find_map(|ms| {
        machine.told(ms, 3, Account { heard_ago: None, ..lost(0, 9) });
        machine.election.note(machine.at(ms), machine.facts);
        Some((ms, machine.election.look(machine.at(ms)).step?))
    })
}

#[test]
fn after_a_round_that_nobody_won_votes_are_promised_first_and_later_each_time() {
    let mut machine = Machine::new(3);
    assert_eq!(machine.awake(1010, 1500), None);
    assert_eq!(first_step(&mut machine, 1500, 1600), Some((1510, Step::Stand)));
    assert_eq!(first_step(&mut machine, 1520, 5000), None, "Raft waits for its disk, and is not told twice");
    let mut begun = 5000;
    for (term, pause) in [(5, 150), (6, 300), (7, 600)] {
        machine.note(begun, Facts { term, leader: None, ..machine.facts });
        assert_eq!(first_step(&mut machine, begun + 10, begun + 9000), Some((begun + pause, Step::Ask)));
        let again = begun + pause + 10;
        assert_eq!(first_step(&mut machine, again, again + 500), Some((again + 140, Step::Ask)));
        machine.election.promised(ControllerId(3), term);
        assert_eq!(
            first_step(&mut machine, again + 150, again + 160),
            None,
            "a vote in the term that is over"
        );
        machine.election.promised(ControllerId(3), term + 1);
        assert_eq!(first_step(&mut machine, again + 160, again + 500), Some((again + 160, Step::Stand)));
        begun = again + 170;
    }
    machine.note(begun, Facts { term: 8, leader: Some(ControllerId(3)), ..machine.facts });
    machine.note(begun + 10, Facts { term: 9, leader: None, ..machine.facts });
    let next = first_step(&mut machine, begun + 20, begun + 500);
    assert_eq!(next, Some((begun + 160, Step::Ask)), "there was a leader in between");
}

#[test]
fn who_was_elected_waits_for_its_disk_and_who_is_outbid_stands_to_learn_of_it() {
    let mut machine = Machine::new(3);
    assert_eq!(machine.awake(1010, 1500), None);
    assert_eq!(first_step(&mut machine, 1500, 1600), Some((1510, Step::Stand)));
    machine.note(1520, Facts { term: 5, leader: None, ..machine.facts });
    machine.election.acked(ControllerId(3), 5, machine.at(1520));
    assert_eq!(first_step(&mut machine, 1530, 9000), Some((1520 + 16 * 150, Step::Ask)), "not that long");
    machine.election.outbid();
    assert_eq!(first_step(&mut machine, 3930, 9000), Some((3930, Step::Stand)));
}

#[test]
fn a_candidate_that_asks_for_our_vote_is_given_its_time() {
    for (index, stands) in [(8, 1510), (9, 1650)] {
        let mut machine = Machine::new(3);
        assert_eq!(machine.awake(1010, 1490), None);
        for ms in [1500, 1600] {
            machine.election.courted(machine.at(ms), ControllerId(3), 5, log(index));
        }
        let first = first_step(&mut machine, 1500, 1700);
        assert_eq!(first, Some((stands, Step::Stand)), "only one that would get it");
    }
}

#[test]
fn nothing_learned_before_a_pause_counts_after_it() {
    let mut machine = Machine::new(3);
    machine.told(1005, 3, lost(500, 9));
    assert_eq!(machine.awake(7000, 7000), None);
    assert_eq!(machine.leader(7000), Some(1), "its heartbeats wait in our sockets");
    machine.election.answered(machine.at(7001), ControllerId(3), machine.at(6999), lost(500, 9));
    assert_eq!(machine.awake(7010, 7490), None, "asked before the end of the pause");
}

#[test]
fn a_leader_without_a_majority_does_not_call_itself_leader() {
    let mut machine = Machine::new(3);
    let own = Facts { term: 5, leader: Some(ControllerId(2)), leading: true, ..machine.facts };
    machine.note(2000, own);
    assert_eq!(machine.leader(2000), None, "just restarted, and answered by nobody");
    let sent = machine.at(1990);
    machine.election.acked(ControllerId(3), 5, sent);
    assert_eq!((machine.leader(2000), machine.leader(2489)), (Some(2), Some(2)));
    assert_eq!(machine.leader(2490), None);
    assert!(machine.election.account(machine.at(2490)).lost);
    assert_eq!(machine.awake(2500, 3000), None, "a leader does not stand");
    machine.election.acked(ControllerId(1), 5, machine.at(3000));
    assert_eq!(machine.leader(3001), Some(2));
    machine.note(3002, Facts { term: 6, ..own });
    assert_eq!(machine.leader(3002), None, "answers of an earlier term");
}

#[test]
fn a_quorum_of_one_elects_itself_at_once() {
    let start = Instant::now();
    let mut election = Election::new(start, ControllerId(7), [ControllerId(7)], Timing::of(TIMEOUT));
    let facts =
        Facts { term: 0, leader: None, leading: false, voter: true, last_log: log(0), stands_still: false };
    election.note(start, facts);
    assert!(election.reaches_majority(start));
    assert_eq!(election.look(start).step, Some(Step::Stand));
    election.note(start, Facts { term: 1, leader: Some(ControllerId(7)), leading: true, ..facts });
    assert!(election.leads(start));
    assert_eq!(election.look(start + TIMEOUT).step, None);
}

#[test]
fn right_after_the_start_the_others_are_asked_first() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut election = Election::new(start, ControllerId(1), (1..=3).map(ControllerId), Timing::of(TIMEOUT));
    election.note(
        start,
        Facts { term: 4, leader: None, leading: false, voter: true, last_log: log(9), stands_still: false },
    );
    election.answered(at(5), ControllerId(2), at(4), Account { heard_ago: None, ..lost(0, 9) });
    assert_eq!(election.look(at(6)).step, None, "3 may be the leader");
    election.failed(at(7), ControllerId(3));
    election.failed(at(8), ControllerId(3));
    assert_eq!(election.look(at(9)).step, None, "another may have found out the same");
    assert_eq!(election.look(at(15)).step, Some(Step::Stand));
}

#[test]
fn the_second_in_rank_stands_when_the_first_does_not_though_all_votes_are_free() {
    let mut machine = Machine::new(3);
    machine.note(1010, Facts { term: 5, leader: None, ..machine.facts });
    let free = Account { heard_ago: None, ..lost(0, 9) };
    let stood = (1020..2000).step_by(10).find(|&ms| {
        machine.told(ms, 1, free);
        machine.told(ms, 3, free);
        machine.awake(ms, ms).is_some()
    });
    // A round of 150 ms after the term began, and a lease for the rank.
    assert_eq!(stood, Some(1270));
}

#[test]
fn a_candidate_whose_lease_no_longer_binds_it_is_given_its_time() {
    let mut machine = Machine::new(3);
    // 1 is not the leader here, but the one that stands first.
    let facts = Facts { leader: Some(ControllerId(3)), ..machine.facts };
    machine.note(1010, facts);
    machine.fails(1020, 3);
    machine.told(1030, 1, lost(10, 9));
    assert_eq!(machine.awake(1030, 1130), None);
    machine.told(1140, 1, Account { term: 5, heard_ago: None, ..lost(0, 9) });
    assert_eq!(machine.awake(1140, 1220), None, "its request for our vote is on the way");
}

/// One without room on its disk neither calls itself leader nor stands, and says so, until there is some.
#[test]
fn a_log_that_stands_still_neither_leads_nor_stands() {
    let mut machine = Machine::new(3);
    let follower = Facts { term: 4, leader: Some(ControllerId(1)), ..machine.facts };
    let leader = Facts { leader: Some(ControllerId(2)), leading: true, ..follower };
    machine.note(1010, leader);
    machine.election.acked(ControllerId(3), 4, machine.at(1015));
    assert_eq!(machine.leader(1020), Some(2));
    machine.note(1020, Facts { stands_still: true, ..leader });
    let account = machine.election.account(machine.at(1020));
    assert_eq!((machine.leader(1020), account.lost, account.may_stand), (None, true, false));
    machine.note(1030, leader);
    assert_eq!(machine.leader(1030), Some(2));
    // As a follower it has lost its leader like the others, and leaves it to them.
    let lonely = |stands_still| {
        let mut machine = Machine::new(3);
        machine.note(1000, Facts { stands_still, ..follower });
        machine.told(1010, 3, lost(10, 9));
        machine.fails(1020, 1);
        machine.told(1030, 3, lost(30, 9));
        let may_stand = machine.election.account(machine.at(1040)).may_stand;
        (machine.awake(1040, 1200).is_some(), may_stand)
    };
    assert_eq!((lonely(false), lonely(true)), ((true, true), (false, false)));
}
