//! `cluster events` and `zone status` after a broker was killed, with the controller up, restarted and dead.

use holdfast_cli::exit;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::process::eventually;

fn failovers(cluster: &Cluster) -> Result<Vec<Value>, String> {
    let outcome = cluster.run(&["cluster", "events", "--format", "json"]);
    if outcome.code != Some(0) {
        return Err(outcome.stderr);
    }
    let answer: Value = serde_json::from_str(&outcome.stdout).map_err(|error| error.to_string())?;
    assert_eq!(answer["v"], 1);
    let events = answer["events"].as_array().ok_or("no events")?;
    Ok(events.iter().filter(|event| event["kind"] == "failover").cloned().collect())
}

/// A failover is told with its times, by program and by table, and again after the controller was started anew; without
/// any controller the command says where to look.
#[test]
fn a_failover_is_told_also_after_its_controller_was_restarted() {
    let mut cluster = Cluster::start(3);
    cluster.brokers[1].kill();
    let failover = eventually(|| {
        let failovers = failovers(&cluster)?;
        let of_b = failovers.into_iter().find(|event| event["zone"] == "b" && event["complete"] == true);
        of_b.ok_or_else(|| "no complete failover of zone b".to_owned())
    });
    assert_eq!(failover["brokers"], serde_json::json!([2]));
    let (detected, appointed) = (&failover["detected_ms"], &failover["appointed_ms"]);
    assert!(detected.as_f64().unwrap() <= appointed.as_f64().unwrap(), "{failover}");
    for row in failover["rows"].as_array().unwrap() {
        let times = ["detected_ms", "appointed_ms", "recovered_ms", "writable_ms", "in_sync_ms"];
        let times = times.map(|name| row[name].as_f64().unwrap());
        assert!(times.is_sorted(), "{row}");
    }
    let table = cluster.run(&["cluster", "events"]).ok();
    assert!(table.lines().next().unwrap().starts_with("TIME"), "{table}");
    assert!(table.lines().any(|line| line.contains(" failover ")), "{table}");

    cluster.controller.kill();
    let dead = cluster.run(&["cluster", "events", "--timeout", "3s"]);
    dead.refused(exit::RETRY, &["no controller answers", "events.jsonl"]);
    cluster.controller = cluster.controller_file.start(cluster.dir.path(), "again");
    let remembered = eventually(|| failovers(&cluster));
    assert!(remembered.contains(&failover), "{remembered:#?}");
    let of_b = |event: &&Value| event["zone"] == "b";
    assert_eq!(remembered.iter().filter(of_b).count(), 1, "old entries were taken for news: {remembered:#?}");
}
