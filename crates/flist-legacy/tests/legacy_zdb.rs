//! The legacy fixture read from a 0-db, as `zflist` stored it: by `backend` with a password, and by `router.yaml`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use crate::made::content;
use contd_test_harness::flist::{files_below, fixtures, read_all, sha256};

#[test]
fn blocks_come_out_of_a_0_db_by_their_16_raw_bytes() {
    let server = contd_test_harness::zdb::ZdbServer::start();
    let byte = |name: &str, at: usize| u8::from_str_radix(&name[2 * at..2 * at + 2], 16).unwrap();
    for path in files_below(&fixtures().join("legacy/store")) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let id = (0..16).map(|at| byte(&name, at)).collect::<Vec<_>>();
        let mut namespaces = server.state.namespaces.lock().unwrap();
        for namespace in ["open", "private"] {
            namespaces.get_mut(namespace).unwrap().blocks.insert(id.clone(), std::fs::read(&path).unwrap());
        }
    }
    let scratch = tempfile::tempdir().unwrap();
    let db = scratch.path().join("db");
    std::fs::write(&db, crate::made::fixture_database()).unwrap();
    let (host, port) = server.address.split_once(':').unwrap();
    let backend = format!(r#"{{"host": "{host}", "port": {port}, "namespace": "private", "password": "p@ss/word"}}"#);
    rusqlite::Connection::open(&db).unwrap().execute("UPDATE metadata SET value = ?1", [backend]).unwrap();
    let by_backend = crate::made::tar_of(&[("./flistdb.sqlite3", std::fs::read(&db).unwrap())]);
    let router = format!("pools: {{p: {{'00:FF': 'ardb://{}/open'}}}}\nlookup: [p]", server.address);
    let by_router = crate::made::tar_of(&[
        ("flistdb.sqlite3", crate::made::fixture_database()),
        ("router.yaml", router.into_bytes()),
    ]);
    let manifest = std::fs::read_to_string(fixtures().join("legacy/manifest.jsonl")).unwrap();
    for (name, archive) in [("backend", by_backend), ("router", by_router)] {
        let path = scratch.path().join(name);
        std::fs::write(&path, crate::made::gzip(&archive)).unwrap();
        let content = content(&path, &scratch.path().join(format!("cache-{name}")));
        for line in manifest.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
            let Some(expected) = line["sha256"].as_str() else { continue };
            let file = content.flist().resolve(line["path"].as_str().unwrap().as_bytes()).unwrap();
            assert_eq!(sha256(&read_all(&content, file.ino()).unwrap()), expected, "{name} {line}");
        }
    }
    assert_eq!(server.gets(), 2 * 56);
}
