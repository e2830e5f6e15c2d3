//! Processes that are killed come back; processes that are asked to stop do so, whoever is connected.

use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::process::{Process, eventually};

/// An orderly stop lets what is under way end, and waits for nobody longer than this.
const STOP_LIMIT: Duration = Duration::from_secs(10);

#[test]
fn a_killed_broker_comes_back_on_its_folder() {
    let mut cluster = Cluster::start(1);
    cluster.run_with_input(&["produce", "ready"], "one\ntwo\n").ok();
    for round in ["three\n", "four\n"] {
        cluster.brokers[0].kill();
        cluster.brokers[0] = cluster.broker_files[0].start(cluster.dir.path(), "again");
        eventually(|| match cluster.run_with_input(&["produce", "ready", "--timeout", "5s"], round) {
            outcome if outcome.code == Some(0) => Ok(()),
            outcome => Err(outcome.stderr),
        });
    }
    assert_eq!(cluster.run(&["consume", "ready", "-e"]).ok(), "one\ntwo\nthree\nfour\n");
    assert_eq!(cluster.brokers[0].errors(), 0, "{}", cluster.brokers[0].log());
}

#[test]
fn a_killed_controller_comes_back_on_its_folder() {
    let mut cluster = Cluster::start(1);
    cluster.run_with_input(&["produce", "ready"], "one\n").ok();
    cluster.controller.kill();
    // Records do not need it.
    cluster.run_with_input(&["produce", "ready"], "two\n").ok();
    cluster.controller = cluster.controller_file.start(cluster.dir.path(), "again");
    eventually(|| match cluster.run(&["topic", "create", "later", "-p", "1", "-r", "1", "--waive-zones"]) {
        outcome if outcome.code == Some(0) => Ok(()),
        outcome if outcome.stderr.contains("TOPIC_EXISTS") => Ok(()),
        outcome => Err(outcome.stderr),
    });
    assert_eq!(cluster.run(&["consume", "ready", "-e"]).ok(), "one\ntwo\n");
}

/// SIGTERM; asserts a good end in time.
fn stop(process: &mut Process, name: &str) {
    let asked = Instant::now();
    process.terminate();
    let status = process.ended();
    let time = asked.elapsed();
    println!("{name} stopped after {time:?}");
    assert_eq!(status.code(), Some(0), "{}", process.log());
    assert!(time < STOP_LIMIT, "{name} took {time:?} to stop: {}", process.log());
    assert_eq!(process.errors(), 0, "{}", process.log());
}

#[test]
fn sigterm_ends_processes_while_others_are_connected() {
    let mut cluster = Cluster::start(1);
    cluster.run_with_input(&["produce", "ready"], "one\n").ok();
    let endpoint = cluster.client_endpoint(0);
    // Follows the partition, and watches the metadata.
    let consumer = ["consume", "ready", "--bootstrap", &endpoint];
    let mut consumer = Process::start(&consumer, cluster.dir.path(), "consumer");
    eventually(|| if consumer.output() == "one\n" { Ok(()) } else { Err(consumer.log()) });
    // A broker is connected to the controller.
    stop(&mut cluster.controller, "the controller");
    assert!(cluster.brokers[0].is_alive() && consumer.is_alive());
    cluster.run_with_input(&["produce", "ready"], "two\n").ok();
    eventually(|| if consumer.output() == "one\ntwo\n" { Ok(()) } else { Err(consumer.log()) });
    stop(&mut cluster.brokers[0], "the broker");
    assert!(consumer.is_alive(), "a consumer waits for its brokers: {}", consumer.log());
    stop(&mut consumer, "the consumer");
}
