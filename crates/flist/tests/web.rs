//! Stores and flists on web servers that answer correctly, wrongly, late or never.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use contd_flist::store::HttpStore;
use contd_flist::{
    BlockId, BlockStore, DirRoutes, FetchError, FlistErrorKind, FlistSource, Route, RoutePolicy, Routes, StoreError,
    fetch,
};
use contd_test_harness::flist::{Answer, Fixture, Server, by_path, chain, content, fixtures, read_all};

const ID: BlockId = BlockId::new([0xab; 32]);

fn store(url: &str) -> HttpStore {
    HttpStore::new(url).unwrap()
}

#[test]
fn a_whole_flist_is_read_over_http_on_few_connections() {
    let fixture = Fixture::copy("small");
    let server = Server::folder(fixture.store.clone());
    fixture.route(&[(0, 255, &format!("{}/", server.url))]);
    let content = fixture.content();
    for ino in by_path(content.flist()).into_values() {
        if !content.flist().blocks(ino).is_empty() {
            read_all(&content, ino).unwrap();
        }
    }
    assert_eq!(server.requests(), 56, "each distinct block is asked for once");
    assert!(server.paths.lock().unwrap().iter().all(|path| path.len() == 68 && !path.contains("//")));
    assert_eq!(server.connections.load(Ordering::SeqCst), 1, "one reader needs one connection");
}

#[test]
fn the_flat_name_is_asked_for_after_a_404() {
    let server = Server::start(|_, path| match path.matches('/').count() {
        1 => Answer::Full(200, b"stored".to_vec()),
        _ => Answer::Full(404, b"no".to_vec()),
    });
    assert_eq!(store(&server.url).get(&ID).unwrap(), b"stored");
    let hex = ID.to_hex();
    assert_eq!(*server.paths.lock().unwrap(), [format!("/ab/{hex}"), format!("/{hex}")]);
}

#[test]
fn a_path_and_a_query_of_the_store_are_kept() {
    let server = Server::start(|_, _| Answer::Full(200, b"x".to_vec()));
    store(&format!("{}/deep/store/?token=t", server.url)).get(&ID).unwrap();
    assert_eq!(*server.paths.lock().unwrap(), [format!("/deep/store/ab/{}?token=t", ID.to_hex())]);
}

#[test]
fn a_store_that_has_it_nowhere_says_not_found() {
    let server = Server::start(|_, _| Answer::Full(404, Vec::new()));
    assert!(matches!(store(&server.url).get(&ID), Err(StoreError::NotFound { .. })));
    assert!(matches!(store(&server.url).put(&ID, b"x"), Err(StoreError::ReadOnly { .. })));
}

#[test]
fn lengths_that_lie_are_errors() {
    let cut = Server::start(|_, _| Answer::Lying { announced: 100, body: b"short".to_vec() });
    let error = store(&cut.url).get(&ID).unwrap_err();
    assert!(matches!(error, StoreError::Exchange { .. }) && error.is_transient(), "{}", chain(&error));
    let huge = Server::start(|_, _| Answer::Lying { announced: 1 << 40, body: b"x".to_vec() });
    assert!(matches!(store(&huge.url).get(&ID), Err(StoreError::TooLarge { .. })));
    let endless = Server::start(|_, _| {
        let chunk = format!("100000\r\n{}\r\n", "x".repeat(0x10_0000));
        Answer::Raw(format!("HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}").into_bytes())
    });
    assert!(matches!(store(&endless.url).get(&ID), Err(StoreError::TooLarge { .. })));
    let garbage = Server::start(|_, _| Answer::Raw(b"\x00\x01garbage\r\n\r\n".to_vec()));
    let error = store(&garbage.url).get(&ID).unwrap_err();
    assert_eq!(error.kind(), FlistErrorKind::Unreachable, "{}", chain(&error));
}

#[test]
fn a_server_that_says_later_is_asked_again() {
    let fixture = Fixture::copy("small");
    let root = fixture.store.clone();
    let server = Server::start(move |number, path| match number {
        0 => Answer::Full(503, Vec::new()),
        1 => Answer::HangUp,
        _ => Answer::Full(200, std::fs::read(root.join(path.trim_start_matches('/'))).unwrap()),
    });
    fixture.route(&[(0, 255, &server.url)]);
    let content = fixture.content();
    let hostname = content.flist().resolve(b"etc/hostname").unwrap();
    assert_eq!(read_all(&content, hostname.ino()).unwrap().len() as u64, hostname.size());
    assert_eq!(server.requests(), 3);
}

