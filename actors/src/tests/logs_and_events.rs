use super::*;
use crate::LogRetention;
use crate::messages::{EventItem, FollowLog, ReadLog, SubscribeEvents};
use contd_logs::{LogFiles, LogWriter, Rotation, Stream};
use contd_rootfs::LostRootfs;
use contd_types::{ApiError, ErrorKind, EventKind, Timestamp};

fn writer(world: &World, name: &str, id: &ContainerId) -> LogWriter {
    let files = LogFiles::marked(&world.log(name), id.as_str(), world.config().log_notes());
    LogWriter::open(files, Rotation::never()).unwrap()
}

async fn collect(mut stream: crate::messages::LogStreamReceiver) -> String {
    let mut text = Vec::new();
    while let Some(item) = stream.recv().await {
        text.extend(item.unwrap().content);
    }
    String::from_utf8(text).unwrap()
}

#[actix::test]
async fn a_follower_gets_everything_until_the_container_has_ended() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    let mut log = writer(&world, "web", &id);
    log.write(Stream::Stdout, b"one\ntwo\n", Timestamp(1)).unwrap();
    let follow = FollowLog { target: target("web"), tail: Some(1) };
    let stream = ask_api(&node, follow, LONG).await.unwrap();
    let (text, ()) = futures_util::join!(collect(stream), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        log.write(Stream::Stderr, b"three\nfour", Timestamp(2)).unwrap();
        world.shims.exit_code(&id, 0);
    });
    assert_eq!(text, "two\nthree\nfour");
    let all = ask_api(&node, ReadLog { target: target("web"), tail: None }, LONG).await.unwrap();
    assert_eq!(collect(all).await, "one\ntwo\nthree\nfour");
}

#[actix::test]
async fn a_follower_stays_over_a_restart_by_the_policy() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, restarting("web")).await.unwrap();
    let mut log = writer(&world, "web", &id);
    let stream = ask_api(&node, FollowLog { target: target("web"), tail: None }, LONG).await.unwrap();
    let (text, ()) = futures_util::join!(collect(stream), async {
        log.write(Stream::Stdout, b"first\n", Timestamp(1)).unwrap();
        world.shims.exit_code(&id, 1);
        until_state(&node, "web", StateName::Backoff).await;
        until_state(&node, "web", StateName::Running).await;
        log.write(Stream::Stdout, b"second\n", Timestamp(1)).unwrap();
        stop(&node, "web").await.unwrap();
    });
    assert_eq!(text, "first\nsecond\n");
}

#[actix::test]
async fn a_root_that_nobody_serves_any_more_is_told_once_each_time_it_is_lost() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    run(&node, spec("bystander")).await.unwrap();
    let mut events = ask_api(&node, SubscribeEvents { from: None, namespace: Some(ns("a")) }, LONG).await.unwrap();
    assert!(matches!(events.recv().await, Some(EventItem::Gap { .. })), "where it stands");
    let why = ApiError::new(ErrorKind::Unavailable, "both killed");
    let lost = LostRootfs { namespace: ns("a"), id: id.clone(), flist_hash: "00".repeat(32), why };
    // A look that begins after the change, and its end.
    let looked = async |lost: Option<&LostRootfs>| {
        world.rootfs.lose(lost.cloned());
        let before = world.rootfs.loss_count();
        until("it has looked twice", async || world.rootfs.loss_count() >= before + 2).await;
    };
    for _ in 0..2 {
        looked(Some(&lost)).await;
        looked(None).await;
    }
    stop(&node, "web").await.unwrap();
    let mut told = Vec::new();
    while let Some(EventItem::Event { event, .. }) = events.recv().await {
        match event.kind {
            EventKind::RootLost { reason } => told.push((event.id, event.name.to_string(), reason)),
            EventKind::Exited { .. } => break,
            _ => {}
        }
    }
    let once = (id, "web".to_owned(), "both killed".to_owned());
    assert_eq!(told, [once.clone(), once]);
}

