//! Configuration files and command lines that are wrong.

use std::path::Path;

use holdfast_cli::exit;

use crate::cluster::{BrokerFile, ControllerFile};
use crate::process::{Outcome, run, run_with};

/// `--check` with this text as file of a broker or controller.
fn check(role: &str, text: &str, environment: &[(&str, &str)]) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file.toml");
    std::fs::write(&file, text).unwrap();
    run_with(&[role, "--check", "--config", file.to_str().unwrap()], environment, "")
}

fn broker() -> String {
    BrokerFile::alone(Path::new("/nowhere/data")).text()
}

fn controller() -> String {
    ControllerFile::alone(Path::new("/nowhere/data")).text()
}

#[test]
fn what_is_right_passes_the_check_in_silence() {
    for (role, text) in [("broker", broker()), ("controller", controller())] {
        let outcome = check(role, &text, &[]);
        assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (Some(0), "", ""));
    }
}

#[test]
fn a_key_that_is_wrong_is_named_with_its_section() {
    let (broker, controller) = (broker(), controller());
    let at_top = |text: &str| format!("colour = 1\n{text}");
    let nested = broker.replace("endpoint = ", "colour = 1, endpoint = ");
    for (role, text, parts) in [
        ("broker", at_top(&broker), &["unknown key colour", "file.toml", "cluster, broker, tls"][..]),
        ("controller", at_top(&controller), &["unknown key colour", "cluster, controller, tls"]),
        (
            "broker",
            format!("{broker}flush-treads = 1\n"),
            &["unknown key broker.flush-treads", "flush-threads"],
        ),
        (
            "controller",
            format!("{controller}colour = 1\n"),
            &["unknown key controller.colour", "election-timeout"],
        ),
        ("broker", format!("{broker}[broker.log]\ncolour = 1\n"), &["unknown key broker.log.colour"]),
        ("broker", format!("{broker}[tls]\nauthority = \"x\"\ncolour = 1\n"), &["unknown key tls.colour"]),
        ("broker", nested, &["unknown key broker.controllers.0.colour", "id, zone, endpoint"]),
        ("broker", broker.replace("id = 1\nzone", "id = \"one\"\nzone"), &["broker.id", "\"one\""]),
        ("broker", broker.replace("cluster = \"test\"", "cluster = 7"), &["cluster in", "string"]),
        (
            "broker",
            format!("{broker}max-batch-size = \"4 parsecs\"\n"),
            &["broker.max-batch-size", "parsecs"],
        ),
        (
            "broker",
            format!("{broker}heartbeat-interval = \"fast\"\n"),
            &["broker.heartbeat-interval", "fast"],
        ),
        ("broker", format!("{broker}flush-threads = -1\n"), &["broker.flush-threads", "-1"]),
        ("broker", broker.replace("zone = \"a\"\ndata", "data"), &["broker.zone is missing"]),
        ("broker", controller.clone(), &["unknown key controller"]),
        ("broker", String::new(), &["cluster is missing"]),
        ("broker", "cluster = = 3\n".to_owned(), &["line 1"]),
        ("broker", broker.replace("id = 1\nzone", "id = 1\nid = 2\nzone"), &["duplicate key"]),
        ("broker", "\u{0}\u{1b}[31m".to_owned(), &["line 1"]),
    ] {
        check(role, &text, &[]).refused(exit::CONFIG, parts);
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let text = format!(
        "colour = 1\n{}flush-treads = 1\nshards = \"many\"\nheartbeat-interval = 5\n[broker.log]\nsegmant = 1\n",
        broker().replace("endpoint = ", "port = 1, endpoint = ")
    );
    let parts = [
        "key colour",
        "broker.flush-treads",
        "broker.shards",
        "broker.heartbeat-interval",
        "broker.log.segmant",
        "broker.controllers.0.port",
    ];
    check("broker", &text, &[]).refused(exit::CONFIG, &parts);
    // A required key that is wrong is reported once, and not as missing too.
    let wrong = check("broker", &broker().replace("cluster = \"test\"", "cluster = 7"), &[]);
    assert!(!wrong.stderr.contains("missing"), "{wrong:?}");
    // The same for values that are well formed and make no sense.
    let text = format!("{}max-batch-size = \"1GiB\"\nflush-threads = 0\nshards = 1000\n", broker());
    let parts = ["max-batch-size", "flush-threads", "shards"];
    check("broker", &text, &[]).refused(exit::CONFIG, &parts);
    let text = format!("{}election-timeout = \"1ms\"\nsnapshot-after = 1\n", controller()).replace(":", "");
    let parts = ["endpoint", "election-timeout", "snapshot-after"];
    check("controller", &text, &[]).refused(exit::CONFIG, &parts);
}

#[test]
fn the_environment_wins_and_its_mistakes_are_named_as_variables() {
    let text = broker();
    check("broker", &text, &[("HOLDFAST_BROKER__FLUSH_THREADS", "8")]).ok();
    check("broker", &text, &[("HOLDFAST_BROKER__LOG__SEGMENT_SIZE", "64MiB"), ("HOLDFAST_CLUSTER", "other")])
        .ok();
    // Names that look like numbers are names.
    check("broker", &text, &[("HOLDFAST_BROKER__ZONE", "1"), ("HOLDFAST_CLUSTER", "2026")]).ok();
    for (name, value, parts) in [
        ("HOLDFAST_BROKER__COLOUR", "1", &["unknown key broker.colour"][..]),
        ("HOLDFAST_BROKER__LOG__COLOUR", "1", &["unknown key broker.log.colour"]),
        ("HOLDFAST_COLOUR__COLOUR", "1", &["unknown key colour"]),
        ("HOLDFAST_BROKER__ID", "one", &["broker.id", "\"one\""]),
        ("HOLDFAST_BROKER__HEARTBEAT_INTERVAL", "100", &["broker.heartbeat-interval", "not a duration"]),
        ("HOLDFAST_BROKER__FLUSH_THREADS", "1000", &["flush-threads is not within 1 to 64"]),
    ] {
        let outcome = check("broker", &text, &[(name, value)]);
        outcome.refused(exit::CONFIG, parts);
        let variable = name.strip_suffix("__COLOUR").unwrap_or(name);
        let told = outcome.stderr.contains(variable) || name.contains("FLUSH");
        assert!(told, "{name} is not named: {outcome:?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.toml");
    for role in ["broker", "controller"] {
        for flags in [&["--check"][..], &[]] {
            let arguments = [&[role, "--config", missing.to_str().unwrap()], flags].concat();
            run(&arguments).refused(exit::CONFIG, &["missing.toml", "no such file"]);
        }
    }
    let folder = dir.path().to_str().unwrap();
    run(&["broker", "--config", folder]).refused(exit::CONFIG, &[folder, "no file"]);
    let binary = dir.path().join("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe, 0x00]).unwrap();
    run(&["broker", "--config", binary.to_str().unwrap()]).refused(exit::CONFIG, &["binary.toml"]);
}

#[test]
fn certificates_that_cannot_be_used_are_found_by_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let junk = dir.path().join("junk.pem");
    std::fs::write(&junk, "no certificate").unwrap();
    let tls = |certificate: &str| format!("{}[tls]\nauthority = {junk:?}\n{certificate}", broker());
    check("broker", &tls(""), &[]).refused(exit::CONFIG, &["tls.certificate and tls.key"]);
    let both = format!("certificate = {junk:?}\nkey = {junk:?}\n");
    check("broker", &tls(&both), &[]).refused(exit::CONFIG, &["junk.pem"]);
    let missing = "certificate = \"/nowhere/c.pem\"\nkey = \"/nowhere/k.pem\"\n";
    check("broker", &tls(missing), &[]).refused(exit::CONFIG, &["/nowhere/"]);
}

#[test]
fn command_lines_that_are_wrong_end_in_64() {
    for (line, parts) in [
        ("topc ls", &["unrecognized subcommand 'topc'", "'topic'"][..]),
        ("topic made", &["unrecognized subcommand 'made'"]),
        ("topic create", &["<NAME>", "Usage: holdfast topic create"]),
        ("topic create orders --color red", &["--color"]),
        ("topic create orders --partitions many", &["--partitions", "many"]),
        ("topic create orders --durability tape", &["tape", "disk, memory"]),
        ("topic ls --timeout 5", &["--timeout", "'5'"]),
        ("topic ls --format xml", &["xml"]),
        ("topic ls --tls-key k.pem", &["--tls-certificate"]),
        ("topic ls --tls-certificate c.pem --tls-key k.pem", &["--tls-authority"]),
        ("topic ls -b nowhere", &["nowhere", "host:port"]),
        ("topic ls -b 127.0.0.1:99999", &["127.0.0.1:99999"]),
        ("broker", &["--config"]),
        ("consume", &["<TOPIC>"]),
        ("consume orders --offset", &["--offset"]),
        ("consume orders -n -5", &["-5"]),
        ("produce orders --key-separator=", &["--key-separator"]),
        ("version extra", &["extra"]),
        ("demo --rate 0", &["--rate"]),
        ("demo --script kill:x@1s", &["x"]),
    ] {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        run(&arguments).refused(exit::USAGE, parts);
    }
    for text in ["", "begin", "+5", "--5", "@", "@yesterday", "99999999999999999999"] {
        run(&["consume", "orders", "--offset", text])
            .refused(exit::USAGE, &["--offset", &format!("{text:?}")]);
    }
    run_with(&["version"], &[("HOLDFAST_LOG", "a=b=c")], "").refused(exit::USAGE, &["HOLDFAST_LOG"]);
    // Without any command the help says more than an error could.
    let bare = run(&[]);
    assert_eq!((bare.code, bare.stdout.as_str()), (Some(64), ""));
    assert!(bare.stderr.contains("Usage: holdfast"), "{bare:?}");
    assert!(run(&["--help"]).ok().contains("Exit codes: 0 ok"));
}