#[test]
fn a_server_that_refuses_is_asked_once() {
    let fixture = Fixture::copy("small");
    let server = Server::start(|_, _| Answer::Full(403, Vec::new()));
    fixture.route(&[(0, 255, &server.url)]);
    let content = fixture.content();
    let hostname = content.flist().resolve(b"etc/hostname").unwrap().ino();
    let error = read_all(&content, hostname).unwrap_err();
    assert_eq!(error.kind(), FlistErrorKind::Denied, "{}", chain(&error));
    assert!(chain(&error).contains("status 403"), "{}", chain(&error));
    assert_eq!(server.requests(), 1);
}

#[test]
fn a_silent_server_costs_one_attempt_and_the_other_route_saves_the_read() {
    let fixture = Fixture::copy("small");
    let silent = Server::start(|_, _| Answer::Silence);
    fixture.route(&[(0, 255, &silent.url), (0, 255, &fixture.store_url())]);
    let content = fixture.content();
    for ino in by_path(content.flist()).into_values() {
        if !content.flist().blocks(ino).is_empty() {
            read_all(&content, ino).unwrap();
        }
    }
    // Not once per block; on a slow machine the store may be asked again after its pause.
    assert!(silent.requests() <= 10, "a silent server rests: asked {} times", silent.requests());
}

#[test]
fn an_unreachable_store_is_named_without_its_credentials() {
    let fixture = Fixture::copy("small");
    let taken = contd_test_harness::Port::take();
    let port = taken.number;
    fixture.route(&[(0, 255, &format!("http://me:secret@127.0.0.1:{port}/x?token=hidden"))]);
    let content = fixture.content();
    let hostname = content.flist().resolve(b"etc/hostname").unwrap().ino();
    let error = read_all(&content, hostname).unwrap_err();
    assert_eq!(error.kind(), FlistErrorKind::Unreachable);
    for shown in [chain(&error), format!("{error:?}"), format!("{content:?}")] {
        assert!(!shown.contains("secret") && !shown.contains("hidden"), "{shown}");
    }
}

#[test]
fn schemes_and_folders_that_may_not_be_used_say_so() {
    let connect = |url: &str, dir_routes: DirRoutes| {
        let policy = RoutePolicy { dir_routes, ..RoutePolicy::default() };
        Routes::connect(&[Route { start: 0, end: 255, url: url.to_owned() }], &policy).map(drop)
    };
    for url in ["zdb://me:secret@h:9900/ns", "s3://u:secret@h:9000/b", "S3S://h/b", "s3+tls://h/b", "HTTP://h/x"] {
        assert!(connect(url, DirRoutes::Any).is_ok(), "{url}");
    }
    for url in ["server://http://h", "ftp://me:secret@h/x"] {
        let error = connect(url, DirRoutes::Any).unwrap_err();
        assert!(matches!(error, StoreError::UnsupportedScheme { .. }), "{url}");
        assert!(!chain(&error).contains("secret") && error.hint().contains("zdb"));
    }
    let bad =
        ["nonsense", "dir://host/x", "dir:///a/../b", "http://", "http://h/a b", "zdb:///ns", "s3://h", "zdb://h:x"];
    for url in bad {
        assert!(matches!(connect(url, DirRoutes::Any), Err(StoreError::BadUrl { .. })), "{url}");
    }
    let under = || DirRoutes::Under(vec!["/srv/stores".into()]);
    assert!(connect("dir:///srv/stores/a", under()).is_ok() && connect("dir:///srv/stores", under()).is_ok());
    assert!(matches!(connect("dir:///srv/stores-2", under()), Err(StoreError::NotAllowed { .. })));
    assert!(matches!(connect("dir:///etc", DirRoutes::Never), Err(StoreError::NotAllowed { .. })));
    assert!(Routes::connect(&[], &RoutePolicy::default()).is_ok(), "a flist without content needs no store");
}

