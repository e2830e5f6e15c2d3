//! Every command and flag.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use holdfast_log::{ByteSize, ParseByteSizeError};

use crate::exit;

/// A replicated commit log over three zones: controller, broker, client and demo in one binary.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, after_help = exit::HELP, disable_help_subcommand = true)]
pub struct Arguments {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Brokers to begin with, host:port, separated by commas. The others are found through them.
    #[arg(
        long,
        short = 'b',
        global = true,
        value_delimiter = ',',
        env = "HOLDFAST_BOOTSTRAP",
        default_value = "127.0.0.1:7070,127.0.0.1:7071,127.0.0.1:7072",
        value_name = "HOST:PORT"
    )]
    pub bootstrap: Vec<String>,
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// How long an administrative command may take.
    #[arg(long, global = true, value_parser = humantime::parse_duration, default_value = "10s")]
    pub timeout: Duration,
    /// The zone that this client runs in: reads come from a replica there.
    #[arg(long, global = true, env = "HOLDFAST_ZONE")]
    pub zone: Option<String>,
    /// PEM file with the authority of the brokers' certificates; turns TLS on.
    #[arg(long, global = true, env = "HOLDFAST_TLS_AUTHORITY", value_name = "FILE")]
    pub tls_authority: Option<PathBuf>,
    /// PEM file with this client's certificate chain.
    #[arg(long, global = true, requires = "tls_key", value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with this client's private key.
    #[arg(long, global = true, requires = "tls_certificate", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// How log lines on stderr are written. Filter them with HOLDFAST_LOG, for example HOLDFAST_LOG=debug.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub log_format: Format,
}

/// How something is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a controller: one per zone keeps topics, leaders and liveness.
    Controller(ProcessArgs),
    /// Run a broker: it stores records and serves clients.
    Broker(ProcessArgs),
    /// Run three zones in this process, under load, and lose one.
    Demo(DemoArgs),
    /// Create, list, describe and delete topics.
    Topic(TopicArgs),
    /// Move replicas and leaders of single partitions.
    Partition(PartitionArgs),
    /// Send records: one per line of standard input.
    Produce(ProduceArgs),
    /// Read records to standard output.
    Consume(ConsumeArgs),
    /// The cluster as a whole.
    Cluster(ClusterArgs),
    /// One zone.
    Zone(ZoneArgs),
    /// Measure.
    Bench(BenchArgs),
    /// Judge a history of what clients did and saw.
    Verify(VerifyArgs),
    /// Look into the data folder of a broker that does not run. Nothing is changed.
    Log(LogArgs),
    /// Ask one process whether it serves; what container health checks call.
    Health(HealthArgs),
    /// Print the version.
    Version,
}

/// Flags of `controller` and `broker`.
#[derive(Debug, Args)]
#[command(
    after_help = "Every key of the file can be set by the environment: HOLDFAST_BROKER__DATA_DIR for data-dir \
of [broker], HOLDFAST_CLUSTER for cluster. Environment wins over file."
)]
pub struct ProcessArgs {
    /// TOML file; deploy/local has one for every process, with all keys explained.
    #[arg(long, short = 'c', value_name = "FILE")]
    pub config: PathBuf,
    /// Check the configuration, say what is wrong with it, and do not start.
    #[arg(long)]
    pub check: bool,
}

/// Flags of `demo`.
#[derive(Debug, Args)]
#[command(
    after_help = "A script kills and heals zones by time: --script 'kill:b@5s,heal:b@15s'. With a script or \
--format json there is no screen, and the last line of stdout is one JSON object. Exit code 0 only if nothing \
acknowledged was lost, and the checker found nothing else either."
)]
pub struct DemoArgs {
    /// What happens when: kill:ZONE@TIME and heal:ZONE@TIME, separated by commas. Zones are a, b and c.
    #[arg(long, value_name = "STEPS")]
    pub script: Option<String>,
    /// How long the load runs. Default: until q is pressed, or 10s after the last step of a script.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Load in MB/s.
    #[arg(long, default_value_t = 20.0, value_name = "MB/S")]
    pub rate: f64,
    /// Partitions of the demo topic.
    #[arg(long, default_value_t = 12)]
    pub partitions: u32,
    /// Where the zones keep their files. Default: a temporary folder, removed at the end.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Keep the history of the run in this file, for `holdfast verify`: about 250 bytes a record. Default: it is judged
    /// while it happens and kept nowhere.
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
}

