//! The flist server as a process, on real mounts. Wants root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::server::{BINARY, Server, frame};
use contd_lease::{LeaseDir, LeaseState};
use contd_protocol::flistfs::Request;
use contd_protocol::{Frame, FrameReader, Hello, HelloReply, Kind, MAX_CONTROL_BODY_BYTES, VersionRange};
use contd_test_harness::mounted::{
    assert_directory_links, assert_matches_manifest, census, copy_store, fixture, legacy_fixture, place_fixture,
    sha256, wait_until,
};
use contd_types::ErrorKind;
use nix::errno::Errno;

#[test]
fn both_fixtures_read_back_exactly_as_their_manifests_say() {
    for name in ["small", "busybox"] {
        let scratch = tempfile::tempdir().unwrap();
        let flist = fixture(name, scratch.path());
        let before = census(scratch.path());
        let server = Server::start(scratch.path(), &flist);
        for _cold_then_warm in 0..2 {
            assert_matches_manifest(&server.mnt, name);
            assert_directory_links(&server.mnt, name);
        }
        let status = server.status();
        assert_eq!(status.inodes, u64::try_from(crate::support::manifest(name).len()).unwrap());
        assert_eq!((status.failed_reads, &status.mount_point), (0, &server.mnt));
        server.stop();
        assert_eq!(census(scratch.path()), before, "something leaked");
    }
}

#[test]
fn a_legacy_flist_reads_back_exactly_as_its_manifest_says() {
    let scratch = tempfile::tempdir().unwrap();
    let flist = legacy_fixture(scratch.path());
    let before = census(scratch.path());
    let numbers = |server: &Server| {
        let names = crate::support::manifest("legacy").into_iter().map(|entry| entry.path);
        names
            .map(|path| std::fs::symlink_metadata(server.mnt.join(path.trim_start_matches('/'))).unwrap().ino())
            .collect()
    };
    let mut first: Vec<u64> = Vec::new();
    for start in 0..2 {
        let server = Server::start(scratch.path(), &flist);
        assert_matches_manifest(&server.mnt, "legacy");
        assert_directory_links(&server.mnt, "legacy");
        assert_eq!((server.status().inodes, server.status().failed_reads), (77, 0));
        let found: Vec<u64> = numbers(&server);
        if start == 0 {
            first = found;
        } else {
            assert_eq!(found, first, "inode numbers changed over a restart");
        }
        server.stop();
        assert_eq!(census(scratch.path()), before, "something leaked");
    }
}

#[test]
fn the_mount_is_read_only_private_and_named() {
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::start(scratch.path(), &fixture("small", scratch.path()));
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mountinfo.lines().find(|line| line.contains(server.mnt.to_str().unwrap())).unwrap();
    assert!(line.contains(" ro,nosuid,nodev") && line.contains(" - fuse.contd contd-flistfs "), "{line}");
    assert!(!line.contains("shared:") && !line.contains("master:"), "{line}");
    assert_eq!(std::fs::metadata(server.dir.join("sock")).unwrap().permissions().mode() & 0o777, 0o600);
    let error = std::fs::write(server.mnt.join("new"), b"x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EROFS as i32));
    server.stop();
}

#[test]
fn a_missing_block_is_eio_at_its_offsets_and_nowhere_else() {
    let scratch = tempfile::tempdir().unwrap();
    let store = scratch.path().join("store");
    copy_store("small", &store);
    let flist = place_fixture("small", scratch.path(), &store);
    // The file with the most blocks loses its second one, and another is damaged.
    let database = rusqlite::Connection::open(&flist).unwrap();
    let (path, id): (String, Vec<u8>) = database
        .query_row(
            "select i.name, (select hex(id) from block b where b.ino = i.ino order by rowid limit 1 offset 1)
             from inode i where i.size > 1100000 and (select count(distinct id) from block b where b.ino = i.ino) > 2
             order by i.size desc limit 1",
            [],
            |row| Ok((row.get(0)?, row.get::<_, String>(1)?.to_lowercase().into_bytes())),
        )
        .unwrap();
    drop(database);
    let id = String::from_utf8(id).unwrap();
    std::fs::remove_file(store.join(&id[..2]).join(&id)).unwrap();
    let server = Server::start(scratch.path(), &flist);
    let entry =
        crate::support::manifest("small").into_iter().find(|entry| entry.path.ends_with(&format!("/{path}"))).unwrap();
    let file = server.mnt.join(entry.path.trim_start_matches('/'));
    let mut file = std::fs::File::open(file).unwrap();
    let mut read = |offset: u64| {
        let mut buffer = [0xa5; 4096];
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.read(&mut buffer)
    };
    const BLOCK: u64 = 524_288;
    for offset in [0, BLOCK - 4096, 2 * BLOCK, 2 * BLOCK + 8192] {
        assert_eq!(read(offset).expect("an intact block"), 4096, "at {offset}");
    }
    for offset in [BLOCK, BLOCK + 4096, 2 * BLOCK - 4096] {
        let error = read(offset).expect_err("a missing block");
        assert_eq!(error.raw_os_error(), Some(Errno::EIO as i32), "at {offset}");
    }
    drop(file);
    assert!(server.status().failed_reads > 0);
    assert!(std::fs::read_to_string(server.dir.join("flistfs.log")).unwrap().contains("answering EIO"));
    server.stop();
}

#[test]
fn many_readers_at_once_all_read_the_same() {
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::start(scratch.path(), &fixture("small", scratch.path()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_matches_manifest(&server.mnt, "small"));
        }
    });
    assert_eq!(server.status().failed_reads, 0);
    server.stop();
}

