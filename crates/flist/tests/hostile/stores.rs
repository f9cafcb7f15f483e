//! Many routes that lead nowhere.

use contd_flist::metadata::Malformed;
use contd_flist::{BlockId, BlockKey, BlockRef, DirRoutes, FileKind, ReadError, Route, RoutePolicy, Routes};

use super::malformed;
use crate::support::{Fixture, chain};

#[test]
fn too_many_routes_are_refused() {
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
        INSERT INTO route SELECT 0, 255, 'http://10.0.0.1/' || i FROM n";
    assert!(matches!(malformed(sql), Malformed::TooManyRows { table: "route", .. }));
}

#[test]
fn a_thousand_dead_routes_are_an_error_in_bounded_time() {
    let fixture = Fixture::copy("busybox");
    let taken = contd_test_harness::Port::take();
    let port = taken.number;
    for dead in ["dir:///nowhere/at/all".to_owned(), format!("http://127.0.0.1:{port}")] {
        fixture.sql(&format!(
            "DELETE FROM route; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1024)
             INSERT INTO route SELECT 0, 255, '{dead}/' || i FROM n"
        ));
        let content = fixture.content();
        let file = content.flist().inodes().find(|inode| inode.kind() == FileKind::File && inode.size() > 0).unwrap();
        // Bounded by the 30 s of a block; otherwise the `timeout` of CI ends the test.
        let error = content.read_at(file.ino(), 0, &mut [0; 16]).unwrap_err();
        assert!(matches!(&error, ReadError::Block { .. }) && chain(&error).len() < 2000, "{}", chain(&error));
    }
}

#[test]
fn absurd_urls_are_refused_without_a_panic() {
    for url in [
        "",
        "x",
        "://",
        "dir://",
        "dir:///../..",
        "dir:///a/../b",
        "dir://host/x",
        "http://",
        "http:///",
        "http://[",
        "http://[::1",
        "http://a b/",
        "http://h:99999/",
        "http://h:-1/",
        "https://\u{202e}/",
        "zdb://",
        "s3://",
        "s3://a:b@",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "dir:///\0",
        "http://h/\r\nX: y",
        "DIR:///x",
        "dir:///dev/zero",
        "dir:///proc/self",
    ] {
        let route = |url: &str| Route { start: 0, end: 255, url: url.to_owned() };
        let block = BlockRef { id: BlockId::new([1; 32]), key: BlockKey::new([2; 32]) };
        let policy = RoutePolicy { dir_routes: DirRoutes::Any, ..RoutePolicy::default() };
        match Routes::connect(&[route(url)], &policy) {
            Err(error) => assert!(!error.hint().is_empty()),
            // An accepted route gives no block. Only local directories are asked.
            Ok(routes) if url.to_lowercase().starts_with("dir") => drop(routes.fetch(&block).unwrap_err()),
            Ok(_) => {}
        }
        let long = format!("{url}{}", "x".repeat(60_000));
        let shown = match Routes::connect(&[route(&long)], &policy) {
            Err(error) => chain(&error),
            Ok(_) => route(&long).shown_url(),
        };
        assert!(shown.len() < 2000, "{}", shown.len());
    }
}
