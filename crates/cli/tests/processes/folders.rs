//! Ports and data folders that cannot be used: a process says whose they are, ends, and leaves them as they were.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use holdfast_cli::exit;

use crate::cluster::{BrokerFile, Cluster, ControllerFile, free_ports, start};
use crate::process::{eventually, run};

/// Everything below a folder: files with their bytes, folders without.
pub(crate) fn contents(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
            found.insert(path, None);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.insert(path, Some(bytes));
        }
    }
    found
}

fn serves(port: u16) {
    eventually(|| match run(&["health", &format!("127.0.0.1:{port}"), "--timeout", "2s"]) {
        outcome if outcome.code == Some(0) => Ok(()),
        outcome => Err(outcome.stderr),
    });
}

#[test]
fn a_port_that_is_taken_is_named_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let broker = BrokerFile::alone(&data_dir);
    let client = BrokerFile { client_port: port, ..broker.clone() }.start(dir.path(), "client");
    let peer = BrokerFile { peer_port: port, ..broker }.start(dir.path(), "peer");
    let controller =
        ControllerFile { port, ..ControllerFile::alone(&data_dir) }.start(dir.path(), "controller");
    for (mut process, key) in
        [(client, "broker.client-listen"), (peer, "broker.peer-listen"), (controller, "controller.listen")]
    {
        process.refused(exit::CANNOT_CREATE, &[key, &address, "in use"]);
    }
    assert!(!data_dir.exists(), "nothing was made");
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // 192.0.2.0/24 belongs to no machine.
    let text = BrokerFile::alone(&dir.path().join("data")).text();
    let text = text.replacen("client-listen = \"127.0.0.1", "client-listen = \"192.0.2.1", 1);
    let file = dir.path().join("broker.toml");
    std::fs::write(&file, text).unwrap();
    run(&["broker", "-c", file.to_str().unwrap()])
        .refused(exit::CANNOT_CREATE, &["192.0.2.1", "broker.client-listen"]);
}

#[test]
fn a_folder_in_use_is_refused_and_its_owner_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let broker = BrokerFile::alone(&dir.path().join("broker"));
    let controller = ControllerFile::alone(&dir.path().join("controller"));
    let _owners = (broker.start(dir.path(), "broker-1"), controller.start(dir.path(), "controller-1"));
    serves(broker.client_port);
    serves(controller.port);
    let [client_port, peer_port, port] = free_ports();
    let mut second_broker =
        BrokerFile { client_port, peer_port, ..broker.clone() }.start(dir.path(), "broker-2");
    let mut second_controller =
        ControllerFile { port, ..controller.clone() }.start(dir.path(), "controller-2");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    second_broker.refused(exit::CANNOT_CREATE, &["in use by another process", &path(&broker.data_dir)]);
    second_controller
        .refused(exit::CANNOT_CREATE, &["in use by another process", &path(&controller.data_dir)]);
    serves(broker.client_port);
    serves(controller.port);
}

#[test]
fn a_folder_of_somebody_else_is_refused_and_stays_as_it_is() {
    let mut cluster = Cluster::start(1);
    cluster.run_with_input(&["produce", "ready"], "one\ntwo\n").ok();
    cluster.brokers[0].terminate();
    assert!(cluster.brokers[0].ended().success());
    cluster.controller.terminate();
    assert!(cluster.controller.ended().success());
    let (broker, controller) = (cluster.broker_files[0].clone(), cluster.controller_file.clone());
    let before = [contents(&broker.data_dir), contents(&controller.data_dir)];
    let other = "other".to_owned();
    // One after the other: they would wait for each other's locks.
    for (role, name, text, parts) in [
        (
            "broker",
            "broker-other-cluster",
            BrokerFile { cluster: other.clone(), ..broker.clone() }.text(),
            &["broker.data-dir", "broker 1 of cluster \"test\""][..],
        ),
        (
            "broker",
            "broker-other-id",
            BrokerFile { id: 2, ..broker.clone() }.text(),
            &["broker.data-dir", "not to broker 2"],
        ),
        (
            "controller",
            "controller-other-cluster",
            ControllerFile { cluster: other, ..controller.clone() }.text(),
            &["controller.data-dir", "controller 1 of cluster \"test\""],
        ),
        (
            "controller",
            "controller-other-id",
            ControllerFile { id: 2, ..controller.clone() }.text(),
            &["controller.data-dir", "not to controller 2"],
        ),
    ] {
        let mut process = start(role, &text, cluster.dir.path(), name);
        process.refused(exit::CANNOT_CREATE, parts);
        let after = [contents(&broker.data_dir), contents(&controller.data_dir)];
        assert!(after == before, "a folder was changed: {}", process.log());
    }
}

#[test]
fn a_place_where_nothing_can_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a-file");
    std::fs::write(&file, "mine").unwrap();
    // Nobody, not even root, makes a folder in /proc.
    let places = [file.clone(), file.join("below"), PathBuf::from("/proc/holdfast")];
    for (number, place) in places.iter().enumerate() {
        let text = place.to_str().unwrap();
        let broker = BrokerFile::alone(place).start(dir.path(), &format!("broker-{number}"));
        let controller = ControllerFile::alone(place).start(dir.path(), &format!("controller-{number}"));
        for mut process in [broker, controller] {
            process.refused(exit::CANNOT_CREATE, &[text]);
        }
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}
