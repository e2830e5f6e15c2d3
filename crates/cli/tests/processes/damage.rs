//! Files of a data folder that are not what was written there: a process judges them, and serves or says what is wrong.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_cli::exit;

use crate::cluster::{Cluster, start};
use crate::process::{Process, assert_three_lines, eventually, run};

/// All files below a folder, in a fixed order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, &target).unwrap();
    }
}

/// Either it serves, or it ended with an error that names something in its folder. Never does it panic.
fn assert_judged(mut process: Process, port: u16, folder: &Path, damage: &str) {
    let serves = eventually(|| {
        if !process.is_alive() {
            return Ok(false);
        }
        match run(&["health", &format!("127.0.0.1:{port}"), "--timeout", "5s"]) {
            outcome if outcome.code == Some(0) => Ok(true),
            outcome => Err(format!("{damage}: {} {}", outcome.stderr, process.log())),
        }
    });
    if serves {
        // What is read after the start is judged by the end of an orderly stop.
        process.terminate();
        let status = process.ended();
        assert!(status.success(), "{damage}: {status} {}", process.log());
    }
    let log = process.log();
    assert!(!log.contains("panicked"), "{damage}: {log}");
    if serves {
        return;
    }
    assert_eq!(process.ended().code(), Some(i32::from(exit::CANNOT_CREATE)), "{damage}: {log}");
    assert_three_lines(&log, &[folder.to_str().unwrap()]);
}

#[test]
fn damaged_files_are_judged_and_nothing_panics() {
    let mut cluster = Cluster::start(1);
    cluster.run_with_input(&["produce", "ready"], "one\ntwo\nthree\n").ok();
    cluster.brokers[0].terminate();
    assert!(cluster.brokers[0].ended().success());
    cluster.controller.terminate();
    assert!(cluster.controller.ended().success());
    let (broker, controller) = (&cluster.broker_files[0], &cluster.controller_file);
    let dir = cluster.dir.path();
    let folder = dir.join("damaged");
    for (role, text, original, port) in [
        ("broker", broker.text(), &broker.data_dir, broker.client_port),
        ("controller", controller.text(), &controller.data_dir, controller.port),
    ] {
        let text = text.replace(original.to_str().unwrap(), folder.to_str().unwrap());
        for file in files(original) {
            let name = file.strip_prefix(original).unwrap();
            let bytes = fs::read(&file).unwrap();
            let mut flipped = bytes.clone();
            flipped.iter_mut().skip(bytes.len() / 2).take(1).for_each(|byte| *byte ^= 0x10);
            for (kind, damaged) in [
                ("empty", Vec::new()),
                ("noise", b"\xff{\"no\0".repeat(100)),
                ("half", bytes[..bytes.len() / 2].to_vec()),
                ("flipped", flipped),
            ] {
                // The folder as it was, but for one file.
                let _ = fs::remove_dir_all(&folder);
                copy(original, &folder);
                fs::write(folder.join(name), damaged).unwrap();
                let process = start(role, &text, dir, "damaged-process");
                let damage = format!("{role}: {} {kind}", name.display());
                assert_judged(process, port, &folder, &damage);
            }
        }
    }
}
