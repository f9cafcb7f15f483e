//! Writes the seeds of each corpus: one small example of every message and file, as the current code writes it.

use std::path::Path;
use std::time::Duration;

use contd_protocol::api::{
    Call, Cancel, Credit, Item, LogItem, LogStream, Reply, Request, Response, RunRequest, StreamItem, Target,
};
use contd_protocol::shim::{self, RuntimeSpec, TASK_SPEC_VERSION, TaskSpec};
use contd_protocol::{Frame, Hello, HelloReply, Kind, VersionRange};
use contd_store::ContainerRecord;
use contd_types::{
    ApiError, ContainerId, ContainerName, ContainerRef, ContainerSpec, Entrypoint, ErrorKind, Exit, NamespaceId,
    Signal, Timestamp,
};
use serde::Serialize;

fn main() {
    api();
    shim_sockets_and_files();
    store();
    oci();
    logs();
    flists();
    images();
    legacy_flists();
    let entry: Vec<u8> = [1_u64, 64, 67, 9, 1, 2, 3, 0].iter().flat_map(|number| number.to_le_bytes()).collect();
    seed("spool", "noted", &[entry.as_slice(), b"onetwo"].concat());
    seed("spool", "taken", &[[0; 64].as_slice(), b"one"].concat());
}

fn images() {
    use tar::{Builder, EntryType, Header};
    let header = |kind| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(7);
        header.set_size(0);
        header
    };
    let file = |tar: &mut Builder<Vec<u8>>, path: &str, content: &[u8]| {
        let mut header = header(EntryType::Regular);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content).unwrap();
    };
    let link = |tar: &mut Builder<Vec<u8>>, kind, path: &str, target: &str| {
        tar.append_link(&mut header(kind), path, target).unwrap();
    };
    let mut tar = Builder::new(Vec::new());
    tar.append_data(&mut header(EntryType::Directory), "d/", std::io::empty()).unwrap();
    file(&mut tar, "d/a", b"1");
    link(&mut tar, EntryType::Symlink, "l", "d");
    link(&mut tar, EntryType::Link, "h", "d/a");
    file(&mut tar, "l/b", b"2");
    seed("flist_import", "one", &[&[0][..], &tar.into_inner().unwrap()].concat());
    let mut tar = Builder::new(Vec::new());
    file(&mut tar, "d/a", b"1");
    file(&mut tar, "d/b", b"");
    file(&mut tar, "d/.wh.a", b"");
    file(&mut tar, "d/.wh..wh..opq", b"");
    seed("flist_import", "two", &[&[1][..], &tar.into_inner().unwrap()].concat());
    let mut tar = Builder::new(Vec::new());
    tar.append_pax_extensions([("path", &b"p"[..]), ("SCHILY.xattr.a", b"b\nc"), ("mtime", b"-1.5"), ("size", b"3")])
        .unwrap();
    file(&mut tar, "x", b"abc");
    tar.append_pax_extensions([
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.realsize", b"9"),
    ])
    .unwrap();
    file(&mut tar, "y", &[&b"1\n4\n2\n"[..], &[0; 506], b"ab"].concat());
    seed("flist_import", "pax", &[&[0][..], &tar.into_inner().unwrap()].concat());
    let mut tar = Builder::new(Vec::new());
    file(&mut tar, "oci-layout", b"{}");
    file(
        &mut tar,
        "index.json",
        br#"{"manifests":[{"digest":"sha256:00","size":1,"platform":{"os":"linux","architecture":"x"}}]}"#,
    );
    seed("flist_import", "layout", &[&[0x80][..], &tar.into_inner().unwrap()].concat());
    let mut tar = Builder::new(Vec::new());
    file(&mut tar, "manifest.json", br#"[{"Config":"c","RepoTags":["a"],"Layers":["l"]}]"#);
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let config = format!(
        r#"{{"os":"linux","config":{{"Cmd":["x"],"Env":["A=1"]}},"rootfs":{{"diff_ids":["sha256:{empty}"]}}}}"#
    );
    file(&mut tar, "c", config.as_bytes());
    file(&mut tar, "l", b"");
    seed("flist_import", "saved", &[&[0x80][..], &tar.into_inner().unwrap()].concat());
}

fn seed(target: &str, name: &str, bytes: &[u8]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(format!("seed-{name}")), bytes).unwrap();
}

fn spec() -> ContainerSpec {
    let mut spec = ContainerSpec::new(ContainerName::new("web").unwrap(), "/x.fl");
    spec.entrypoint = Some(Entrypoint::Args(vec!["/bin/sh".into()]));
    spec.env = vec!["A=b".into()];
    spec.labels.insert("key".into(), "value".into());
    spec
}

fn id() -> ContainerId {
    ContainerId::new("0123456789abcdef0123456789abcdef").unwrap()
}

fn ns() -> NamespaceId {
    NamespaceId::new("a").unwrap()
}

