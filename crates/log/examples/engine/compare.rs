//! Several ways to do the same, in turns.

use std::io;
use std::time::Duration;

/// One of the ways.
pub(crate) struct Way<'a> {
    name: String,
    once: Box<dyn FnMut() -> io::Result<Duration> + 'a>,
    /// How long it took, round by round.
    taken: Vec<Duration>,
}

impl<'a> Way<'a> {
    /// `once` does it, and says how long it took.
    pub(crate) fn new(name: impl Into<String>, once: impl FnMut() -> io::Result<Duration> + 'a) -> Way<'a> {
        Way { name: name.into(), once: Box::new(once), taken: Vec::new() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn taken(&self) -> Quartiles {
        Quartiles::of(self.taken.iter().map(Duration::as_secs_f64).collect())
    }

    /// How many times as fast as `other` this was: of the medians, and the quartiles over the rounds.
    pub(crate) fn speed_over(&self, other: &Way<'_>) -> (f64, Quartiles) {
        let rounds = self.taken.iter().zip(&other.taken);
        let ratios = rounds.map(|(own, other)| other.as_secs_f64() / own.as_secs_f64());
        (other.taken().median / self.taken().median, Quartiles::of(ratios.collect()))
    }
}

/// Lets each of them do it once a round, in an order that changes: whoever comes behind a way that leaves the disk busy is
/// another one each time. A first round is not counted.
pub(crate) fn take_turns(ways: &mut [Way<'_>], rounds: usize) -> io::Result<()> {
    for round in 0..=rounds {
        for turn in 0..ways.len() {
            let number = (round + turn) % ways.len();
            let way = &mut ways[number];
            let taken = (way.once)()?;
            if round > 0 {
                way.taken.push(taken);
            }
        }
    }
    Ok(())
}

/// The middle, and where the middle half of all begins and ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quartiles {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Quartiles {
    pub(crate) fn of(mut values: Vec<f64>) -> Quartiles {
        values.sort_unstable_by(f64::total_cmp);
        let at = |quarter: usize| {
            let position = (values.len().saturating_sub(1) * quarter) as f64 / 4.0;
            let below = values.get(position as usize).copied().unwrap_or(f64::NAN);
            let above = values.get(position.ceil() as usize).copied().unwrap_or(below);
            below + (above - below) * position.fract()
        };
        Quartiles { low: at(1), median: at(2), high: at(3) }
    }
}

/// Lines of a table of throughput: what each way reaches, and the first one's share of it.
pub(crate) fn print_throughput(what: &str, bytes: usize, ways: &[Way<'_>]) {
    let Some((first, others)) = ways.split_first() else { return };
    let rate = |seconds: f64| bytes as f64 / seconds / 1e6;
    let rates = |way: &Way<'_>| {
        let Quartiles { low, median, high } = way.taken();
        let digits = usize::from(rate(median) < 100.0);
        format!("{:.digits$} ({:.digits$} to {:.digits$})", rate(median), rate(high), rate(low))
    };
    println!("| {what} | {} | {} | |", first.name(), rates(first));
    for way in others {
        let (share, Quartiles { low, high, .. }) = first.speed_over(way);
        let share = format!("{:.0} % ({:.0} to {:.0})", share * 100.0, low * 100.0, high * 100.0);
        println!("| {what} | {} | {} | {share} |", way.name(), rates(way));
    }
}
