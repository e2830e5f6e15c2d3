//! Client commands that ask for what cannot be.

use std::net::TcpListener;
use std::time::Duration;

use holdfast_cli::exit;

use crate::cluster::Cluster;
use crate::process::{run, run_with};

#[test]
fn without_a_broker_commands_end_in_time() {
    // Takes connections, by way of the backlog, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let unreachable = |command: &[&str], code: u8, endpoint: &str| {
        let outcome = run(&[command, &["--timeout", "300ms", "-b", endpoint]].concat());
        outcome.refused(code, &[endpoint]);
        assert!(outcome.time < Duration::from_secs(5), "{outcome:?}");
    };
    for (command, code) in [
        (&["topic", "create", "orders"][..], exit::UNREACHABLE),
        (&["topic", "delete", "orders", "--yes"], exit::UNREACHABLE),
        (&["produce", "orders"], exit::UNREACHABLE),
        (&["consume", "orders"], exit::UNREACHABLE),
        (&["bench", "produce", "orders"], exit::UNREACHABLE),
        (&["cluster", "events"], exit::UNREACHABLE),
        (&["zone", "status"], exit::UNKNOWN),
    ] {
        unreachable(command, code, "127.0.0.1:1");
    }
    for endpoint in ["127.0.0.1:1", silent.as_str(), "name.invalid:7070"] {
        unreachable(&["topic", "ls"], exit::UNREACHABLE, endpoint);
        unreachable(&["cluster", "status"], exit::UNKNOWN, endpoint);
        let outcome = run(&["health", endpoint, "--timeout", "300ms"]);
        outcome.refused(exit::UNKNOWN, &[endpoint]);
    }
    let both = format!("127.0.0.1:1,{silent}");
    run_with(&["topic", "ls", "--timeout", "300ms"], &[("HOLDFAST_BOOTSTRAP", &both)], "")
        .refused(exit::UNREACHABLE, &["127.0.0.1:1", &silent]);
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let cluster = Cluster::start(1);
    cluster.run_with_input(&["produce", "ready"], "one\ntwo\nthree\n").ok();
    let topics = || cluster.run(&["topic", "ls", "--format", "json"]).ok();
    let before = topics();
    let long = "x".repeat(250);
    // An unknown topic is waited for that long: it might have been made a moment ago.
    let wait = ["--timeout", "1s"];
    for (command, code, parts) in [
        (&["topic", "describe", "nowhere"][..], exit::DATA, &["nowhere", "UNKNOWN_TOPIC"][..]),
        (&["topic", "delete", "nowhere", "--yes"], exit::DATA, &["nowhere", "UNKNOWN_TOPIC"]),
        (&["produce", "nowhere"], exit::DATA, &["nowhere", "UNKNOWN_TOPIC"]),
        (&["consume", "nowhere"], exit::DATA, &["nowhere", "UNKNOWN_TOPIC"]),
        (&["consume", "nowhere", "-o", "-1"], exit::DATA, &["nowhere", "UNKNOWN_TOPIC"]),
        (&["bench", "produce", "nowhere"], exit::DATA, &["nowhere", "UNKNOWN_TOPIC"]),
        (&["consume", "ready", "-p", "9"], exit::DATA, &["9", "UNKNOWN_PARTITION"]),
        (&["consume", "ready", "-p", "9", "-o", "-1"], exit::DATA, &["9", "UNKNOWN_PARTITION"]),
        (&["produce", "ready", "-p", "9"], exit::DATA, &["no partition 9"]),
        (&["consume", "ready", "-o", "1000"], exit::DATA, &["1000", "OFFSET_OUT_OF_RANGE"]),
        (&["topic", "alter", "nowhere", "--retention", "1h"], exit::DATA, &["nowhere", "UNKNOWN_TOPIC"]),
        (&["topic", "alter", "ready"], exit::USAGE, &["--retention"]),
        (&["topic", "alter", "ready", "--retention", "soon"], exit::USAGE, &["24h", "unlimited"]),
        (&["topic", "alter", "ready", "--retention-bytes", "1KiB"], exit::DATA, &["INVALID_REQUEST"]),
        (&["topic", "delete", "ready"], exit::USAGE, &["--yes", "terminal"]),
        (&["topic", "create", "ready", "-r", "1", "--waive-zones"], exit::DATA, &["ready", "TOPIC_EXISTS"]),
        (&["topic", "create", "no/slash"], exit::DATA, &["no/slash", "INVALID_REQUEST"]),
        (&["topic", "create", ".."], exit::DATA, &["INVALID_REQUEST"]),
        (&["topic", "create", ""], exit::DATA, &["INVALID_REQUEST"]),
        (&["topic", "create", &long], exit::DATA, &["INVALID_REQUEST"]),
        (&["topic", "create", "line\nbreak"], exit::DATA, &["INVALID_REQUEST"]),
        (&["topic", "create", "t", "-r", "1", "--waive-zones", "-p", "0"], exit::USAGE, &["--partitions"]),
        (
            &["topic", "create", "t", "-r", "1", "--waive-zones", "-p", "4294967295"],
            exit::DATA,
            &["partitions"],
        ),
        (&["topic", "create", "t", "-r", "0", "--waive-zones"], exit::USAGE, &["--replication"]),
        (&["topic", "create", "t", "-r", "2"], exit::DATA, &["INVALID_REQUEST", "--waive-zones"]),
        (&["topic", "create", "t", "-r", "3"], exit::DATA, &["PLACEMENT_IMPOSSIBLE"]),
        (&["partition", "move", "ready", "0", "--to", "9"], exit::DATA, &["broker 9", "INVALID_REQUEST"]),
        (&["partition", "move", "ready", "0", "--to", "1,1"], exit::DATA, &["INVALID_REQUEST"]),
        (&["partition", "cancel", "ready", "0"], exit::RETRY, &["not being moved", "CONFLICTING_CHANGE"]),
        (&["partition", "lead", "ready", "0", "9"], exit::DATA, &["broker 9", "INVALID_REQUEST"]),
        (&["partition", "lead", "ready", "9", "1"], exit::DATA, &["9", "UNKNOWN_PARTITION"]),
        (&["partition", "lead", "nowhere", "0", "1"], exit::DATA, &["nowhere", "UNKNOWN_TOPIC"]),
        (&["partition", "recover", "ready", "0", "--unclean"], exit::USAGE, &["--yes", "terminal"]),
        (&["zone", "status", "nowhere"], exit::DATA, &["nowhere", "the zones are a"]),
        (&["produce", "ready", "--file", "/nowhere/records"], exit::CANNOT_CREATE, &["/nowhere/records"]),
        (&["produce", "ready", "--batch-size", "0"], exit::USAGE, &["batch"]),
        (&["bench", "produce", "ready", "--clients", "0"], exit::USAGE, &["--clients"]),
    ] {
        let outcome = cluster.run(&[command, &wait].concat());
        outcome.refused(code, parts);
        assert!(outcome.time < Duration::from_secs(10), "{outcome:?}");
    }
    assert_eq!(topics(), before, "a refused command changed the topics");
    assert_eq!(cluster.run(&["consume", "ready", "-e"]).ok(), "one\ntwo\nthree\n");
}