/// `topic`.
#[derive(Debug, Args)]
pub struct TopicArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: TopicCommand,
}

/// What to do with a topic.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create a topic.
    Create(TopicCreateArgs),
    /// List topics.
    Ls,
    /// Show partitions, leaders and replicas of a topic.
    Describe {
        /// The topic.
        name: String,
    },
    /// Change how much of a topic is kept, and whether it is compacted.
    Alter(TopicAlterArgs),
    /// Delete a topic and its records.
    Delete {
        /// The topic.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Flags of `topic create`.
#[derive(Debug, Args)]
pub struct TopicCreateArgs {
    /// The topic: 1 to 249 of [a-zA-Z0-9._-].
    pub name: String,
    /// Number of partitions.
    #[arg(long, short = 'p', default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub partitions: u32,
    /// Replicas per partition, each in another zone.
    #[arg(long, short = 'r', default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub replication: u32,
    /// What an acknowledgement means: flushed in two zones, or in memory of two zones.
    #[arg(long, value_enum, default_value_t = DurabilityArg::Disk)]
    pub durability: DurabilityArg,
    /// Accept fewer than three replicas; the topic then does not survive the loss of a zone.
    #[arg(long)]
    pub waive_zones: bool,
    /// Records older than this go, by their timestamps, a segment at a time: `24h`, `7days`, or `unlimited`.
    #[arg(long, value_name = "TIME", default_value = "unlimited", value_parser = kept_time)]
    pub retention: Kept,
    /// Where a partition is larger than this, its oldest segments go: `10GiB`, or `unlimited`.
    #[arg(long, value_name = "SIZE", default_value = "unlimited", value_parser = kept_bytes)]
    pub retention_bytes: Kept,
    /// Of all records with the same key only the last one stays; records without a key are refused. Goes with a retention,
    /// too: each takes what is its own.
    #[arg(long)]
    pub compact: bool,
    /// How long it can still be read that a key is gone (a record without a value), after what lies before it was compacted.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration, requires = "compact")]
    pub tombstone_delay: Duration,
    /// A partition is compacted when so many percent of its bytes are new since the last time. Less: fewer old records, and
    /// more work for the disk.
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = percent(), requires = "compact")]
    pub min_dirty_percent: u8,
    /// Succeed if a topic of that name exists already.
    #[arg(long)]
    pub if_not_exists: bool,
}

/// Flags of `topic alter`. What is not given stays as it is.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("settings").required(true).multiple(true))]
pub struct TopicAlterArgs {
    /// The topic.
    pub name: String,
    /// Records older than this go, by their timestamps, a segment at a time: `24h`, `7days`, or `unlimited`.
    #[arg(long, value_name = "TIME", value_parser = kept_time, group = "settings")]
    pub retention: Option<Kept>,
    /// Where a partition is larger than this, its oldest segments go: `10GiB`, or `unlimited`.
    #[arg(long, value_name = "SIZE", value_parser = kept_bytes, group = "settings")]
    pub retention_bytes: Option<Kept>,
    /// Of all records with the same key only the last one stays from now on; records without a key are refused. Those that
    /// are there stay.
    #[arg(long, group = "settings")]
    pub compact: bool,
    /// All records stay from now on, whatever their keys. What is gone stays gone.
    #[arg(long, group = "settings", conflicts_with_all = ["compact", "tombstone_delay", "min_dirty_percent"])]
    pub no_compact: bool,
    /// How long it can still be read that a key is gone (a record without a value), after what lies before it was compacted.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, group = "settings")]
    pub tombstone_delay: Option<Duration>,
    /// A partition is compacted when so many percent of its bytes are new since the last time.
    #[arg(long, value_name = "PERCENT", value_parser = percent(), group = "settings")]
    pub min_dirty_percent: Option<u8>,
}

fn percent() -> impl clap::builder::TypedValueParser<Value = u8> {
    clap::value_parser!(u8).range(1..=100)
}

/// A limit to what is kept, in milliseconds or bytes; none where it is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept(pub Option<u64>);

const UNLIMITED: &str = "unlimited";

fn kept_time(text: &str) -> Result<Kept, String> {
    if text == UNLIMITED {
        return Ok(Kept(None));
    }
    let time = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; use for example 24h, 7days, or {UNLIMITED}"))?;
    u64::try_from(time.as_millis()).map(|ms| Kept(Some(ms))).map_err(|_| "it is too long".to_owned())
}

