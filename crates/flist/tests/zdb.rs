//! Stores in a 0-db: against a real Redis, a server that answers as a 0-db does, and faulty ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "measures real sockets and waits for real processes")]

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::packed::{Tree, noise};
use contd_flist::store::{ZdbFailure, ZdbStore};
use contd_flist::{
    BlockId, BlockStore, FlistErrorKind, NetRoutes, PackOptions, Route, RoutePolicy, Routes, StoreError,
};
use contd_test_harness::Port;
use contd_test_harness::flist::chain;
use contd_test_harness::zdb::{Fault, ZdbServer};

const ID: BlockId = BlockId::new([0xab; 32]);
const BAD_PASSWORD: &str = "wrong-hunter2";

/// A real Redis server on a free port; it is killed when the test ends.
struct Redis {
    child: Child,
    port: u16,
    _taken: Port,
    _folder: tempfile::TempDir,
}

impl Redis {
    #[track_caller]
    fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let taken = Port::take();
        let port = taken.number;
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string()])
            .args(options)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed (.ci/deps)");
        let redis = Self { child, port, _taken: taken, _folder: folder };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(300), "redis-server does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        redis
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_tree_packed_into_a_real_redis_is_read_back() {
    let (redis, tree) = (Redis::start(&[]), Tree::new());
    // No namespace, `default`, and one by number: all that a Redis has.
    for namespace in ["", "/", "/default", "/3"] {
        let url = format!("zdb://127.0.0.1:{}{namespace}", redis.port);
        let first = tree.pack(&[&url]).unwrap();
        tree.assert_reads_back();
        assert_eq!(tree.pack(&[&url]).unwrap(), first, "packed again, every block is there already");
    }
    let error = ZdbStore::new(&format!("zdb://127.0.0.1:{}/99", redis.port)).unwrap().get(&ID).unwrap_err();
    assert!(matches!(error, StoreError::NoStore { .. }), "{}", chain(&error));
    let store = ZdbStore::new(&format!("zdb://127.0.0.1:{}/7", redis.port)).unwrap();
    assert!(matches!(store.get(&ID), Err(StoreError::NotFound { .. })));
    for len in [0, 1, 599_000] {
        let id = BlockId::new([u8::try_from(len % 251).unwrap(); 32]);
        store.put(&id, &noise(7, len)).unwrap();
        store.put(&id, &noise(7, len)).unwrap();
        assert!(store.get(&id).unwrap() == noise(7, len));
    }
}

#[test]
fn a_redis_that_wants_a_password_is_a_denial() {
    let redis = Redis::start(&["--requirepass", "secret"]);
    let error = ZdbStore::new(&format!("zdb://127.0.0.1:{}", redis.port)).unwrap().get(&ID).unwrap_err();
    assert_eq!(error.kind(), FlistErrorKind::Denied, "{}", chain(&error));
    assert!(chain(&error).contains("NOAUTH") && error.hint().contains("password"), "{}", chain(&error));
}

#[test]
fn packing_with_a_password_leaves_a_route_without_it() {
    let (server, tree) = (ZdbServer::start(), Tree::new());
    tree.pack(&[&server.url("me:p%40ss%2Fword@", "/public")]).unwrap();
    assert_eq!(server.blocks("public"), tree.distinct_blocks());
    assert_eq!(tree.routes(), [server.url("me@", "/public")]);
    tree.assert_reads_back();
    let commands = server.state.commands.lock().unwrap();
    let selects = commands.iter().filter(|command| command.starts_with("SELECT")).collect::<Vec<_>>();
    assert!(selects.iter().any(|command| *command == "SELECT public p@ss/word"), "{selects:?}");
    assert!(selects.iter().any(|command| *command == "SELECT public"), "{selects:?}");
    assert!(!commands.iter().any(|command| command == "AUTH" || command == "CLIENT"), "a 0-db knows no such command");
    let count = |name: &str| commands.iter().filter(|command| *command == name).count();
    assert_eq!((count("SET"), count("EXISTS")), (tree.distinct_blocks(), tree.distinct_blocks()));
}

#[test]
fn a_password_that_is_kept_opens_a_private_namespace() {
    let (server, tree) = (ZdbServer::start(), Tree::new());
    let url = server.url(":p%40ss%2Fword@", "/private");
    tree.pack_with(&[&url], &PackOptions { strip_password: false, ..PackOptions::default() }).unwrap();
    assert_eq!(tree.routes(), [url]);
    tree.assert_reads_back();
}