#[test]
fn a_directory_of_five_thousand_entries_is_listed_whole() {
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    std::fs::create_dir_all(tree.join("many")).unwrap();
    for number in 0..5000 {
        std::fs::write(tree.join("many").join(format!("entry-{number:04}-{}", "x".repeat(number % 60))), b"").unwrap();
    }
    let store = scratch.path().join("store");
    let flist = scratch.path().join("many.fl");
    let url = format!("dir://{}", store.display());
    contd_flist::pack(&tree, &flist, &[url], &contd_flist::PackOptions::default(), &|_| {}).unwrap();
    let server = Server::start(scratch.path(), &flist);
    assert_eq!(crate::support::names(&server.mnt.join("many")), crate::support::names(&tree.join("many")));
    // With attributes, which goes by READDIRPLUS.
    let listed = Command::new("ls").arg("-ln").arg(server.mnt.join("many")).output().unwrap();
    assert_eq!(listed.stdout.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"-")).count(), 5000);
    server.stop();
}

#[test]
fn the_server_outlives_whoever_started_it_and_a_sigterm_ends_it_once_it_is_idle() {
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::prepare(scratch.path(), &fixture("small", scratch.path()));
    // A shell in a session of its own starts it and is killed with all of its session.
    let script = format!("{BINARY} --dir {} && echo started && kill -9 $$", server.dir.display());
    let output = Command::new("setsid").args(["sh", "-c", &script]).output().unwrap();
    assert_eq!(output.stdout, b"started\n", "{}", String::from_utf8_lossy(&output.stderr));
    let status = server.status();
    let process = Path::new("/proc").join(status.pid.to_string());
    assert!(std::fs::read_link(process.join("fd/1")).unwrap() == Path::new("/dev/null"));
    assert_eq!(std::fs::metadata(server.mnt.join("etc/hostname")).unwrap().nlink(), 1);
    let LeaseState::Held(lease) = LeaseDir::new(&server.dir).probe().unwrap() else { panic!("not held") };
    let pidfd = lease.pidfd().unwrap().unwrap();
    let held = std::fs::File::open(server.mnt.join("etc/hostname")).unwrap();
    contd_lease::signal(&pidfd, 15).unwrap();
    wait_until("it says so in its log", || {
        std::fs::read_to_string(server.dir.join("flistfs.log"))
            .unwrap()
            .contains("told to end, but the mount is in use")
    });
    assert_matches_manifest(&server.mnt, "small");
    drop(held);
    server.wait_for_end();
    assert!(!server.mnt.join("etc").exists(), "still mounted");
    LeaseDir::new(&server.dir).retire().unwrap();
}