fn kept_bytes(text: &str) -> Result<Kept, String> {
    if text == UNLIMITED {
        return Ok(Kept(None));
    }
    let size: ByteSize = text
        .parse()
        .map_err(|error: ParseByteSizeError| format!("{error}; use for example 10GiB, or {UNLIMITED}"))?;
    Ok(Kept(Some(size.0)))
}

/// `partition`.
#[derive(Debug, Args)]
pub struct PartitionArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: PartitionCommand,
}

/// What to do with a partition.
#[derive(Debug, Subcommand)]
pub enum PartitionCommand {
    /// Move the replicas to other brokers. The new ones catch up before the old ones go.
    Move(PartitionMoveArgs),
    /// Call a move of replicas off.
    Cancel {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
    },
    /// Have a broker lead. It goes home again by itself, to the first broker of the replicas.
    Lead {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// A live broker that has a replica.
        broker: u32,
    },
    /// Bring a partition back whose replicas cannot come back clean. Acknowledged records may be lost.
    Recover(PartitionRecoverArgs),
}

/// Flags of `partition move`.
#[derive(Debug, Args)]
pub struct PartitionMoveArgs {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Brokers of all replicas from then on; the first is where the leader is at home.
    #[arg(long, value_delimiter = ',', required = true, value_name = "BROKERS")]
    pub to: Vec<u32>,
    /// Wait until it has moved, up to --timeout.
    #[arg(long)]
    pub wait: bool,
}

/// Flags of `partition recover`.
#[derive(Debug, Args)]
pub struct PartitionRecoverArgs {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Count replicas that may have forgotten what they acknowledged.
    #[arg(long, required = true)]
    pub unclean: bool,
    /// Who is to lead: a live broker that still has its replica. Default: the first of those.
    #[arg(long, value_name = "BROKER")]
    pub leader: Option<u32>,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DurabilityArg {
    /// Flushed to disk in two zones.
    Disk,
    /// In memory of two zones.
    Memory,
}

/// How records are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompressionArg {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// Flags of `produce`.
#[derive(Debug, Args)]
#[command(
    after_help = "Ends with a summary on stderr: acked, failed (certainly not stored), unknown (may be stored, \
once). Exit code 0 only if every record was acknowledged."
)]
pub struct ProduceArgs {
    /// The topic.
    pub topic: String,
    /// One record for every line of this file instead of standard input.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Lines are KEY, this separator, VALUE. Without it records have no key.
    #[arg(long, value_name = "TEXT")]
    pub key_separator: Option<String>,
    /// A VALUE that is this text makes a record without a value: in a compacted topic it says that its key is gone.
    #[arg(long, value_name = "TEXT", requires = "key_separator")]
    pub tombstone: Option<String>,
    /// Lines are JSON objects as `consume --format json` prints them, with key, value, headers and timestamp, of which only
    /// the value has to be there; null for a record without one. Where they were read is not looked at.
    #[arg(long, conflicts_with_all = ["key_separator", "tombstone"])]
    pub json: bool,
    /// Send everything to this partition instead of choosing by key.
    #[arg(long, short = 'p')]
    pub partition: Option<u32>,
    /// How batches are compressed.
    #[arg(long, short = 'z', value_enum, default_value_t = CompressionArg::None)]
    pub compression: CompressionArg,
    /// How long a batch waits for more records.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "5ms")]
    pub linger: Duration,
    /// Size at which a batch is sent.
    #[arg(long, default_value_t = 131_072, value_name = "BYTES")]
    pub batch_size: usize,
    /// How long a record may take, retries included.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "120s")]
    pub delivery_timeout: Duration,
    /// Print partition and offset of every record to stdout.
    #[arg(long)]
    pub print_offsets: bool,
}

