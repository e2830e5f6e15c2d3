//! Brokers that the controllers will not have end by themselves, and say so.

use holdfast_cli::exit;

use crate::cluster::{BrokerFile, Cluster};

#[test]
fn a_broker_of_another_cluster_or_in_another_zone_ends_by_itself() {
    let mut cluster = Cluster::start(1);
    let dir = cluster.dir.path().to_owned();
    let known = cluster.broker_files[0].clone();
    let file = |name: &str| BrokerFile {
        controller_port: known.controller_port,
        ..BrokerFile::alone(&dir.join(name))
    };
    let stranger =
        BrokerFile { cluster: "other".to_owned(), id: 2, zone: "b".to_owned(), ..file("stranger") };
    let moved = BrokerFile { id: known.id, zone: "b".to_owned(), ..file("moved") };
    let (mut stranger, mut moved) = (stranger.start(&dir, "stranger"), moved.start(&dir, "moved"));
    stranger.refused(exit::CONFIG, &["refuses this broker", "other", "test"]);
    moved.refused(exit::CONFIG, &["refuses this broker", "zone"]);
    // Those that belong together are not bothered.
    assert!(cluster.brokers[0].is_alive() && cluster.controller.is_alive());
    cluster.run_with_input(&["produce", "ready"], "one\n").ok();
    let brokers = cluster.run(&["cluster", "status"]).stdout;
    assert!(!brokers.contains("other") && !brokers.contains(" b "), "{brokers}");
}

/// Under the number of a broker that runs: on a folder of its own, as by a mistake in its file, and on a copy of the other's,
/// as of a machine that was cloned. A restart of the first is no such case, and needs no waiting.
#[test]
fn a_second_process_under_the_number_of_a_live_broker_ends_by_itself() {
    let mut cluster = Cluster::start(1);
    let dir = cluster.dir.path().to_owned();
    let known = cluster.broker_files[0].clone();
    cluster.run_with_input(&["produce", "ready"], "one\n").ok();
    let copy = dir.join("copy");
    copy_folder(&known.data_dir, &copy);
    for (name, folder) in [("second", dir.join("second")), ("cloned", copy)] {
        let file = BrokerFile {
            id: known.id,
            zone: known.zone.clone(),
            controller_port: known.controller_port,
            ..BrokerFile::alone(&folder)
        };
        file.start(&dir, name)
            .refused(exit::CONFIG, &["refuses this broker", "runs already", "stop that one first"]);
        assert!(cluster.brokers[0].is_alive(), "{}", cluster.brokers[0].log());
        cluster.run_with_input(&["produce", "ready"], "more\n").ok();
    }
    cluster.brokers[0].kill();
    cluster.brokers[0] = known.start(&dir, "again");
    cluster.run_with_input(&["produce", "ready"], "after\n").ok();
    let records = cluster.run(&["consume", "ready", "-e"]).ok();
    assert_eq!(records.lines().collect::<Vec<_>>(), ["one", "more", "more", "after"]);
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