#[test]
fn a_mount_in_use_refuses_the_shutdown_and_goes_on() {
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::start(scratch.path(), &fixture("small", scratch.path()));
    let held = std::fs::File::open(server.mnt.join("etc")).unwrap();
    let error = server.call(Request::Shutdown).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Busy);
    assert!(error.hint.is_some());
    drop(held);
    // As a lower of an overlay, which umount2 does not see.
    let overlay = scratch.path().join("overlay");
    for name in ["overlay", "upper", "work"] {
        std::fs::create_dir(scratch.path().join(name)).unwrap();
    }
    let options =
        format!("lowerdir={},upperdir={s}/upper,workdir={s}/work", server.mnt.display(), s = scratch.path().display());
    nix::mount::mount(Some("o"), &overlay, Some("overlay"), nix::mount::MsFlags::empty(), Some(options.as_str()))
        .unwrap();
    let error = server.call(Request::Shutdown).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Busy, "{error}");
    let sums = [&overlay, &server.mnt].map(|root| sha256(&[root.join("etc/hostname"), root.join("bin/sgid")]));
    contd_test_harness::mounted::unmount(&overlay);
    assert_eq!(sums[0], sums[1]);
    server.stop();
}

#[test]
fn sigterm_ends_server_and_keeper_once_nobody_uses_the_mount() {
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::start(scratch.path(), &fixture("small", scratch.path()));
    let overlay = scratch.path().join("overlay");
    std::fs::create_dir(&overlay).unwrap();
    let options = format!("lowerdir={}:{}", server.mnt.display(), overlay.display());
    nix::mount::mount(Some("o"), &overlay, Some("overlay"), nix::mount::MsFlags::empty(), Some(options.as_str()))
        .unwrap();
    let terminate = || {
        let both = crate::support::servers(&server.dir);
        assert_eq!(both.len(), 2, "{both:?}");
        for process in both {
            let pid = process.split(' ').next().unwrap().parse().unwrap();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
        }
    };
    terminate();
    let log = || std::fs::read_to_string(server.dir.join("flistfs.log")).unwrap_or_default();
    crate::support::wait_until("it says that it is in use", || log().contains("told to end, but the mount is in use"));
    assert_eq!(sha256(&[overlay.join("etc/hostname")]).len(), 1, "its user reads on");
    contd_test_harness::mounted::unmount(&overlay);
    server.wait_for_end();
    assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(server.mnt.to_str().unwrap()));
    contd_lease::LeaseDir::new(&server.dir).retire().unwrap();
}

#[test]
fn a_flist_from_the_network_may_not_route_to_folders() {
    let scratch = tempfile::tempdir().unwrap();
    let flist = fixture("small", scratch.path());
    let server = Server::prepare_from(scratch.path(), &flist, "https://hub.example/small.fl");
    let output = server.launch();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && stderr.contains("this flist may not read that folder"), "{stderr}");
    assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(server.mnt.to_str().unwrap()));
}

#[test]
fn a_start_that_fails_says_why_and_mounts_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let bad = scratch.path().join("bad.fl");
    std::fs::write(&bad, b"this is no database").unwrap();
    let server = Server::prepare(scratch.path(), &bad);
    let output = server.launch();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(65), "{stderr}");
    assert!(stderr.starts_with("error: open flist") && stderr.contains("hint: "), "{stderr}");
    assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(server.mnt.to_str().unwrap()));
    // A second start finds the lease taken by nobody and used up.
    let again = server.launch();
    assert!(!again.status.success());
    let missing = Server::prepare(scratch.path(), Path::new("/no/such.fl")).launch();
    assert_eq!(missing.status.code(), Some(66), "{}", String::from_utf8_lossy(&missing.stderr));
}

#[test]
fn garbage_oversize_frames_and_wrong_versions_on_the_socket_disturb_nobody() {
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::start(scratch.path(), &fixture("small", scratch.path()));
    let socket = server.dir.join("sock");
    for garbage in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[0xff; 64], &[0, 0, 0, 0, 0, 0, 1, 0], &[4, 0, 0, 0, 0, 0, 3, 0]] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
        stream.write_all(garbage).unwrap();
        let mut rest = Vec::new();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // Closed, by end or by reset; never hanging.
        match stream.read_to_end(&mut rest) {
            Ok(_) => assert!(rest.is_empty(), "{rest:?}"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
    let mut stream = UnixStream::connect(&socket).unwrap();
    let hello = Hello { versions: VersionRange { min: 900, max: 901 }, agent: "future".to_owned() };
    stream.write_all(&Frame::new(0, Kind::Hello, &hello).unwrap().to_bytes()).unwrap();
    let reply = frame(&mut stream, &mut FrameReader::new(MAX_CONTROL_BODY_BYTES));
    assert!(matches!(contd_protocol::decode(&reply.body).unwrap(), HelloReply::Refused(_)));
    assert_eq!(server.status().failed_reads, 0);
    server.stop();
}