/// Flags of `consume`.
#[derive(Debug, Args)]
#[command(
    after_help = "Offsets: start, end, 42, -10 (ten offsets before the end), @2026-11-21T08:00:00Z or @-1h (by time)."
)]
pub struct ConsumeArgs {
    /// The topic.
    pub topic: String,
    /// Where to begin: start, end, N, -N, @TIME.
    #[arg(long, short = 'o', default_value = "start", allow_hyphen_values = true)]
    pub offset: String,
    /// Only these partitions. Default: all.
    #[arg(long, short = 'p', value_delimiter = ',')]
    pub partitions: Vec<u32>,
    /// Stop after this many records.
    #[arg(long, short = 'n')]
    pub count: Option<u64>,
    /// Stop at the end that the partitions have when the command starts.
    #[arg(long, short = 'e')]
    pub exit_at_end: bool,
    /// Go on with the first record kept where those to be read next are gone. Without it that is an error.
    #[arg(long)]
    pub skip_trimmed: bool,
    /// Print the key and this separator before every value.
    #[arg(long, value_name = "TEXT")]
    pub key_separator: Option<String>,
    /// Print this text for records without a value. Default: nothing, as for an empty value.
    #[arg(long, value_name = "TEXT")]
    pub tombstone: Option<String>,
}

/// `cluster`.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ClusterCommand,
}

/// What to do with the cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Say what loss the cluster survives now, and show zones, brokers and controllers.
    Status,
    /// Show what befell it: failovers with the time that each step took, moves, elections; newest first.
    Events(EventsArgs),
}

/// Flags of `cluster events`.
#[derive(Debug, Args)]
#[command(
    after_help = "Times are those of the controller that saw most. DETECT runs from the moment that the broker's \
streams broke, or that it was last heard; each further column from the one before; TOTAL until the slowest partition \
was writable. A dash: not seen. --format json has every partition."
)]
pub struct EventsArgs {
    /// Show this many.
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
}

/// `zone`.
#[derive(Debug, Args)]
pub struct ZoneArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ZoneCommand,
}

/// What to do with a zone.
#[derive(Debug, Subcommand)]
pub enum ZoneCommand {
    /// Show one zone, or all.
    Status {
        /// The zone.
        zone: Option<String>,
    },
}

/// `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Throughput and acknowledgement latency of producers.
    Produce(BenchProduceArgs),
    /// What a client sees of an outage: a record to every partition every 20 ms, and the longest gap between two
    /// acknowledgements of each.
    Probe(BenchProbeArgs),
}

/// Flags of `bench produce`.
#[derive(Debug, Args)]
pub struct BenchProduceArgs {
    /// The topic; it must exist.
    pub topic: String,
    /// Producers, each with its own connection.
    #[arg(long, default_value_t = 4)]
    pub clients: usize,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 1024, value_name = "BYTES")]
    pub record: usize,
    /// Give every record one of so many keys, at random: for topics that are compacted. Default: no keys.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: Option<u64>,
    /// How long to send.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    pub duration: Duration,
    /// Records per second over all producers. Default: as fast as possible. With a rate, latency counts from when a
    /// record was due (open loop), so that a stall is not hidden.
    #[arg(long)]
    pub rate: Option<u64>,
    /// How batches are compressed.
    #[arg(long, short = 'z', value_enum, default_value_t = CompressionArg::None)]
    pub compression: CompressionArg,
    /// How long a batch waits for more records.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "5ms")]
    pub linger: Duration,
    /// Size at which a batch is sent.
    #[arg(long, default_value_t = 131_072, value_name = "BYTES")]
    pub batch_size: usize,
    /// Bytes that a producer may have waiting or on their way. Without a rate they are always full, and what waits
    /// there is part of the latency.
    #[arg(long, default_value_t = 8 << 20, value_name = "BYTES")]
    pub buffer: usize,
}

/// Flags of `bench probe`.
#[derive(Debug, Args)]
#[command(
    after_help = "Kill a zone while this runs. A partition's recovery time is its longest gap, less the gap that \
is usual without a fault. Exit code 0 only if every record was acknowledged."
)]
pub struct BenchProbeArgs {
    /// The topic; it must exist.
    pub topic: String,
    /// How long to probe.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    pub duration: Duration,
    /// Between two records of a partition.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "20ms")]
    pub interval: Duration,
}

/// Flags of `verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 0 if the history is valid, 1 if a promise was broken, 3 if not everything was read back \
so that nobody can tell, 65 if the file is no history or contradicts itself."
)]
pub struct VerifyArgs {
    /// JSON lines, as `demo --history` and the chaos runs write them.
    #[arg(value_name = "HISTORY")]
    pub history: PathBuf,
}

/// `log`.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: LogCommand,
}

