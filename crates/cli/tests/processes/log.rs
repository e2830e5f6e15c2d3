//! `holdfast log` on the folder of a broker that was stopped or killed: what is there is told, what is wrong is named with
//! its place, and nothing is changed.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_cli::exit;
use holdfast_core::record_batch::{BatchError, Record, RecordBatch};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::folders::contents;
use crate::process::{Outcome, run};

/// Bytes of a batch header.
const HEADER: usize = 61;

/// A broker's folder with one log: a marker, three plain records, and two compressed ones.
struct Stopped {
    data_dir: PathBuf,
    /// The folder of the one partition, and its one segment.
    partition: PathBuf,
    segment: PathBuf,
    cluster: Cluster,
}

impl Stopped {
    fn new(end: impl FnOnce(&mut Cluster)) -> Stopped {
        let mut cluster = Cluster::start(1);
        let plain = ["produce", "ready", "--key-separator", "="];
        cluster.run_with_input(&plain, "a=alpha\nb=it's \u{1b}[31m two\nc=gamma\n").ok();
        cluster.run_with_input(&["produce", "ready", "-z", "zstd"], "four\nfive\n").ok();
        end(&mut cluster);
        let data_dir = cluster.broker_files[0].data_dir.clone();
        let partition = only_entry(&data_dir.join("partitions"), "");
        let segment = only_entry(&partition, ".log");
        Stopped { data_dir, partition, segment, cluster }
    }

    fn in_order() -> Stopped {
        Stopped::new(|cluster| {
            cluster.brokers[0].terminate();
            assert!(cluster.brokers[0].ended().success());
        })
    }

    fn data_dir(&self) -> &str {
        self.data_dir.to_str().unwrap()
    }

    fn partition(&self) -> &str {
        self.partition.to_str().unwrap()
    }

    fn damage(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(&self.segment).unwrap();
        change(&mut bytes);
        fs::write(&self.segment, bytes).unwrap();
    }
}

