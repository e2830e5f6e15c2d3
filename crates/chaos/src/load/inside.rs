//! A probe inside a zone: this program runs itself in the zone's namespace, so that its packets are cut with the zone's.
//! It writes its history to a pipe, and the runner adds that to its own. The end of its input tells it to end.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_checker::history::{Reader, SendStage, What};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::args::ProbeArgs;
use crate::clock::Micros;
use crate::error::ChaosError;
use crate::history::History;
use crate::load::numbers::Numbers;
use crate::load::probe::{Pace, Probe};
use crate::load::{Load, PARTITIONS, connect, value};
use crate::network::Network;
use crate::record::lock;
use crate::zone::Zone;

/// Slower than the probe that recovery times come from: it only has to show whether anything is acknowledged.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long it may take to be acknowledged for the first time.
const START: Duration = Duration::from_secs(15);
/// Pause between two looks whether it was.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How long it waits in the end for what is on its way, and the runner for its end.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
const END: Duration = Duration::from_secs(10);

/// A probe that runs in a zone.
#[derive(Debug)]
pub(crate) struct Inside {
    child: Child,
    listener: JoinHandle<()>,
    acked: Arc<Mutex<Vec<Micros>>>,
}

impl Inside {
    /// Starts it, and waits until it was acknowledged something.
    pub(crate) async fn start(network: &Network, zone: Zone, load: &Arc<Load>) -> Result<Inside, ChaosError> {
        let inside = Inside::spawn(network, zone, load)?;
        let deadline = Instant::now() + START;
        while lock(&inside.acked).is_empty() {
            if Instant::now() >= deadline {
                let what = format!("an acknowledgement of the probe inside zone {zone}");
                return Err(ChaosError::Late { what, limit: START, seen: "none".to_owned() });
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(inside)
    }

    fn spawn(network: &Network, zone: Zone, load: &Arc<Load>) -> Result<Inside, ChaosError> {
        let runner = std::env::current_exe().map_err(ChaosError::io("finding this program"))?;
        let (process, value) = load.numbers.reserve();
        let mut command = network.command(zone, &runner);
        command.args(["probe", "--topic", &load.topic, "--zone", zone.name()]);
        command.args(["--bootstrap", &network.bootstrap().join(",")]);
        command.args(["--after-process", &process.to_string(), "--after-value", &value.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(ChaosError::io("starting a probe in a zone"))?;
        let acked = Arc::new(Mutex::new(Vec::new()));
        let output = child.stdout.take().map(BufReader::new);
        let listener = tokio::spawn(listen(output, load.clone(), acked.clone()));
        Ok(Inside { child, listener, acked })
    }

    /// Acknowledgements that it got between two moments.
    pub(crate) fn acked_between(&self, from: Micros, to: Micros) -> usize {
        lock(&self.acked).iter().filter(|at| (from..to).contains(at)).count()
    }

    /// Ends it, and takes in what it still has to tell; what it was not told of stays unknown.
    pub(crate) async fn stop(mut self) -> Result<(), ChaosError> {
        drop(self.child.stdin.take());
        let told = timeout(END, &mut self.listener).await;
        // One that has ended already is as gone as it should be.
        let _ = self.child.kill().await;
        match told {
            Ok(_) => Ok(()),
            Err(_) => {
                let (what, seen) = ("the end of the probe in a zone".to_owned(), "it goes on".to_owned());
                Err(ChaosError::Late { what, limit: END, seen })
            }
        }
    }
}

async fn listen(output: Option<BufReader<ChildStdout>>, load: Arc<Load>, acked: Arc<Mutex<Vec<Micros>>>) {
    let Some(mut output) = output else { return };
    let mut line = Vec::new();
    // A torn last line is that of a probe that was ended.
    while output.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) && line.ends_with(b"\n") {
        if let Some(Ok((_, event))) = Reader::new(&line[..]).next() {
            if let What::Send(send) = &event.what
                && matches!(send.stage, SendStage::Ok { .. })
            {
                lock(&acked).push(Micros(event.at_us));
            }
            load.history.adopt(event);
        }
        line.clear();
    }
}

/// What runs in the zone, until its input ends.
pub(crate) async fn run(arguments: &ProbeArgs) -> Result<(), ChaosError> {
    let history = History::write_to(std::io::stdout(), &arguments.topic, PARTITIONS)?;
    let load = Arc::new(Load {
        numbers: Numbers::after(arguments.after_process, arguments.after_value),
        ..Load::new(&arguments.topic, PARTITIONS, history)
    });
    let client = connect(&arguments.bootstrap, Some(&arguments.zone)).await?;
    let pace = Pace { interval: INTERVAL, delivery_timeout: None, size: value::SIZE };
    let probe = Probe::start(&client, &load, pace).await?;
    // An input that cannot be read has ended, too.
    let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
    probe.stop(LAST_ANSWERS).await;
    load.history.finish()
}