fn frame<T: Serialize>(version: u16, kind: Kind, message: &T) -> Vec<u8> {
    Frame::new(version, kind, message).unwrap().to_bytes()
}

fn api() {
    let versions = VersionRange { min: 1, max: 1 };
    let hello = frame(0, Kind::Hello, &Hello { versions, agent: "x".into() });
    let welcome = HelloReply::Welcome { version: 1, agent: "x".into(), features: vec!["y".into()] };
    let target = Target { namespace: ns(), container: ContainerRef::new("web").unwrap() };
    let call = |request| frame(1, Kind::Call, &Call { id: 7, request });
    let cut = |bytes: &[u8]| [b"\xff", bytes].concat();
    let run = RunRequest { namespace: ns(), spec: spec(), idempotency_key: Some("k".into()), is_attached: true };
    seed("api_frames", "run", &cut(&[hello, call(Request::Run(Box::new(run)))].concat()));
    let kill = Request::Kill { target: target.clone(), signal: Signal::TERM };
    let delete = Request::Delete { target, force: true, timeout: Some(Duration::from_millis(1500)) };
    seed("api_frames", "kill-delete", &cut(&[call(kill), call(delete)].concat()));
    let done = frame(1, Kind::Reply, &Reply { id: 7, result: Ok(Response::Done) });
    let error = ApiError::new(ErrorKind::NotFound, "none").with_hint("look");
    let failed = frame(1, Kind::Reply, &Reply { id: 8, result: Err(error) });
    seed("api_frames", "replies", &cut(&[frame(0, Kind::HelloReply, &welcome), done, failed].concat()));
    let log = LogItem { at: Timestamp(9), stream: LogStream::Stderr, content: b"text\n".to_vec() };
    let item = frame(1, Kind::Item, &StreamItem { id: 7, item: Item::Log(log) });
    let credit = frame(1, Kind::Credit, &Credit { id: 7, items: 5 });
    seed("api_frames", "stream", &cut(&[item, credit, frame(1, Kind::Cancel, &Cancel { id: 7 })].concat()));
}

fn shim_sockets_and_files() {
    let call = |request| frame(1, Kind::Call, &shim::Call { id: 7, request });
    let calls = [call(shim::Request::State), call(shim::Request::Kill { signal: Signal::TERM, is_for_all: true })];
    seed("shim_frames", "calls", &[b"\xf0".as_slice(), &calls.concat()].concat());
    let exit = Exit::unknown("x", Timestamp(9));
    let reply =
        shim::Reply { id: 7, result: Ok(shim::Response::State(shim::TaskState::Exited { exit: exit.clone() })) };
    seed("shim_frames", "replies", &[b"\x00".as_slice(), &frame(1, Kind::Reply, &reply)].concat());
    let task = TaskSpec {
        version: TASK_SPEC_VERSION,
        namespace: ns(),
        id: id(),
        bundle: "/b".into(),
        runtime: RuntimeSpec::Oci { binary: "/runc".into(), root: "/r".into() },
        log_path: "/l".into(),
        log_max_bytes: 1,
        log_max_files: 1,
        log_notes: None,
        log_start: None,
        drain_timeout: Duration::from_secs(1),
        runtime_timeout: Duration::from_secs(1),
        input: contd_protocol::shim::TaskInput::default(),
    };
    seed("shim_frames", "task", &[b"\x01".as_slice(), &serde_json::to_vec(&task).unwrap()].concat());
    seed("shim_frames", "exit", &[b"\x07".as_slice(), &serde_json::to_vec(&exit).unwrap()].concat());
}

fn store() {
    let record = ContainerRecord::new(ns(), id(), spec(), "boot", "/l", Timestamp(1));
    let text = serde_json::to_vec(&record).unwrap();
    seed("store_records", "record", &[b"\x00".as_slice(), &text].concat());
    seed("store_records", "misfiled", &[b"\x02".as_slice(), b"{}", b"\n--\n", &text].concat());
    let event = r#"{"sequence":1,"event":{"namespace":"a","id":"0123456789abcdef0123456789abcdef","name":"web","at":1,"kind":"Accepted"}}"#;
    seed("store_records", "journal", format!("\x01{event}\n{}\n--\n{event}\n", event.replacen('1', "3", 1)).as_bytes());
}

