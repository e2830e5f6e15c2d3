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