fn only_entry(folder: &Path, suffix: &str) -> PathBuf {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<PathBuf> = entries.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn ends(outcome: Outcome, code: u8) -> String {
    assert_eq!(outcome.code, Some(i32::from(code)), "{outcome:?}");
    assert_eq!(outcome.stderr, "", "{outcome:?}");
    outcome.stdout
}

#[test]
fn what_a_stopped_broker_holds_is_told_and_nothing_is_changed() {
    let stopped = Stopped::in_order();
    let before = contents(&stopped.data_dir);

    let stats: Value =
        serde_json::from_str(&run(&["log", "stats", stopped.data_dir(), "--format", "json"]).ok()).unwrap();
    assert_eq!((&stats["v"], &stats["broker"], &stats["clean_stop"]), (&1.into(), &1.into(), &true.into()));
    let log = &stats["logs"][0];
    assert_eq!((&log["topic"], &log["partition"]), (&"ready".into(), &0.into()), "{stats}");
    let numbers = ["segments", "start_offset", "end_offset", "records", "batches", "unflushed_records"];
    assert_eq!(numbers.map(|name| log[name].as_u64().unwrap()), [1, 0, 6, 6, 3, 0], "{stats}");
    assert_eq!(log["compression"], serde_json::json!({ "none": 2, "zstd": 1 }));
    assert_eq!(log["bytes"], fs::metadata(&stopped.segment).unwrap().len());
    assert_eq!((&log["epochs"]["count"], &log["problem"]), (&1.into(), &Value::Null));
    assert!(log["first_timestamp"].as_u64().unwrap() <= log["last_timestamp"].as_u64().unwrap());
    assert_eq!(stats["sums"]["records"], 6);
    let text = run(&["log", "stats", stopped.partition()]).ok();
    assert!(
        text.contains("ready/0") && text.contains("zstd 1") && text.contains("1 log: 1 segment"),
        "{text}"
    );

    let text = run(&["log", "verify", stopped.data_dir()]).ok();
    assert!(text.starts_with("no damage in 1 log"), "{text}");
    let last = lines(&run(&["log", "verify", stopped.partition(), "--format", "json"]).ok()).pop().unwrap();
    assert_eq!(
        (&last["type"], &last["records"], &last["damages"]),
        (&"summary".into(), &6.into(), &0.into())
    );

    let text = run(&["log", "dump", stopped.data_dir()]).ok();
    assert!(
        text.contains("control") && text.contains("zstd") && text.contains("key 1 B  value 5 B"),
        "{text}"
    );
    assert!(!text.contains("alpha") && !text.contains("four"), "contents are not shown unasked: {text}");
    let text = run(&["log", "dump", stopped.partition(), "--values", "--from", "2"]).ok();
    assert!(text.contains(r#"key "b"  value "it's \u{1b}[31m two""#), "{text}");
    assert!(text.contains(r#"key null  value "five""#) && !text.contains("alpha"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
    let arguments =
        ["log", "dump", stopped.partition(), "--values", "--from", "3", "-n", "2", "--format", "json"];
    let dumped = lines(&run(&arguments).ok());
    let types: Vec<&str> = dumped.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["batch", "record", "batch", "record"]);
    assert_eq!((&dumped[1]["offset"], &dumped[1]["value"]), (&3.into(), &"gamma".into()));
    assert_eq!((&dumped[3]["offset"], &dumped[3]["value"]), (&4.into(), &"four".into()));

    assert!(contents(&stopped.data_dir) == before, "looking changes nothing");
}

/// Batches with fewer records than offsets are whole, and said to be so; a bad note of it is damage.
#[test]
fn what_compaction_has_left_is_told() {
    let stopped = Stopped::in_order();
    stopped.damage(|bytes| {
        let batches = RecordBatch::split(bytes.clone().into()).unwrap();
        let [marker, plain, packed] = &batches[..] else { panic!("{batches:?}") };
        let second = |record: &Record| record.key.as_deref() == Some(b"b");
        let kept = plain.retaining(&plain.section(), second, |left| Ok::<_, BatchError>(left.to_vec()));
        let (first, epoch) = (packed.header().base_offset, packed.header().epoch.unwrap());
        let filler = RecordBatch::filler(first, packed.header().next_offset(), epoch).unwrap();
        *bytes = [marker, &kept.unwrap(), &filler].map(|batch| batch.bytes().to_vec()).concat();
    });
    let stats: Value =
        serde_json::from_str(&run(&["log", "stats", stopped.data_dir(), "--format", "json"]).ok()).unwrap();
    let log = &stats["logs"][0];
    let numbers = ["end_offset", "records", "removed_records", "fillers", "cleaned_end", "dirty_bytes"];
    assert_eq!(numbers.map(|name| log[name].as_u64().unwrap()), [6, 2, 4, 1, 0, 0], "{stats}");
    let text = run(&["log", "stats", stopped.data_dir()]).ok();
    assert!(text.contains("4 records removed"), "{text}");
    run(&["log", "verify", stopped.data_dir()]).ok();
    let text = run(&["log", "dump", stopped.data_dir(), "--values"]).ok();
    assert!(
        text.contains("1 of 3 records") && text.contains("0 of 2 records") && text.contains("filler"),
        "{text}"
    );
    assert!(text.contains("it's") && !text.contains("alpha"), "{text}");
    let dumped = lines(&run(&["log", "dump", stopped.partition(), "--format", "json"]).ok());
    let fillers: Vec<bool> = dumped.iter().filter_map(|line| line["filler"].as_bool()).collect();
    assert_eq!(fillers, [false, false, true]);

    fs::write(stopped.partition.join("compaction"), b"nobody wrote that").unwrap();
    let told = ends(run(&["log", "verify", stopped.data_dir(), "--format", "json"]), exit::WARNING);
    let problem = lines(&told).swap_remove(0);
    assert_eq!((&problem["kind"], &problem["damage"]), (&"compaction".into(), &true.into()), "{told}");
}

#[test]
fn a_flipped_bit_is_found_and_named() {
    let stopped = Stopped::in_order();
    let marker =
        i32::from_be_bytes(fs::read(&stopped.segment).unwrap()[8..12].try_into().unwrap()) as usize + 12;
    // In a record of the second batch.
    stopped.damage(|bytes| bytes[marker + HEADER + 5] ^= 0x40);
    let segment = stopped.segment.to_str().unwrap().to_owned();
    let text = ends(run(&["log", "verify", stopped.data_dir()]), exit::WARNING);
    let place = format!("{segment} byte {marker}");
    for part in ["DAMAGED ready/0 at offset 1", "checksum", &place, "1 damaged place in 1 log"] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let problem =
        lines(&ends(run(&["log", "verify", stopped.partition(), "--format", "json"]), exit::WARNING))
            .remove(0);
    assert_eq!((&problem["kind"], &problem["damage"]), (&"checksum".into(), &true.into()));
    assert_eq!((&problem["offset"], &problem["position"]), (&1.into(), &marker.into()));
    assert_eq!(problem["path"], segment.as_str());
    let text = ends(run(&["log", "dump", stopped.partition(), "--values"]), exit::WARNING);
    assert!(text.contains("DAMAGED") && text.contains("four"), "what is whole is still shown: {text}");
    // An epoch that was never promised: no checksum covers it.
    stopped.damage(|bytes| {
        bytes[marker + HEADER + 5] ^= 0x40;
        bytes[13] ^= 0x10;
    });
    let text = ends(run(&["log", "verify", stopped.data_dir()]), exit::WARNING);
    assert!(text.contains("was promised"), "{text}");
    // A header: seen without checksums.
    stopped.damage(|bytes| {
        bytes[13] ^= 0x10;
        bytes[marker + 16] = 9;
    });
    let text = ends(run(&["log", "stats", stopped.data_dir()]), exit::WARNING);
    assert!(text.contains("DAMAGED at offset 1"), "{text}");
    // What is gone altogether.
    fs::remove_file(&stopped.segment).unwrap();
    let text = ends(run(&["log", "verify", stopped.data_dir()]), exit::WARNING);
    assert!(text.contains("the log ends here"), "{text}");
}

#[test]
fn a_torn_tail_is_damage_only_after_a_stop_in_order() {
    for killed in [false, true] {
        let stopped =
            if killed { Stopped::new(|cluster| cluster.brokers[0].kill()) } else { Stopped::in_order() };
        stopped.damage(|bytes| bytes.extend_from_slice(&[0xff; 100]));
        let (code, told) =
            if killed { (exit::OK, "torn tail ready/0") } else { (exit::WARNING, "DAMAGED ready/0") };
        for command in ["verify", "stats"] {
            ends(run(&["log", command, stopped.data_dir()]), code);
        }
        let text = ends(run(&["log", "verify", stopped.data_dir()]), code);
        assert!(text.contains(told) && text.contains("offset 6") && text.contains("100 bytes"), "{text}");
    }
}

#[test]
fn a_log_that_was_put_aside_is_judged_when_it_is_asked_for_and_missing_in_its_place() {
    let stopped = Stopped::in_order();
    let aside = format!("{}.quarantine-1", stopped.partition());
    fs::rename(&stopped.partition, &aside).unwrap();
    let text = ends(run(&["log", "stats", stopped.data_dir()]), exit::WARNING);
    assert!(text.contains("1 log put aside as damaged") && text.contains("DAMAGED at offset 0"), "{text}");
    let text = ends(run(&["log", "verify", stopped.data_dir()]), exit::WARNING);
    assert!(text.contains("trusted up to offset 6") && text.contains("1 log put aside"), "{text}");
    let text = run(&["log", "verify", &aside]).ok();
    assert!(text.contains("no damage in 1 log"), "{text}");
    let text = run(&["log", "dump", &aside, "--values"]).ok();
    assert!(text.contains("put aside") && text.contains("gamma"), "{text}");
    let segment = only_entry(Path::new(&aside), ".log");
    let mut bytes = fs::read(&segment).unwrap();
    bytes.truncate(bytes.len() - 1);
    fs::write(&segment, bytes).unwrap();
    let text = ends(run(&["log", "verify", &aside]), exit::WARNING);
    assert!(text.contains("cut short"), "{text}");
}

#[test]
fn folders_that_are_in_use_or_of_somebody_else_are_refused() {
    let mut stopped = Stopped::new(|_| {});
    let partition = stopped.partition().to_owned();
    for command in ["stats", "verify", "dump"] {
        for folder in [stopped.data_dir(), &partition] {
            run(&["log", command, folder]).refused(exit::CANNOT_CREATE, &["in use", stopped.data_dir()]);
        }
    }
    let controller = stopped.cluster.controller_file.data_dir.to_str().unwrap();
    run(&["log", "verify", controller]).refused(exit::DATA, &["not a broker's data folder"]);
    let missing = stopped.data_dir.join("missing");
    run(&["log", "verify", missing.to_str().unwrap()]).refused(exit::CANNOT_CREATE, &["missing"]);
    run(&["log", "verify"]).refused(exit::USAGE, &["DIR"]);
    run(&["log", "dump", &partition, "--from", "x"]).refused(exit::USAGE, &["--from"]);
    stopped.cluster.brokers[0].terminate();
    assert!(stopped.cluster.brokers[0].ended().success());
    let folder = stopped.data_dir.join("partitions").join("something");
    fs::create_dir(&folder).unwrap();
    run(&["log", "verify", folder.to_str().unwrap()]).refused(exit::DATA, &["not a partition's folder"]);
    run(&["log", "verify", stopped.data_dir()]).ok();
}
