//! The cost of a subscriber of events: bytes of the journal that are read, counted at the disk.

use super::*;
use crate::messages::{EventItem, SubscribeEvents};
use contd_durable::FaultyFs;
use contd_store::JournalEntry;
use contd_types::{ContainerEvent, EventKind, Timestamp};

/// Many pieces of the journal, and more events than are kept in memory.
const EVENTS: u64 = 20_000;
/// The most that is read at once.
const PIECE: u64 = 64 * 1024;

/// Writes a journal of an earlier daemon, all of it about namespace `a`, and returns its size.
fn write_journal(world: &World) -> u64 {
    let mut text = Vec::new();
    for sequence in 1..=EVENTS {
        let event = ContainerEvent {
            namespace: ns("a"),
            id: ContainerId::from_random([7; 16]),
            name: ContainerName::new("web").unwrap(),
            at: Timestamp(sequence),
            kind: EventKind::Accepted,
        };
        serde_json::to_writer(&mut text, &JournalEntry { sequence, event }).unwrap();
        text.push(b'\n');
    }
    std::fs::write(world.dir.path().join("events"), &text).unwrap();
    u64::try_from(text.len()).unwrap()
}

fn start_counted(world: &World) -> (Addr<Supervisor>, Arc<contd_durable::Pieces>) {
    let fs = Arc::new(FaultyFs::new());
    let journal = EventJournal::open(Arc::clone(&fs) as _, world.dir.path().join("events"), 1 << 30).unwrap();
    (world.start_on(world.config(), journal), fs.pieces())
}

async fn subscribe(node: &Addr<Supervisor>, from: Option<u64>, namespace: &str) -> crate::messages::EventReceiver {
    ask_api(node, SubscribeEvents { from, namespace: Some(ns(namespace)) }, LONG).await.unwrap()
}

/// Lets everything that can go on do so: threads as well.
async fn settle() {
    for _ in 0..200 {
        tokio::task::spawn_blocking(std::thread::yield_now).await.unwrap();
        tokio::task::yield_now().await;
    }
}

#[actix::test]
async fn a_subscriber_that_wants_nothing_of_the_journal_costs_one_reading_of_it() {
    let world = World::new();
    let size = write_journal(&world);
    let (node, pieces) = start_counted(&world);
    for followers in 1..=3 {
        let before = pieces.bytes();
        let mut events = subscribe(&node, Some(1), "other").await;
        until("the journal is read", async || pieces.bytes() >= before + size).await;
        settle().await;
        let read = pieces.bytes() - before;
        let there = std::fs::metadata(world.dir.path().join("events")).unwrap().len();
        assert!(read <= there, "{read} bytes of {there} were read");
        // It is followed from memory: of these it gets its own, and the disk is not asked.
        let name = format!("c{followers}");
        let elsewhere = RunContainer { namespace: ns("other"), ..run_message(spec(&name)) };
        ask_api(&node, elsewhere, LONG).await.unwrap();
        loop {
            match events.recv().await {
                Some(EventItem::Event { event, .. }) => {
                    assert_eq!(event.namespace, ns("other"));
                    if event.name.as_str() == name {
                        break;
                    }
                }
                // It has all that was there.
                Some(EventItem::Gap { from, to }) if from == to => {}
                other => panic!("no event: {other:?}"),
            }
        }
        settle().await;
        assert_eq!(pieces.bytes() - before, read, "the newest are not in memory");
    }
}

#[actix::test]
async fn nothing_is_read_for_a_subscriber_that_has_gone() {
    let world = World::new();
    write_journal(&world);
    let (node, pieces) = start_counted(&world);
    pieces.hold();
    let events = subscribe(&node, Some(1), "other").await;
    while_hanging(async {
        while pieces.waiting() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // It goes while one piece of many is on its way.
    drop(events);
    pieces.release();
    until("that piece is there", async || pieces.waiting() == 0 && pieces.bytes() > 0).await;
    settle().await;
    assert!(pieces.bytes() <= PIECE, "{} bytes were read for nobody", pieces.bytes());
}

#[actix::test]
async fn events_are_written_and_told_while_every_reader_of_the_journal_hangs() {
    let world = World::new();
    write_journal(&world);
    let (node, pieces) = start_counted(&world);
    pieces.hold();
    let mut kept = Vec::new();
    for _ in 0..10 {
        kept.push(subscribe(&node, Some(1), "a").await);
    }
    let mut live = subscribe(&node, None, "a").await;
    let told = while_hanging(async {
        while pieces.waiting() < 4 {
            tokio::task::yield_now().await;
        }
        run(&node, spec("web")).await.unwrap();
        let _where_it_stands = live.recv().await;
        live.recv().await
    })
    .await;
    assert!(matches!(told, Some(EventItem::Event { seq, .. }) if seq == EVENTS + 1), "{told:?}");
    assert_eq!(pieces.waiting(), 4, "as many read at once as may");
    pieces.release();
    let first = kept[9].recv().await;
    assert!(matches!(first, Some(EventItem::Event { seq: 1, .. })), "{first:?}");
}