/// What to do with logs on disk.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Size, offsets, epochs, times and compression of each log, and their sums.
    #[command(after_help = LOG_HELP)]
    Stats(LogDirArgs),
    /// Check every batch: checksum, offsets without a gap, epochs that never fall, records that can be read, and that
    /// nothing is missing of what was acknowledged or flushed.
    #[command(after_help = LOG_HELP)]
    Verify(LogDirArgs),
    /// Print batches and records.
    #[command(after_help = LOG_HELP)]
    Dump(LogDumpArgs),
}

/// What the commands of `log` have in common.
const LOG_HELP: &str = "The broker has to be stopped, and cannot start while this runs. Only headers are read for stats; \
verify and dump read everything. Exit code 0 if nothing is wrong, 1 if damage was found. A torn tail is none: what a broker that \
was killed had not flushed yet, and cuts when it starts.";

/// Flags of `log stats` and `log verify`.
#[derive(Debug, Args)]
pub struct LogDirArgs {
    /// A broker's data folder, or the folder of one partition in it.
    pub dir: PathBuf,
}

/// Flags of `log dump`.
#[derive(Debug, Args)]
pub struct LogDumpArgs {
    /// A broker's data folder, or the folder of one partition in it.
    pub dir: PathBuf,
    /// Begin with the record at this offset.
    #[arg(long, default_value_t = 0, value_name = "OFFSET")]
    pub from: u64,
    /// Stop after this many records.
    #[arg(long, short = 'n', value_name = "N")]
    pub max_records: Option<u64>,
    /// Print keys, values and headers. Default: only how long they are.
    #[arg(long)]
    pub values: bool,
}

/// Flags of `health`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// host:port of the process.
    pub endpoint: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace()).map(|arguments| arguments.command)
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_of_every_command_may_come_last() {
        let line =
            "holdfast consume orders -o -10 -p 0,2 -n 5 -e -b a:1,b:2 --format json --timeout 3s --zone a";
        let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        assert_eq!(arguments.global.bootstrap, ["a:1", "b:2"]);
        assert_eq!(arguments.global.timeout, Duration::from_secs(3));
        let Command::Consume(args) = arguments.command else { panic!("{arguments:?}") };
        assert_eq!((args.offset.as_str(), args.partitions, args.count), ("-10", vec![0, 2], Some(5)));
    }

    #[test]
    fn every_client_command_is_understood() {
        for line in [
            "holdfast topic create orders -p 12 -r 3 --durability memory --if-not-exists",
            "holdfast topic ls",
            "holdfast topic describe orders",
            "holdfast topic delete orders --yes",
            "holdfast topic create prices --compact --tombstone-delay 1h --min-dirty-percent 20 --retention 7days",
            "holdfast topic alter prices --no-compact --retention 24h",
            "holdfast topic alter prices --tombstone-delay 0s",
            "holdfast produce orders --key-separator : --tombstone -",
            "holdfast produce orders --json",
            "holdfast consume orders --key-separator : --tombstone -",
            "holdfast produce orders --file lines --key-separator : -z zstd --delivery-timeout 30s --print-offsets",
            "holdfast consume orders -o @-1h",
            "holdfast partition move orders 0 --to 1,5,3 --wait",
            "holdfast partition cancel orders 0",
            "holdfast partition lead orders 0 5",
            "holdfast partition recover orders 0 --unclean --leader 2 --yes",
            "holdfast cluster status",
            "holdfast cluster events --limit 5 --format json",
            "holdfast zone status",
            "holdfast zone status zone-b",
            "holdfast bench produce orders --clients 2 --record 100 --keys 1000 --duration 5s --rate 1000 --buffer 1000000",
            "holdfast verify history.jsonl --format json",
            "holdfast log stats /data",
            "holdfast log verify /data --format json",
            "holdfast log dump /data/partitions/x --from 5 --max-records 10 --values",
            "holdfast health 127.0.0.1:7070",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
        assert!(parse("holdfast topic describe").is_err());
        assert!(parse("holdfast partition recover orders 0 --yes").is_err(), "--unclean is said by name");
        for line in [
            "holdfast topic create prices --tombstone-delay 1h",
            "holdfast topic create prices --compact --min-dirty-percent 0",
            "holdfast topic alter prices --compact --no-compact",
            "holdfast topic alter prices --no-compact --tombstone-delay 1h",
            "holdfast produce orders --tombstone -",
            "holdfast produce orders --json --key-separator :",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("holdfast version --tls-certificate c.pem").is_err());
    }
}