#[test]
fn the_default_namespace_is_not_selected() {
    let server = ZdbServer::start();
    for namespace in ["", "/", "/default"] {
        let store = ZdbStore::new(&server.url("", namespace)).unwrap();
        store.put(&ID, b"stored").unwrap();
        assert_eq!(store.get(&ID).unwrap(), b"stored");
    }
    let commands = server.state.commands.lock().unwrap();
    assert_eq!(commands[..4], ["PING", "EXISTS", "SET", "GET"]);
    assert!(!commands.iter().any(|command| command.starts_with("SELECT")), "{commands:?}");
}

#[test]
fn a_server_that_refuses_says_why_without_the_password() {
    let server = ZdbServer::faulty(|number| match number {
        0 => Fault::Says("ERR you sent wrong-hunter2, did you not"),
        _ => Fault::Says("Namespace protected and private"),
    });
    let tree = Tree::new();
    let userinfo = format!("me:{BAD_PASSWORD}@");
    let denied = |url: &str, words: &str| {
        let store = ZdbStore::new(url).unwrap();
        for error in [store.get(&ID).unwrap_err(), store.put(&ID, b"x").unwrap_err()] {
            let shown = format!("{} {error:?} {store:?}", chain(&error));
            assert_eq!(error.kind(), FlistErrorKind::Denied, "{shown}");
            assert!(shown.contains(words) && shown.contains(&ID.to_hex()), "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    };
    denied(&server.url(&userinfo, "/private"), "Access denied");
    denied(&server.url("me@", "/private"), "protected and private");
    let error = tree.pack(&[&server.url(&userinfo, "/private")]).unwrap_err();
    assert_eq!(error.kind(), FlistErrorKind::Denied, "{}", chain(&error));
    assert!(!format!("{} {error:?}", chain(&error)).contains("hunter2"));
    let error = tree.pack(&[&server.url("", "/public")]).unwrap_err();
    assert!(chain(&error).contains("read-only"), "{}", chain(&error));
    let error = ZdbStore::new(&server.url("", "/nowhere")).unwrap().get(&ID).unwrap_err();
    assert!(matches!(error, StoreError::NoStore { .. }), "{}", chain(&error));
    // A server that repeats the command in its error.
    let error = ZdbStore::new(&server.url(&userinfo, "/open")).unwrap().get(&ID).unwrap_err();
    assert!(!format!("{} {error:?}", chain(&error)).contains("hunter2"), "{}", chain(&error));
    // A namespace that became private later.
    let error = ZdbStore::new(&server.url("", "/open")).unwrap().get(&ID).unwrap_err();
    assert_eq!(error.kind(), FlistErrorKind::Denied, "{}", chain(&error));
}

/// Returns the peak memory of this process so far, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_server_that_breaks_costs_bounded_time_and_memory() {
    let failure_of = |fault: Fault| {
        let server = ZdbServer::faulty(move |_| fault);
        let store = ZdbStore::new(&server.url("", "/open")).unwrap();
        store.put(&ID, &noise(3, 400_000)).unwrap();
        store.get(&ID).unwrap_err()
    };
    let before = peak_kib();
    assert!(matches!(failure_of(Fault::Huge), StoreError::TooLarge { .. }));
    let not_zdb = |error: &StoreError| matches!(error, StoreError::Zdb { source: ZdbFailure::NotZdb(_), .. });
    for fault in [Fault::HugeArray, Fault::Garbage] {
        let error = failure_of(fault);
        assert!(not_zdb(&error) && !error.is_transient(), "{fault:?}: {}", chain(&error));
    }
    // Other tests run in this process; one unbounded reply would take gigabytes.
    let grown = peak_kib().saturating_sub(before);
    assert!(grown < 256 * 1024, "a reply that never ends took {grown} KiB");
    let error = failure_of(Fault::DiesMidReply);
    assert!(matches!(error, StoreError::Zdb { source: ZdbFailure::Closed, .. }), "{}", chain(&error));
    assert!(error.is_transient());
    // These two are slow, so they run together. The upper bounds allow for a busy machine.
    let [silent, trickles] = [Fault::Silent, Fault::Trickles].map(|fault| {
        thread::spawn(move || {
            let server = ZdbServer::faulty(move |_| fault);
            let store = ZdbStore::new(&server.url("", "/open")).unwrap();
            store.put(&ID, &noise(3, 400_000)).unwrap();
            let begun = Instant::now();
            (store.get(&ID).unwrap_err(), begun.elapsed())
        })
    });
    for slow in [silent, trickles] {
        let (error, took) = slow.join().unwrap();
        assert!(matches!(error, StoreError::Zdb { source: ZdbFailure::Timeout, .. }), "{}", chain(&error));
        // Not before it was silent for five seconds, as one that trickles may seem on a busy machine; neither ever ends by itself.
        assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(300), "{took:?}");
    }
}

#[test]
fn a_connection_that_was_closed_while_idle_is_replaced_unnoticed() {
    let server = ZdbServer::faulty(|_| Fault::ClosesAfterwards);
    let store = ZdbStore::new(&server.url("", "/open")).unwrap();
    store.put(&ID, b"stored").unwrap();
    for _ in 0..10 {
        assert_eq!(store.get(&ID).unwrap(), b"stored");
    }
    assert_eq!(server.gets(), 10);
    // A new connection that breaks, too, is no idle one: the read fails after exactly one more attempt.
    let server = ZdbServer::faulty(|number| if number == 0 { Fault::None } else { Fault::DiesMidReply });
    let store = ZdbStore::new(&server.url("", "/open")).unwrap();
    store.put(&ID, b"stored").unwrap();
    store.get(&ID).unwrap();
    assert!(store.get(&ID).is_err());
    assert_eq!(server.gets(), 3);
}

#[test]
fn sixteen_readers_share_four_connections() {
    let server = ZdbServer::faulty(|_| Fault::Slow);
    let store = ZdbStore::new(&server.url("", "/open")).unwrap();
    let ids = (0..16).map(|n| BlockId::new([n; 32])).collect::<Vec<_>>();
    for id in &ids {
        store.put(id, &noise(u64::from(id.as_bytes()[0]), 300_000)).unwrap();
    }
    let start = Barrier::new(ids.len());
    thread::scope(|scope| {
        for id in &ids {
            let (store, start) = (&store, &start);
            scope.spawn(move || {
                start.wait();
                for _ in 0..5 {
                    assert!(store.get(id).unwrap() == noise(u64::from(id.as_bytes()[0]), 300_000));
                }
            });
        }
    });
    assert_eq!(server.gets(), 80);
    assert_eq!(server.state.connections.load(Ordering::SeqCst), 4, "made once, and kept");
    assert_eq!(server.state.most_at_once.load(Ordering::SeqCst), 4);
}

#[test]
fn another_route_serves_what_a_broken_store_does_not() {
    let (good, tree) = (ZdbServer::start(), Tree::new());
    for fault in [Fault::DiesMidReply, Fault::Garbage, Fault::Huge, Fault::Says("Namespace protected and private")] {
        let bad = ZdbServer::faulty(move |_| fault);
        let (bad_url, good_url) = (bad.url("", "/open"), good.url("", "/open"));
        tree.pack(&[&bad_url, &good_url]).unwrap();
        tree.assert_reads_back();
        assert!(bad.gets() > 0, "{fault:?}");
    }
}

#[test]
fn a_dead_store_is_left_alone_and_found_again() {
    let dead = Arc::new(AtomicBool::new(true));
    let is_dead = Arc::clone(&dead);
    let server = ZdbServer::faulty(move |_| match is_dead.load(Ordering::SeqCst) {
        true => Fault::DiesMidReply,
        false => Fault::None,
    });
    let (tree, url) = (Tree::new(), server.url("", "/open"));
    tree.pack(&[&url]).unwrap();
    let content = tree.content();
    let error = tree.read_small(&content, 0).unwrap_err();
    assert_eq!(error.kind(), FlistErrorKind::Unreachable, "{}", chain(&error));
    let asked = server.gets();
    assert_eq!(asked, 3, "three attempts, then it is taken for dead");
    // A thousand readers do not each ask the dead store.
    let failures = (0..1000).map(|n| tree.read_small(&content, 1 + n % 39).unwrap_err()).collect::<Vec<_>>();
    let later = server.gets() - asked;
    assert!(later <= 10, "asked {later} times for 1000 reads");
    let left_alone = failures.iter().filter(|error| chain(*error).contains("not asked")).count();
    assert!(left_alone >= 990, "{left_alone}: {}", chain(&failures[0]));
    assert!(chain(&failures[0]).contains("the connection was closed"), "it says why: {}", chain(&failures[0]));
    // The store is back, and is used again after its pause.
    dead.store(false, Ordering::SeqCst);
    let begun = Instant::now();
    while tree.read_small(&content, 0).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(300), "the store is not found again");
        thread::sleep(Duration::from_millis(50));
    }
    (0..40).for_each(|n| drop(tree.read_small(&content, n).unwrap()));
    // With another route, reads succeed although one store is dead; that one is asked three times, and later now and then.
    dead.store(true, Ordering::SeqCst);
    let other = ZdbServer::start();
    tree.pack(&[&url, &other.url("", "/open")]).unwrap();
    let (content, asked) = (tree.content(), server.gets());
    (0..40).for_each(|n| drop(tree.read_small(&content, n).unwrap()));
    assert!((3..=8).contains(&(server.gets() - asked)), "asked {} times", server.gets() - asked);
}

