use std::sync::Arc;

use holdfast_core::record_batch::{RecordBatch, RecordBatchBuilder};
use holdfast_core::replication::Position;
use holdfast_core::{BrokerId, DirId, Incarnation, LeaderEpoch, Offset, ReplicaId, Term};
use holdfast_log::MemFs;
use tokio::time::timeout;

use super::*;

const GIB: u64 = 1 << 30;

#[test]
fn the_reserve_is_a_twentieth_and_a_gibibyte_at_most() {
    let of = |total| DiskReserve::Auto.of(Space { total, free: 0 });
    assert_eq!([of(0), of(1000), of(20 * GIB), of(2000 * GIB)], [0, 50, GIB, GIB]);
    assert_eq!(DiskReserve::Size(ByteSize(7)).of(Space { total: 3, free: 0 }), 7);
}

#[test]
fn a_reserve_reads_as_it_is_written() {
    for (text, reserve) in [("auto", DiskReserve::Auto), ("512MiB", DiskReserve::Size(ByteSize(512 << 20)))] {
        assert_eq!(text.parse(), Ok(reserve));
        assert_eq!(serde_json::from_str::<DiskReserve>(&format!("{text:?}")).unwrap(), reserve);
        assert_eq!(serde_json::to_value(reserve).unwrap(), text);
    }
    assert_eq!(serde_json::from_str::<DiskReserve>("0").unwrap(), DiskReserve::Size(ByteSize(0)));
    let error = serde_json::from_str::<DiskReserve>("\"some\"").unwrap_err();
    assert!(error.to_string().contains("neither \"auto\" nor a size"), "{error}");
}

#[test]
fn levels_are_left_a_little_above_where_they_are_entered() {
    let mut level = Level::Enough;
    let mut at = |free| {
        level = level.next(free, 800);
        level
    };
    assert_eq!(at(800), Level::Enough);
    assert_eq!(at(799), Level::Reserve);
    assert_eq!(at(899), Level::Reserve, "not yet");
    assert_eq!(at(900), Level::Enough);
    assert_eq!(at(199), Level::Last);
    assert_eq!(at(224), Level::Last, "not yet");
    assert_eq!(at(225), Level::Reserve);
    assert_eq!(at(0), Level::Last);
    assert_eq!(at(u64::MAX), Level::Enough, "at once");
    for free in [0, 1, u64::MAX] {
        assert_eq!(Level::Enough.next(free, 0), Level::Enough, "nothing is kept in reserve");
    }
}

fn envelope(message: Message) -> Envelope {
    let replica = |broker| ReplicaId { broker: BrokerId(broker), dir: DirId(1) };
    Envelope { from: replica(1), to: replica(2), epoch: LeaderEpoch::ZERO, message }
}

fn data(records: bool) -> Event {
    let mut builder = RecordBatchBuilder::new();
    builder.push(0, None, Some(b"value"), &[]).unwrap();
    Event::Receive(envelope(Message::Data {
        echo: Position { epoch: LeaderEpoch::ZERO, end: Offset::ZERO },
        batches: records.then(|| builder.build(None).unwrap()).into_iter().collect(),
        high_watermark: Offset::ZERO,
        durable_high_watermark: Offset::ZERO,
        log_start_offset: Offset::ZERO,
        tombstones_gone_below: Offset::ZERO,
        log_end_offset: Offset::ZERO,
        incarnation: None,
    }))
}

fn fetch(restart: bool) -> Envelope {
    envelope(Message::Fetch {
        position: Position { epoch: LeaderEpoch::ZERO, end: Offset(3) },
        durable_end: Offset(3),
        incarnation: Incarnation(1),
        kind: FetchKind::Follow,
        restart,
        cleaned_end: Offset::ZERO,
    })
}

/// The last of the reserve is for promises and what is known of logs: records of others wait, and are not asked for again
/// and again either.
#[test]
fn on_the_last_of_the_reserve_records_are_lost_on_their_way() {
    let room = |level| Room { level, free: 1, reserve: 8 };
    for level in [Level::Enough, Level::Reserve] {
        assert!(room(level).takes(&data(true)));
        assert_eq!(room(level).tame(fetch(true)), Some(fetch(true)));
    }
    let last = room(Level::Last);
    assert!(!last.takes(&data(true)));
    assert!(last.takes(&data(false)), "watermarks are no records");
    assert!(last.takes(&Event::Timer));
    assert_eq!(last.tame(fetch(true)), None);
    assert_eq!(last.tame(fetch(false)), Some(fetch(false)), "what is held is acknowledged");
    // A new leader hears where it stands, and its marker is taken.
    let next = |restart| Envelope { epoch: LeaderEpoch::first(Term(1)), ..fetch(restart) };
    assert_eq!(last.tame(next(true)), Some(next(false)));
    let Event::Receive(mut marker) = data(false) else { panic!("no message") };
    let Message::Data { batches, .. } = &mut marker.message else { panic!("no data") };
    batches.push(RecordBatch::marker(Offset::ZERO, LeaderEpoch::ZERO, BrokerId(1)));
    assert!(last.takes(&Event::Receive(marker)));
}

#[tokio::test]
async fn what_the_file_system_says_is_seen_soon() {
    let fs = MemFs::new();
    let dir = DataDir::in_memory(Arc::new(fs.clone()), "boot 1").unwrap();
    fs.set_capacity(Some(fs.used() + 900));
    let space = DiskSpace::open(&dir, DiskReserve::Size(ByteSize(800))).unwrap();
    assert!(!space.room().is_short());
    let mut room = space.subscribe();
    tokio::spawn(space.clone().run());
    fs.set_capacity(Some(fs.used() + 500));
    let seen = async {
        room.wait_for(Room::is_short).await.unwrap();
        assert_eq!(space.room(), Room { level: Level::Reserve, free: 500, reserve: 800 });
        fs.set_capacity(None);
        space.look();
        room.wait_for(|room| !room.is_short()).await.unwrap();
    };
    timeout(Duration::from_secs(20), seen).await.unwrap();
}

/// There are no inodes, or a quota is used up: the file system says that much is free.
#[tokio::test]
async fn a_write_that_found_no_room_counts_until_one_goes_well() {
    let fs = MemFs::new();
    let dir = DataDir::in_memory(Arc::new(fs), "boot 1").unwrap();
    let space = DiskSpace::open(&dir, DiskReserve::Size(ByteSize(0))).unwrap();
    assert!(!space.room().is_short());
    space.denied();
    assert!(space.room().is_short() && space.room().takes_replicas());
    space.granted();
    assert!(!space.room().is_short());
    // And not for ever, where nobody tries again.
    space.denied();
    let mut room = space.subscribe();
    tokio::spawn(space.clone().run());
    timeout(Duration::from_secs(20), room.wait_for(|room| !room.is_short())).await.unwrap().unwrap();
}
