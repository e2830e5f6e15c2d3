//! The configuration files that are shipped: they are right, and they show and explain every key.

use std::path::{Path, PathBuf};

use holdfast_broker::BrokerConfig;
use holdfast_cli::config::{BrokerFile, ControllerFile, load};
use holdfast_controller::ControllerConfig;
use holdfast_core::{BrokerId, ControllerId, ZoneId};
use serde_json::Value;

use crate::process::{run, run_with};

/// The files of one folder of `deploy` whose names begin with the role.
fn files(folder: &str, role: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(folder);
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(role);
    let files: Vec<PathBuf> =
        entries.filter(named).filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    assert!(!files.is_empty(), "no file of a {role} in {folder:?}");
    files
}

/// A line that sets a key, live or commented out.
fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.strip_prefix("# ").unwrap_or(line).split_once(" = ")?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
    (!key.is_empty() && key.bytes().all(plain)).then_some(key)
}

/// The keys of a file with their sections, each with a comment above it, alone or shared with the keys around it.
fn explained(text: &str) -> Vec<String> {
    let (mut section, mut commented, mut keys) = (String::new(), false, Vec::new());
    for line in text.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        if let Some(name) = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            (section, commented) = (format!("{name}."), false);
        } else if let Some(key) = key_of(line) {
            keys.extend(commented.then(|| format!("{section}{key}")));
        } else if line.starts_with("# ") {
            commented = true;
        } else if line.is_empty() {
            commented = false;
        }
    }
    keys
}

/// All keys of a configuration, those of its sections too.
fn keys_of(section: &str, config: &Value) -> Vec<String> {
    let entries = config.as_object().unwrap().iter();
    let keys = entries.flat_map(|(key, value)| match value {
        Value::Object(_) => keys_of(&format!("{section}.{key}"), value),
        _ => vec![format!("{section}.{key}")],
    });
    keys.collect()
}

/// The keys of `[tls]`, as the binary itself names them.
fn tls_keys() -> Vec<String> {
    let text = std::fs::read_to_string(&files("local", "broker")[0]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("broker.toml");
    std::fs::write(&file, format!("{text}\n[tls]\nauthority = \"a\"\ncolour = 1\n")).unwrap();
    let stderr = run(&["broker", "--check", "--config", file.to_str().unwrap()]).stderr;
    let (_, known) = stderr.split_once("known there: ").expect("the keys are named");
    let (known, _) = known.split_once(')').unwrap();
    known.split(", ").map(|key| format!("tls.{key}")).collect()
}

#[test]
fn every_file_passes_the_check() {
    for role in ["broker", "controller"] {
        for file in [files("local", role), files("compose", role)].concat() {
            let outcome = run(&[role, "--check", "--config", file.to_str().unwrap()]);
            assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{file:?}");
        }
    }
    // As deploy/compose.yaml makes it differ by zone.
    let file = &files("compose", "broker")[0];
    let environment = [
        ("HOLDFAST_BROKER__ID", "2"),
        ("HOLDFAST_BROKER__ZONE", "b"),
        ("HOLDFAST_BROKER__CLIENT_ENDPOINT", "127.0.0.1:7071"),
        ("HOLDFAST_BROKER__PEER_ENDPOINT", "broker-b:7170"),
    ];
    run_with(&["broker", "--check", "--config", file.to_str().unwrap()], &environment, "").ok();
}

#[test]
fn every_key_is_shown_and_explained() {
    let zone = || ZoneId::new("a");
    let broker = BrokerConfig::new(BrokerId(1), zone(), "d".into(), String::new(), String::new(), Vec::new());
    let broker = keys_of("broker", &serde_json::to_value(broker).unwrap());
    let controller = ControllerConfig::new(ControllerId(1), zone(), "d".into(), String::new(), Vec::new());
    let controller = keys_of("controller", &serde_json::to_value(controller).unwrap());
    assert!(broker.len() > 15 && controller.len() > 8 && tls_keys().len() == 4);
    for (role, keys) in [("broker", broker), ("controller", controller)] {
        for file in files("local", role) {
            let explained = explained(&std::fs::read_to_string(&file).unwrap());
            for key in [&["cluster".to_owned()], &keys[..], &tls_keys()].concat() {
                assert!(explained.contains(&key), "{file:?} does not show and explain {key}: {explained:?}");
            }
        }
    }
}

/// Takes the `#` from every key and section that is commented out.
fn uncommented(file: &Path, dir: &Path) -> PathBuf {
    let text = std::fs::read_to_string(file).unwrap();
    let bare = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if key_of(rest).is_some() || rest.starts_with('[') => rest.to_owned(),
        _ => line.to_owned(),
    };
    let path = dir.join(file.file_name().unwrap());
    std::fs::write(&path, text.lines().map(bare).collect::<Vec<_>>().join("\n")).unwrap();
    path
}

#[test]
fn what_is_commented_out_is_the_default() {
    let dir = tempfile::tempdir().unwrap();
    for file in files("local", "broker") {
        let (shipped, shown): (BrokerFile, BrokerFile) =
            (load(&file).unwrap(), load(&uncommented(&file, dir.path())).unwrap());
        assert!(shipped.tls.is_none() && shown.tls.is_some());
        // Their defaults are other keys.
        assert_eq!(shown.broker.client_endpoint.as_ref(), Some(&shown.broker.client_listen));
        assert_eq!(shown.broker.peer_endpoint.as_ref(), Some(&shown.broker.peer_listen));
        let shown = BrokerConfig { client_endpoint: None, peer_endpoint: None, ..shown.broker };
        assert_eq!(shown, shipped.broker, "{file:?}");
    }
    for file in files("local", "controller") {
        let (shipped, shown): (ControllerFile, ControllerFile) =
            (load(&file).unwrap(), load(&uncommented(&file, dir.path())).unwrap());
        assert!(shipped.tls.is_none() && shown.tls.is_some());
        assert_eq!(shown.controller, shipped.controller, "{file:?}");
    }
}