fn oci() {
    let process = r#"{"user":{"uid":0,"gid":0,"umask":18,"additionalGids":[5]},"args":["/bin/sh"],"env":["A=b"],"cwd":"/","capabilities":{"bounding":["CAP_CHOWN"],"effective":["CAP_CHOWN"],"permitted":["CAP_CHOWN"]},"rlimits":[{"type":"RLIMIT_NOFILE","soft":1,"hard":2}],"noNewPrivileges":true,"oomScoreAdj":1}"#;
    seed("oci_config", "process", process.as_bytes());
    let linux = r#"{"namespaces":[{"type":"pid"},{"type":"network","path":"n"}],"devices":[{"type":"c","path":"/dev/x","major":1,"minor":3,"fileMode":438}],"resources":{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":1},"cpu":{"shares":2},"pids":{"limit":3}},"seccomp":null,"sysctl":{"net.x":"1"},"maskedPaths":["/proc/kcore"],"personality":{"domain":"LINUX"}}"#;
    let config = format!(
        r#"{{"ociVersion":"1.2.0","process":{process},"root":{{"path":"rootfs","readonly":true}},"hostname":"h","mounts":[{{"destination":"/proc","type":"proc","source":"proc","options":["nosuid"]}}],"annotations":{{"a":"b"}},"linux":{linux}}}"#
    );
    seed("oci_config", "config", config.as_bytes());
    seed("oci_config", "hooks", br#"{"ociVersion":"1.0.0","hooks":{"prestart":[{"path":"/x"}]}}"#);
}

fn flists() {
    let small = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/fl/small/small.fl");
    let small = std::fs::read(small).unwrap();
    seed("flist_metadata", "small", &[b"\0", small.as_slice()].concat());
    // The same tables with few rows, and pages of 512 bytes: small enough that mutations change something relevant.
    let tiny = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(tiny.path(), &small).unwrap();
    let database = rusqlite::Connection::open(tiny.path()).unwrap();
    let few = "ino = 1 OR name IN ('etc', 'hostname', 'null') OR mode & 61440 = 40960 AND parent = 1";
    database
        .execute_batch(&format!(
            "PRAGMA synchronous = OFF; DELETE FROM inode WHERE NOT ({few});
             DELETE FROM inode WHERE ino > 1 AND parent NOT IN (SELECT ino FROM inode);
             DELETE FROM extra WHERE ino NOT IN (SELECT ino FROM inode);
             DELETE FROM block WHERE ino NOT IN (SELECT ino FROM inode);
             PRAGMA page_size = 512; VACUUM"
        ))
        .unwrap();
    drop(database);
    contd_flist::Flist::open(tiny.path()).unwrap();
    seed("flist_metadata", "tiny", &[b"\0", std::fs::read(tiny.path()).unwrap().as_slice()].concat());
    // /d, /d/f with a block, /d/l that points to /, a tag and a route.
    let rows: [&[u8]; 7] = [
        &[0, 2, 1, 200, 1, b'd', 0, 0, 0, 101, 0, 0, 0],
        &[0, 3, 2, 200, 1, b'f', 5, 0, 0, 104, 0, 0, 0],
        &[0, 4, 2, 230, 1, 0xff, 1, 0, 0, 102, 0, 0, 0],
        &[1, 4, 230, 1, b'/'],
        &[2, 3, 170, 1, 170, 2],
        &[3, 200, 1, b'k', 200, 1, b'v'],
        &[4, 0, 99, 200, 8, b'd', b'i', b'r', b':', b'/', b'/', b'/', b'x'],
    ];
    seed("flist_metadata", "rows", &[b"\x01".as_slice(), &rows.concat()].concat());
    seed("flist_metadata", "untyped-rows", &[b"\x03".as_slice(), &rows.concat()].concat());
    seed("flist_block", "plain", b"\0\x05content content content");
    seed("flist_block", "literal", b"\x40\x07\x18content");
    seed("flist_block", "copies", b"\x40\x40\x04ab\xfa\x02\x00");
    seed("flist_block", "bomb", b"\x40\x80\x80\x80\x80\x04\xfe\x01\x00");
    seed("flist_block", "stored", &[b"\xff", [3; 40].as_slice()].concat());
}

fn logs() {
    let line = |second: u32, stream: &str, tag: &str, text: &str| {
        format!("2026-11-23T10:11:{second:02}.123456789Z {stream} {tag} {text}\n")
    };
    let log = [line(1, "stdout", "F", "one"), line(2, "stderr", "P", "tw"), line(3, "stderr", "F", "o"), "torn".into()];
    seed("log_reader", "parts", &[b"\x02\x80\xff".as_slice(), log.concat().as_bytes()].concat());
    seed("log_reader", "garbage", b"\x01\x00\x01 \n\nx stdout F\n2026-11-23T10:11:12Z stdout F:x \n");
}

/// The values and the block in the corpus of `flist_legacy` are from the fixture in `tests/data/fl/legacy`, each after
/// the byte that selects its decoder; they were extracted with sqlite3.
fn legacy_flists() {
    let router = "pools:\n  a:\n    00:7F: zdb://h:9900/ns\n    80:FF: ardb://pw@h:1\nlookup: [a]\ncache:\n - a\n";
    seed("flist_legacy", "router", &[b"\x02", router.as_bytes()].concat());
    let backend = r#"{"host": "127.0.0.1", "port": 9911, "namespace": "leg", "password": "p@"}"#;
    seed("flist_legacy", "backend", &[b"\x02", backend.as_bytes()].concat());
}