#[test]
fn a_flist_is_fetched_by_path_and_by_url_and_stored_once() {
    let scratch = tempfile::tempdir().unwrap();
    let original = fixtures().join("busybox/busybox.fl");
    let server = Server::folder(fixtures().join("busybox"));
    let mut fetched = Vec::new();
    for text in [
        original.to_str().unwrap().to_owned(),
        format!("file://{}", std::fs::canonicalize(&original).unwrap().display()),
        format!("{}/busybox.fl", server.url),
    ] {
        let seen = RefCell::new(Vec::new());
        let source = FlistSource::parse(&text).unwrap();
        fetched.push(fetch(&source, scratch.path(), &|progress| seen.borrow_mut().push(progress)).unwrap());
        let seen = seen.into_inner();
        let len = std::fs::metadata(&original).unwrap().len();
        assert!(seen.is_sorted_by_key(|progress| progress.received_bytes), "{text}");
        assert_eq!(seen.last().map(|last| (last.received_bytes, last.total_bytes)), Some((len, Some(len))), "{text}");
    }
    assert!(fetched.iter().all(|one| *one == fetched[0]));
    assert_eq!(std::fs::read(&fetched[0].path).unwrap(), std::fs::read(&original).unwrap());
    assert_eq!(fetched[0].path, scratch.path().join(format!("fl/{}.fl", fetched[0].hash)));
    let note = fetched[0].path.with_extension("name");
    let stored = [fetched[0].path.clone(), note.clone()];
    assert_eq!(crate::support::files_below(scratch.path()), stored, "stored once, nothing left behind");
    assert_eq!(std::fs::read_to_string(note).unwrap(), format!("{}/busybox.fl", server.url), "the latest name");
    content(&fetched[0].path, scratch.path());

    // A damaged copy in the cache is replaced, not used.
    std::fs::write(&fetched[0].path, b"damaged").unwrap();
    let again = fetch(&FlistSource::File(original.clone()), scratch.path(), &|_| {}).unwrap();
    assert_eq!(std::fs::read(&again.path).unwrap(), std::fs::read(&original).unwrap());
}

#[test]
fn a_failed_fetch_has_a_typed_error_and_leaves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let fails = |source: FlistSource| fetch(&source, scratch.path(), &|_| {}).unwrap_err();
    let server = Server::start(|_, path| match path {
        "/missing.fl" => Answer::Full(404, Vec::new()),
        "/broken.fl" => Answer::Full(500, Vec::new()),
        "/cut.fl" => Answer::Lying { announced: 1000, body: vec![1; 10] },
        "/huge.fl" => Answer::Lying { announced: 1 << 41, body: vec![1; 10] },
        _ => Answer::Full(302, Vec::new()),
    });
    let http = |name: &str| FlistSource::Http(format!("{}/{name}", server.url));
    assert!(matches!(fails(FlistSource::File("/nowhere/x.fl".into())), FetchError::NotFound { .. }));
    assert!(matches!(fails(FlistSource::File(scratch.path().into())), FetchError::NotAFile { .. }));
    assert!(matches!(fails(FlistSource::File("/dev/null".into())), FetchError::NotAFile { .. }));
    assert!(matches!(fails(FlistSource::Directory("/srv".into())), FetchError::IsDirectory { .. }));
    assert!(matches!(fails(http("missing.fl")), FetchError::NotFound { .. }));
    assert!(matches!(fails(http("broken.fl")), FetchError::Status { status: 500, .. }));
    assert_eq!(fails(http("cut.fl")).kind(), FlistErrorKind::Unreachable);
    assert!(matches!(fails(http("huge.fl")), FetchError::TooLarge { .. }));
    let unreachable = fails(FlistSource::Http("http://me:secret@127.0.0.1:1/x.fl".into()));
    assert!(matches!(unreachable, FetchError::Exchange { .. }) && !chain(&unreachable).contains("secret"));
    assert!(crate::support::files_below(scratch.path()).is_empty());
    let asked = |name: &str| server.paths.lock().unwrap().iter().filter(|path| path.contains(name)).count();
    assert_eq!((asked("missing"), asked("broken"), asked("cut"), asked("huge")), (1, 3, 3, 1));
}
