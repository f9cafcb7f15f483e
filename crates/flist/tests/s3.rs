//! Stores in a bucket: against a server that checks signatures, and against faulty ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use crate::packed::{Tree, noise};
use crate::s3_server::{Request, S3Server, SECRET, SECRET_IN_URL, USER, check};
use contd_flist::store::S3Store;
use contd_flist::{BlockId, BlockStore, FlistErrorKind, PackOptions, StoreError};
use contd_test_harness::flist::{Answer, Server, chain};

const ID: BlockId = BlockId::new([0xab; 32]);

fn owner() -> String {
    format!("{USER}:{SECRET_IN_URL}@")
}

/// Signed by others than us: the example in Amazon's documentation of signatures in a query, and two URLs by botocore 1.44.8,
/// signed on 2026-01-02T03:04:05Z with our names.
const SIGNED: [(&str, &str, &str, &str, u64); 3] = [
    (
        "GET",
        "examplebucket.s3.amazonaws.com",
        "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2F\
         aws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=\
         aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        1_369_353_600,
    ),
    (
        "GET",
        "127.0.0.1:9000",
        "/private/abababababababababababababababababababababababababababababababab?X-Amz-Algorithm=AWS4-HMAC-SHA256&\
         X-Amz-Credential=AKIAEXAMPLE%2F20260102%2Feu-west-1%2Fs3%2Faws4_request&X-Amz-Date=20260102T030405Z&\
         X-Amz-Expires=900&X-Amz-SignedHeaders=host&X-Amz-Signature=\
         c47ec8e5caa4ba55c621e61cb78ce5e0f161ee955b23fc249624859ee73ca6ed",
        SECRET,
        1_767_323_045,
    ),
    (
        "PUT",
        "127.0.0.1:9000",
        "/private/abababababababababababababababababababababababababababababababab?x=a%20b~%2F&X-Amz-Algorithm=\
         AWS4-HMAC-SHA256&X-Amz-Credential=AKIAEXAMPLE%2F20260102%2Feu-west-1%2Fs3%2Faws4_request&X-Amz-Date=\
         20260102T030405Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host&X-Amz-Signature=\
         ccafd004934b7c6888998dac2edda5a3432b02232cca29b47f1c660f3d449057",
        SECRET,
        1_767_323_045,
    ),
];

#[test]
fn the_server_of_these_tests_takes_the_signatures_of_others_and_no_other() {
    for (method, host, target, secret, signed_s) in SIGNED {
        let request = |method: &str, host: &str, target: &str| Request {
            method: method.to_owned(),
            target: target.to_owned(),
            host: host.to_owned(),
            body: Vec::new(),
        };
        let whole = request(method, host, target);
        assert_eq!(check(&whole, secret, signed_s + 60), Ok(()), "{target}");
        let wrong = Err((403, "SignatureDoesNotMatch"));
        assert_eq!(check(&whole, &format!("{secret}x"), signed_s), wrong);
        for (from, to) in [("host&", "host&y=1&"), ("Expires=", "Expires=1"), ("/t", "/u"), ("/p", "/q")] {
            let other = request(method, host, &target.replace(from, to));
            assert!(other.target == target || check(&other, secret, signed_s) == wrong, "{}", other.target);
        }
        assert_eq!(check(&request("DELETE", host, target), secret, signed_s), wrong);
        assert_eq!(check(&request(method, "other.example", target), secret, signed_s), wrong);
        for late in [signed_s + 86_401, signed_s - 1000] {
            assert_eq!(check(&whole, secret, late), Err((403, "AccessDenied")), "{target} at {late}");
        }
    }
}

#[test]
fn a_tree_packed_into_a_public_bucket_is_read_without_credentials() {
    let (server, tree) = (S3Server::start(), Tree::new());
    tree.pack(&[&format!("{}?region=us-east-1", server.url(&owner(), "public"))]).unwrap();
    let keys = server.keys("public");
    assert_eq!(keys.len(), tree.distinct_blocks());
    assert!(keys.iter().all(|key| key.len() == 64 && key.bytes().all(|c| c.is_ascii_hexdigit())), "{keys:?}");
    assert_eq!(tree.routes(), [format!("{}?region=us-east-1", server.url(&format!("{USER}@"), "public"))]);
    tree.assert_reads_back();
}