#[actix::test]
async fn where_all_logs_take_too_much_rotated_files_go_and_the_largest_is_rotated_once() {
    let world = World::new();
    let mut config = world.config();
    config.settings.log_retention = Some(LogRetention { all_max_bytes: Some(100_000), ..LogRetention::default() });
    let node = world.start_with(config);
    let id = run(&node, spec("loud")).await.unwrap();
    let quiet = run(&node, spec("quiet")).await.unwrap();
    let mut events = ask_api(&node, SubscribeEvents { from: None, namespace: Some(ns("a")) }, LONG).await.unwrap();
    let line = [[b'x'; 99].as_slice(), b"\n"].concat();
    writer(&world, "quiet", &quiet).write(Stream::Stdout, &line, Timestamp(1)).unwrap();
    let files = LogFiles::marked(&world.log("loud"), id.as_str(), world.config().log_notes());
    let mut loud = LogWriter::open(files, Rotation { max_bytes: 200_000, max_files: 9 }).unwrap();
    while loud.size_bytes() < 150_000 || !world.log("loud").with_extension("log.3").exists() {
        loud.write(Stream::Stdout, &line, Timestamp(1)).unwrap();
    }
    let names = || {
        let logs = std::fs::read_dir(world.dir.path().join("log/a")).unwrap().flatten();
        let mut names: Vec<_> = logs.map(|file| file.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["loud.log", "loud.log.1", "loud.log.2", "loud.log.3", "quiet.log"]);
    // A disk counts late what was written: the look comes after a minute at most.
    until("the rotated files are gone", async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        names() == ["loud.log", "quiet.log"]
    })
    .await;
    until("the shim is asked", async || world.shims.count(contd_shim_client::fake::Verb::RotateLog) > 0).await;
    let mut trimmed = None;
    while let Some(item) = events.recv().await {
        if let EventItem::Event { event, .. } = item
            && let EventKind::LogTrimmed { files, bytes } = event.kind
        {
            trimmed = Some((event.id, event.name.to_string(), files, bytes > 500_000));
            break;
        }
    }
    assert_eq!(trimmed, Some((id, "loud".to_owned(), 3, true)));
    // The fake rotates nothing: the same file is asked for again now and then, also while others fill the disk.
    for n in 0..600 {
        std::fs::write(world.dir.path().join(format!("filler-{n}")), vec![b'x'; 16_384]).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let asked = world.shims.count(contd_shim_client::fake::Verb::RotateLog);
    assert!((2..=12).contains(&asked), "{asked} times");
}

#[actix::test]
async fn the_log_of_an_unknown_container_is_not_found() {
    let world = World::new();
    let node = world.start();
    let error = ask_api(&node, ReadLog { target: target("web"), tail: None }, LONG).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}

#[actix::test]
async fn events_come_in_order_and_from_any_number_on() {
    let world = World::new();
    let node = world.start();
    let mut live = ask_api(&node, SubscribeEvents { from: None, namespace: None }, LONG).await.unwrap();
    assert_eq!(live.recv().await, Some(EventItem::Gap { from: 1, to: 1 }), "where it stands");
    run(&node, spec("web")).await.unwrap();
    delete(&node, "web", true).await.unwrap();
    let mut seen = Vec::new();
    while let Some(EventItem::Event { seq, event }) = live.recv().await {
        let is_last = event.kind == EventKind::Deleted;
        seen.push((seq, event));
        if is_last {
            break;
        }
    }
    let names: Vec<_> = seen.iter().map(|(seq, event)| (*seq, std::mem::discriminant(&event.kind))).collect();
    let kinds = [
        EventKind::Accepted,
        seen[1].1.kind.clone(),
        EventKind::StopRequested,
        seen[3].1.kind.clone(),
        EventKind::Deleted,
    ];
    assert_eq!(names, (1..).zip(kinds.iter().map(std::mem::discriminant)).collect::<Vec<_>>());
    assert!(matches!(kinds[1], EventKind::Started { .. }) && matches!(kinds[3], EventKind::Exited { .. }));
    drop(node);
    let node = world.start();
    let mut old = ask_api(&node, SubscribeEvents { from: Some(3), namespace: Some(ns("a")) }, LONG).await.unwrap();
    assert_eq!(old.recv().await, Some(EventItem::Event { seq: 3, event: seen[2].1.clone() }));
}
