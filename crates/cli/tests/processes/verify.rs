//! `holdfast verify`: each verdict has its exit code, and what is no history is told from what is.

use std::path::PathBuf;

use holdfast_cli::exit;

use crate::process::run;

const SENT: &str = r#"{"at_us":1,"process":1,"op":1,"type":"invoke","f":"send","key":"t/0","values":[7]}
{"at_us":2,"process":1,"op":1,"type":"ok","f":"send","key":"t/0","values":[7],"base_offset":0,"epoch":256}
"#;
const FINAL: &str = r#"{"at_us":3,"process":0,"op":0,"type":"begin","f":"final"}
{"at_us":4,"process":2,"op":1,"type":"invoke","f":"poll","key":"t/0"}
"#;
const READ: &str = r#"{"at_us":5,"process":2,"op":1,"type":"ok","f":"poll","key":"t/0","records":[[0,7]],"high_watermark":1}"#;
const READ_NOTHING: &str =
    r#"{"at_us":5,"process":2,"op":1,"type":"ok","f":"poll","key":"t/0","records":[]}"#;

/// A folder with one history, removed when dropped.
struct History {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl History {
    fn of(text: &str) -> History {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.jsonl");
        std::fs::write(&path, text).unwrap();
        History { _folder: folder, path }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

#[test]
fn every_verdict_has_its_exit_code_and_its_last_line() {
    for (text, code, last) in [
        (format!("{SENT}{FINAL}{READ}\n"), exit::OK, "valid"),
        (format!("{SENT}{FINAL}{READ_NOTHING}\n"), exit::WARNING, "INVALID: 1 unseen"),
        (SENT.to_owned(), exit::UNKNOWN, "INCOMPLETE: no final phase"),
    ] {
        let history = History::of(&text);
        let outcome = run(&["verify", history.path()]);
        assert_eq!(outcome.code, Some(i32::from(code)), "{outcome:?}");
        assert!(outcome.stdout.lines().last().unwrap().starts_with(last), "{outcome:?}");
        let outcome = run(&["verify", history.path(), "--format", "json"]);
        assert_eq!(outcome.code, Some(i32::from(code)), "{outcome:?}");
        let report: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(report["valid"], code == exit::OK, "{outcome:?}");
    }
}

#[test]
fn an_anomaly_names_the_lines_that_it_is_about() {
    let history = History::of(&format!("{SENT}{FINAL}{READ_NOTHING}\n"));
    let outcome = run(&["verify", history.path()]);
    assert!(outcome.stdout.contains("t/0 offset 0 value 7"), "{outcome:?}");
    assert!(outcome.stdout.contains("see lines 1, 2"), "{outcome:?}");
}

#[test]
fn what_is_no_history_is_refused() {
    let torn = History::of(&SENT[..SENT.len() - 9]);
    run(&["verify", torn.path()]).refused(exit::DATA, &["line 2 is torn"]);
    let garbage = History::of("\u{0}\u{1}\n");
    run(&["verify", garbage.path()]).refused(exit::DATA, &["line 1"]);
    let twice = History::of(&format!("{SENT}{SENT}"));
    run(&["verify", twice.path()]).refused(exit::DATA, &["value 7 was sent to t/0 before"]);
    let missing = format!("{}.missing", torn.path());
    run(&["verify", &missing]).refused(exit::CANNOT_CREATE, &[&missing]);
    run(&["verify"]).refused(exit::USAGE, &["HISTORY"]);
}