#[test]
fn a_blink_of_the_store_is_no_error() {
    let server = ZdbServer::faulty(|number| match number % 3 {
        0 => Fault::DiesMidReply,
        1 => Fault::Says("Namespace is temporarily locked"),
        _ => Fault::None,
    });
    let tree = Tree::new();
    tree.pack(&[&server.url("", "/open")]).unwrap();
    let content = tree.content();
    for number in 0..6 {
        tree.read_small(&content, number).unwrap();
    }
    assert_eq!(server.gets(), 18);
}

#[test]
fn an_ipv6_host_is_reached() {
    // Passes on a machine without IPv6.
    let Ok(server) = ZdbServer::bind("[::1]:0", |_| Fault::None) else { return };
    let store = ZdbStore::new(&server.url("me@", "/open")).unwrap();
    store.put(&ID, b"stored").unwrap();
    assert_eq!(store.get(&ID).unwrap(), b"stored");
}

#[test]
fn a_flist_from_the_network_does_not_reach_this_machine() {
    let zdb = ZdbServer::start();
    let web = crate::support::Server::start(|_, _| crate::support::Answer::Full(200, b"x".to_vec()));
    let (tree, folder) = (Tree::new(), tempfile::tempdir().unwrap());
    tree.pack(&[&format!("dir://{}", folder.path().display())]).unwrap();
    let block = {
        let content = tree.content();
        let inode = content.flist().resolve(b"file-0").unwrap();
        content.flist().blocks(inode.ino())[0]
    };
    let policy = RoutePolicy { net_routes: NetRoutes::NotThisMachine, ..RoutePolicy::default() };
    let port = web.url.rsplit(':').next().unwrap();
    for url in [
        zdb.url("", "/open"),
        web.url.clone(),
        format!("http://localhost:{port}"),
        format!("s3://127.0.0.1:{port}/bucket"),
    ] {
        let routes = Routes::connect(&[Route { start: 0, end: 255, url: url.clone() }], &policy).unwrap();
        let error = routes.fetch(&block).unwrap_err();
        assert_eq!(error.kind(), FlistErrorKind::Denied, "{url}: {}", chain(&error));
    }
    assert_eq!((web.requests(), zdb.state.connections.load(Ordering::SeqCst)), (0, 0));
}

#[test]
fn a_store_that_can_only_be_read_is_refused_before_anything_is_packed() {
    let tree = Tree::new();
    let error = tree.pack(&["http://me:secret@127.0.0.1:1/store"]).unwrap_err();
    assert_eq!(error.kind(), FlistErrorKind::Invalid);
    assert!(chain(&error).contains("can only be read") && !chain(&error).contains("secret"), "{}", chain(&error));
    assert!(!tree.fl.exists());
}

#[test]
fn a_store_that_nobody_serves_is_an_error_for_pack_too() {
    let taken = Port::take();
    let port = taken.number;
    let error = Tree::new().pack(&[&format!("zdb://me:{BAD_PASSWORD}@127.0.0.1:{port}/ns")]).unwrap_err();
    assert_eq!(error.kind(), FlistErrorKind::Unreachable, "{}", chain(&error));
    assert!(!format!("{} {error:?}", chain(&error)).contains("hunter2"));
}