#[test]
fn how_much_is_kept_is_shown_and_changed() {
    let cluster = Cluster::start(1);
    let limits = ["--retention", "24h", "--retention-bytes", "10GiB"];
    cluster.run(&[&["topic", "create", "kept", "-r", "1", "--waive-zones"][..], &limits].concat()).ok();
    let shown = |line: &str| {
        let described = cluster.run(&["topic", "describe", "kept"]).ok();
        assert!(described.contains(line), "{described}");
    };
    shown("retention 1day or 10.7 GB of each partition, whichever is less");
    let altered = cluster.run(&["topic", "alter", "kept", "--retention", "90m"]).ok();
    assert!(altered.contains("altered kept  retention 1h 30m or 10.7 GB of each partition"), "{altered}");
    cluster.run(&["topic", "alter", "kept", "--retention-bytes", "unlimited"]).ok();
    shown("retention 1h 30m\n");
    let facts = cluster.run(&["topic", "describe", "kept", "--format", "json"]).ok();
    assert!(
        facts.contains("\"retention_ms\":5400000") && facts.contains("\"retention_bytes\":null"),
        "{facts}"
    );
    cluster.run(&["topic", "alter", "kept", "--retention", "unlimited"]).ok();
    shown("retention unlimited\n");
}

#[test]
fn compaction_is_shown_and_changed_and_keys_and_tombstones_go_in_and_come_out() {
    let cluster = Cluster::start(1);
    let flags = ["-p", "1", "-r", "1", "--waive-zones", "--compact", "--tombstone-delay", "1h"];
    cluster.run(&[&["topic", "create", "prices"][..], &flags].concat()).ok();
    let shown = |line: &str| {
        let described = cluster.run(&["topic", "describe", "prices"]).ok();
        assert!(described.contains(line), "{described}");
    };
    shown("compaction last record of each key, when 50% is new; tombstones stay 1h\n");
    let altered =
        cluster.run(&["topic", "alter", "prices", "--min-dirty-percent", "20", "--retention", "24h"]).ok();
    assert!(
        altered.contains("retention 1day  compaction last record of each key, when 20% is new"),
        "{altered}"
    );
    let facts = cluster.run(&["topic", "describe", "prices", "--format", "json"]).ok();
    let expected = "\"compaction\":{\"min_dirty_percent\":20,\"tombstone_delay_ms\":3600000}";
    assert!(facts.contains(expected) && facts.contains("\"retention_ms\":86400000"), "{facts}");

    let produce = ["produce", "prices", "--key-separator", ":", "--tombstone", "-"];
    cluster.run_with_input(&produce, "a:1\nb:2\na:-\n").ok();
    let keyless = cluster.run_with_input(&["produce", "prices"], "alone\n");
    assert_eq!(keyless.code, Some(i32::from(exit::DATA)), "{keyless:?}");
    assert!(
        keyless.stderr.contains("INVALID_RECORD") && keyless.stderr.contains("--key-separator"),
        "{keyless:?}"
    );
    let consume = ["consume", "prices", "-e", "--key-separator", ":", "--tombstone", "-"];
    assert_eq!(cluster.run(&consume).ok(), "a:1\nb:2\na:-\n", "only what has a key is there");
    let lines = cluster.run(&["consume", "prices", "-e", "--format", "json"]).ok();
    assert!(lines.contains(r#""key":"a","value":null"#), "{lines}");
    cluster.run_with_input(&["produce", "prices", "--json"], &lines).ok();
    assert_eq!(cluster.run(&consume).ok(), "a:1\nb:2\na:-\na:1\nb:2\na:-\n", "as it was printed");
    let bad = cluster.run_with_input(&["produce", "prices", "--json"], "{\"key\":\"a\"}\n");
    assert_eq!(bad.code, Some(i32::from(exit::DATA)), "{bad:?}");
    assert!(bad.stderr.contains("line 1") && bad.stderr.contains("no value"), "{bad:?}");

    cluster.run(&["topic", "alter", "prices", "--no-compact"]).ok();
    shown("compaction none\n");
    let details = cluster.run(&["topic", "alter", "prices", "--tombstone-delay", "1h"]);
    details.refused(exit::USAGE, &["--compact", "not compacted"]);
}
