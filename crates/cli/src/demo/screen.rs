//! Live figures on a terminal, and the keys that kill and heal zones.

use std::io::{Stdout, Write as _, stdout};
use std::time::Duration;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers, poll, read};
use crossterm::style::Print;
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{execute, queue};
use tokio::sync::mpsc;

use super::cluster::ZONES;
use super::report::Failover;
use crate::exit::CliError;
use crate::output::write_failed;

/// Keys that wait to be acted on; more are dropped.
const KEYS: usize = 16;
/// How often the key thread looks whether it is still needed.
const POLL: Duration = Duration::from_millis(100);

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// Kill or heal this zone.
    Zone(usize),
    Quit,
}

/// What is drawn.
pub(super) struct Frame {
    pub(super) elapsed: Duration,
    pub(super) bootstrap: Vec<String>,
    /// Per zone: whether the cluster believes it up, and how many partitions it leads.
    pub(super) zones: [(bool, usize); ZONES.len()],
    pub(super) partitions: u32,
    pub(super) acked: u64,
    pub(super) seen: u64,
    pub(super) unknown: u64,
    pub(super) throughput_mb_s: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) failovers: Vec<Failover>,
}

impl Frame {
    fn lines(&self) -> Vec<String> {
        let down: Vec<&str> =
            ZONES.iter().zip(&self.zones).filter(|(_, (up, _))| !up).map(|(&zone, _)| zone).collect();
        let tolerance = match down.as_slice() {
            [] => "tolerates the loss of any 1 zone".to_owned(),
            [zone] => format!("zone {zone} is lost; everything goes on; tolerates no further loss"),
            _ => "two zones are lost: writes wait".to_owned(),
        };
        let mut lines =
            vec![format!("holdfast demo   {} s   {tolerance}", self.elapsed.as_secs()), String::new()];
        for (number, (zone, (up, leaders))) in ZONES.iter().zip(&self.zones).enumerate() {
            let state = if *up { "up  " } else { "LOST" };
            lines.push(format!(
                "  [{}] zone {zone}  {state}  {leaders:>3} of {} leaders   {}",
                number + 1,
                self.partitions,
                self.bootstrap.get(number).map_or("", String::as_str)
            ));
        }
        lines.push(String::new());
        lines.push(format!("  acked     {:>12}   {:.1} MB/s", self.acked, self.throughput_mb_s));
        lines.push(format!("  read back {:>12}   unknown {}", self.seen, self.unknown));
        lines.push(format!("  ack       p50 {:.1} ms   p99 {:.1} ms", self.p50_ms, self.p99_ms));
        lines.push(String::new());
        for failover in self.failovers.iter().rev().take(5) {
            lines.push(format!(
                "  zone {} killed: {} partitions moved, RTO p50 {:.0} ms  max {:.0} ms; longest gap elsewhere {:.0} ms",
                failover.zone,
                failover.moved,
                failover.rto_ms.p50,
                failover.rto_ms.max,
                failover.unaffected_gap_ms_max
            ));
        }
        lines.push(String::new());
        lines.push("  keys: 1 2 3 kill or heal a zone   q quit, read everything back, report".to_owned());
        lines
    }
}

/// The terminal, given back when this is dropped.
pub(super) struct Screen {
    out: Stdout,
    keys: mpsc::Receiver<Key>,
}

impl Screen {
    pub(super) fn open() -> Result<Screen, CliError> {
        let mut out = stdout();
        enable_raw_mode().map_err(|error| write_failed(&error))?;
        let (sender, keys) = mpsc::channel(KEYS);
        // From here on dropping the screen gives the terminal back.
        let screen = Screen { out: stdout(), keys };
        execute!(out, EnterAlternateScreen, Hide).map_err(|error| write_failed(&error))?;
        std::thread::Builder::new()
            .name("keys".to_owned())
            .spawn(move || take_keys(&sender))
            .map_err(|error| write_failed(&error))?;
        Ok(screen)
    }

    pub(super) fn draw(&mut self, frame: &Frame) -> Result<(), CliError> {
        let drawn = || -> std::io::Result<()> {
            for (row, line) in frame.lines().iter().enumerate() {
                let row = u16::try_from(row).unwrap_or(u16::MAX);
                queue!(&self.out, MoveTo(0, row), Clear(ClearType::CurrentLine), Print(line))?;
            }
            queue!(&self.out, Clear(ClearType::FromCursorDown))?;
            (&self.out).flush()
        };
        drawn().map_err(|error| write_failed(&error))
    }

    pub(super) async fn next_key(&mut self) -> Key {
        // The key thread ends only when it cannot read any more.
        self.keys.recv().await.unwrap_or(Key::Quit)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = execute!(self.out, Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

fn take_keys(sender: &mpsc::Sender<Key>) {
    while !sender.is_closed() {
        match poll(POLL) {
            Ok(false) => {}
            Ok(true) => {
                if let Ok(Event::Key(event)) = read()
                    && let Some(key) = key_of(event)
                {
                    // A full queue means that earlier keys are still being acted on.
                    let _ = sender.try_send(key);
                }
            }
            Err(_) => return,
        }
    }
}

fn key_of(event: KeyEvent) -> Option<Key> {
    match event.code {
        KeyCode::Char('c') if event.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
        KeyCode::Char(digit) => {
            let number = digit.to_digit(10)? as usize;
            (1..=ZONES.len()).contains(&number).then(|| Key::Zone(number - 1))
        }
        _ => None,
    }
}