#[test]
fn a_private_bucket_is_read_with_credentials_that_are_kept() {
    let (server, tree) = (S3Server::start(), Tree::new());
    let url = server.url(&owner(), "private");
    tree.pack_with(&[&url], &PackOptions { strip_password: false, ..PackOptions::default() }).unwrap();
    tree.assert_reads_back();
    tree.route(&[&server.url("", "private")]);
    let error = tree.read_small(&tree.content(), 0).unwrap_err();
    assert_eq!(error.kind(), FlistErrorKind::Denied, "{}", chain(&error));
    assert!(chain(&error).contains("status 403 AccessDenied"), "{}", chain(&error));
}

#[test]
fn a_wrong_secret_is_a_denial_that_does_not_show_it() {
    let server = S3Server::start();
    for userinfo in [format!("{USER}:hunter2%2Fhunter2@"), "NOBODY:hunter2@".to_owned()] {
        let store = S3Store::new(&server.url(&userinfo, "private")).unwrap();
        for error in [store.get(&ID).unwrap_err(), store.put(&ID, b"x").unwrap_err()] {
            let shown = format!("{} {error:?} {store:?}", chain(&error));
            assert_eq!(error.kind(), FlistErrorKind::Denied, "{shown}");
            assert!(shown.contains("status 403") && shown.contains(&ID.to_hex()), "{shown}");
            for secret in ["hunter2", USER, "NOBODY", "X-Amz"] {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
    }
    let error = S3Store::new(&server.url("", "public")).unwrap().put(&ID, b"x").unwrap_err();
    assert_eq!(error.kind(), FlistErrorKind::Denied, "everyone may read, not write: {}", chain(&error));
    assert!(server.keys("private").is_empty() && server.keys("public").is_empty());
}

#[test]
fn a_missing_object_is_distinguished_from_a_missing_bucket() {
    let server = S3Server::start();
    let get = |bucket| S3Store::new(&server.url(&owner(), bucket)).unwrap().get(&ID).unwrap_err();
    assert!(matches!(get("private"), StoreError::NotFound { .. }));
    assert!(matches!(get("nowhere"), StoreError::NoStore { .. }));
    let error = Tree::new().pack(&[&server.url(&owner(), "nowhere")]).unwrap_err();
    assert_eq!(error.kind(), FlistErrorKind::Unreachable, "{}", chain(&error));
}

#[test]
fn sixteen_readers_at_once_get_what_was_put() {
    let server = S3Server::start();
    let store = S3Store::new(&server.url(&owner(), "private")).unwrap();
    std::thread::scope(|scope| {
        for n in 0..16_u8 {
            let store = &store;
            scope.spawn(move || {
                let (id, bytes) = (BlockId::new([n; 32]), noise(u64::from(n), 300_000));
                store.put(&id, &bytes).unwrap();
                for _ in 0..3 {
                    assert!(store.get(&id).unwrap() == bytes);
                }
            });
        }
    });
}

#[test]
fn a_bucket_that_breaks_is_typed_and_bounded() {
    let get = |answer: fn() -> Answer| {
        let server = Server::start(move |_, _| answer());
        S3Store::new(&format!("{}/bucket", server.url.replace("http://", "s3://"))).unwrap().get(&ID).unwrap_err()
    };
    assert!(matches!(get(|| Answer::Lying { announced: 1 << 40, body: vec![0] }), StoreError::TooLarge { .. }));
    let cut = get(|| Answer::Lying { announced: 1000, body: vec![0] });
    assert!(matches!(cut, StoreError::Exchange { .. }) && cut.is_transient(), "{}", chain(&cut));
    let garbage = get(|| Answer::Raw(b"\0\x01garbage\r\n\r\n".to_vec()));
    assert_eq!(garbage.kind(), FlistErrorKind::Unreachable);
    let hostile = get(|| Answer::Full(400, [b"<Error><Code>\x1b[2J</Code>".to_vec(), vec![b'x'; 100_000]].concat()));
    assert!(matches!(&hostile, StoreError::Status { status: 400, code, .. } if code.is_empty()), "{}", chain(&hostile));
    let moved =
        get(|| Answer::Raw(b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_vec()));
    assert!(matches!(moved, StoreError::Status { status: 307, .. }), "{}", chain(&moved));
}

#[test]
fn a_server_that_says_slow_down_is_asked_again_by_pack_and_read() {
    let server = Server::start(|number, _| match number {
        0 => Answer::Full(503, b"<Error><Code>SlowDown</Code></Error>".to_vec()),
        1 => Answer::HangUp,
        _ => Answer::Full(200, Vec::new()),
    });
    let store = S3Store::new(&format!("{}/bucket", server.url.replace("http://", "s3://"))).unwrap();
    // The faulty server does not read bodies, so the body is empty.
    store.put(&ID, b"").unwrap();
    assert_eq!(server.requests(), 3);
}
