//! All cases, each in a process of its own, and what became of them.

use std::collections::VecDeque;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::case::{Case, Expected};
use super::hunt::Hunt;

/// A process that has not come to an end for so long after its time is up goes round in circles.
const GRACE: Duration = Duration::from_secs(60);

/// Which cases, and how.
#[derive(Debug)]
pub struct RollCall {
    /// What is broken.
    pub cases: Vec<Case>,
    /// How each is looked at.
    pub hunt: Hunt,
    /// How many at once.
    pub threads: usize,
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// By whom, and the promise that was broken.
    Caught(String),
    Silent,
    /// The process could not be run.
    Failed(String),
}

impl Fate {
    fn fits(&self, expected: Expected) -> bool {
        match (self, expected) {
            (Fate::Caught(_), Expected::Caught) => true,
            (Fate::Silent, Expected::Masked | Expected::Sound) => true,
            // What a proof sees needs no second one; but nothing may be seen where nothing is broken.
            (Fate::Caught(_), Expected::Masked) => true,
            (Fate::Caught(_), Expected::Sound) | (Fate::Silent, Expected::Caught) | (Fate::Failed(_), _) => {
                false
            }
        }
    }
}

/// Runs every case and prints a line for each as it ends. Gives the names of those that did not end as they had to.
pub fn roll_call(call: RollCall) -> Vec<String> {
    let RollCall { cases, hunt, threads } = call;
    let queue = Mutex::new(VecDeque::from(cases));
    let wrong = Mutex::new(Vec::new());
    let next = || queue.lock().ok().and_then(|mut queue| queue.pop_front());
    let work = || {
        while let Some(case) = next() {
            let begun = Instant::now();
            let fate = fate_of(&case, hunt);
            print_line(&case, &fate, begun.elapsed());
            if !fate.fits(case.expected)
                && let Ok(mut wrong) = wrong.lock()
            {
                wrong.push(case.name());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    wrong.into_inner().unwrap_or_default()
}

fn print_line(case: &Case, fate: &Fate, took: Duration) {
    let verdict = match (fate, case.expected) {
        (Fate::Caught(by), Expected::Sound) => format!("FALSE ALARM: {by}"),
        (Fate::Caught(by), _) => by.clone(),
        (Fate::Silent, Expected::Caught) => "LIVES".to_owned(),
        (Fate::Silent, Expected::Masked) => {
            "masked: another rule keeps the harm away; see both together".to_owned()
        }
        (Fate::Silent, Expected::Sound) => "silent, as it has to be".to_owned(),
        (Fate::Failed(why), _) => format!("FAILED: {why}"),
    };
    let (rules, name, seconds) = (case.rules(), case.name(), took.as_secs_f64());
    println!("{rules:<8} {name:<26} {seconds:>5.1} s  {verdict}");
}

/// Runs a case in a process of its own.
fn fate_of(case: &Case, hunt: Hunt) -> Fate {
    match start(case, hunt) {
        Ok(child) => await_end(child, hunt.budget * 2 + GRACE),
        Err(error) => Fate::Failed(format!("the process of the case could not be started: {error}")),
    }
}

fn start(case: &Case, hunt: Hunt) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("--hunt")
        .arg(case.name())
        .arg("--terse")
        .arg("--budget")
        .arg(hunt.budget.as_secs().to_string());
    if hunt.schedules_only {
        command.arg("--quick");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
}

fn await_end(mut child: Child, longest: Duration) -> Fate {
    let Some(mut output) = child.stdout.take() else { return Fate::Failed("no output".to_owned()) };
    let (told, heard) = channel();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let read = output.read_to_string(&mut text);
        // Nobody listens any more where the time was up.
        let _ = told.send(read.map(|_| text));
    });
    let text = match heard.recv_timeout(longest) {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return Fate::Failed(format!("its output could not be read: {error}")),
        Err(RecvTimeoutError::Disconnected) => return Fate::Failed("its output was lost".to_owned()),
        Err(RecvTimeoutError::Timeout) => {
            // Both fail only where the process has ended meanwhile.
            let _ = child.kill();
            let _ = child.wait();
            let _ = reader.join();
            return Fate::Caught(format!("it goes round in circles: nothing said for {longest:?}"));
        }
    };
    match child.wait() {
        Ok(status) if status.success() => read_verdict(&text),
        Ok(status) => Fate::Caught(format!("its process ended: {status}")),
        Err(error) => Fate::Failed(format!("its end could not be awaited: {error}")),
    }
}

/// One line for each proof that noticed, or that none did.
fn read_verdict(text: &str) -> Fate {
    if text.trim_end() == "silent" {
        return Fate::Silent;
    }
    let notices: Option<Vec<&str>> = text.lines().map(|line| line.strip_prefix("caught ")).collect();
    match notices.filter(|notices| !notices.is_empty()) {
        Some(notices) => Fate::Caught(notices.join("; ")),
        None => Fate::Failed(format!("it said {text:?}")),
    }
}
