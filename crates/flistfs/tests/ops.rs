//! Requests to answers without a mount: what the kernel rarely or never sends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;

use contd_flist::{BlockCache, Content, Flist, ROOT_INO, RoutePolicy, Routes};
use contd_flistfs::ops::{Answer, Ops};
use contd_flistfs::wire::{Init, Operation, Read, Request};
use nix::errno::Errno;

fn small(scratch: &std::path::Path) -> (Ops, Arc<Flist>) {
    let flist = Arc::new(Flist::open(&crate::support::fixture("small", scratch)).unwrap());
    let routes = Routes::connect(flist.routes(), &RoutePolicy::default()).unwrap();
    let cache = Arc::new(BlockCache::open(&scratch.join("cache")).unwrap());
    (Ops::new(Content::new(Arc::clone(&flist), routes, cache)), flist)
}

fn ask(ops: &Ops, node: u64, operation: Operation<'_>) -> Answer {
    ops.answer(&Request { unique: 1, node, operation }, &mut Vec::new())
}

/// Takes the names and the next cookies out of a plain listing.
fn entries(body: &[u8]) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let cookie = u64::from_ne_bytes(rest[8..16].try_into().unwrap());
        let len = u32::from_ne_bytes(rest[16..20].try_into().unwrap()) as usize;
        found.push((String::from_utf8_lossy(&rest[24..24 + len]).into_owned(), cookie));
        rest = &rest[(24 + len).next_multiple_of(8)..];
    }
    found
}

#[test]
fn a_listing_in_small_pieces_has_every_name_once() {
    let scratch = tempfile::tempdir().unwrap();
    let (ops, flist) = small(scratch.path());
    let (mut names, mut offset) = (Vec::new(), 0);
    loop {
        let Answer::Body(body) = ask(&ops, ROOT_INO, Operation::Readdir(Read { offset, size: 288 })) else { panic!() };
        assert!(body.len() <= 288);
        let piece = entries(&body);
        let Some((_, cookie)) = piece.last() else { break };
        offset = *cookie;
        names.extend(piece.into_iter().map(|(name, _)| name));
    }
    let mut wanted = vec![".".to_owned(), "..".to_owned()];
    let children = flist.children(ROOT_INO);
    wanted.extend(children.iter().map(|child| String::from_utf8_lossy(child.name()).into_owned()));
    assert_eq!(names, wanted);
    let past_the_end = Operation::Readdirplus(Read { offset: u64::MAX, size: 4096 });
    assert_eq!(ask(&ops, ROOT_INO, past_the_end), Answer::Body(Vec::new()));
}

#[test]
fn requests_that_make_no_sense_are_errors_and_changes_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let (ops, flist) = small(scratch.path());
    let file = flist.resolve(b"etc/hostname").unwrap().ino();
    let read = Read { offset: 0, size: 4096 };
    for (node, operation, errno) in [
        (ROOT_INO, Operation::Read(read), Errno::EISDIR),
        (ROOT_INO, Operation::Open, Errno::EISDIR),
        (ROOT_INO, Operation::Readlink, Errno::EINVAL),
        (ROOT_INO, Operation::Readdir(Read { offset: 0, size: 16 }), Errno::EINVAL),
        (file, Operation::Opendir, Errno::ENOTDIR),
        (ROOT_INO, Operation::Lookup { name: &[b'x'; 256] }, Errno::ENAMETOOLONG),
        (file, Operation::Ioctl, Errno::ENOTTY),
        (file, Operation::Readdir(read), Errno::ENOTDIR),
        (file, Operation::Lookup { name: b"x" }, Errno::ENOTDIR),
        (0, Operation::Getattr, Errno::ESTALE),
        (u64::MAX, Operation::Read(read), Errno::ESTALE),
        (file, Operation::Change, Errno::EROFS),
        (file, Operation::Unknown(22), Errno::ENOSYS),
        (0, Operation::Init(Init { major: 7, minor: 30, max_readahead: 0, flags: 0 }), Errno::EPROTO),
        (0, Operation::Init(Init { major: 8, minor: 0, max_readahead: 0, flags: 0 }), Errno::EPROTO),
    ] {
        assert_eq!(ask(&ops, node, operation.clone()), Answer::Error(errno), "{operation:?}");
    }
    assert_eq!(ask(&ops, file, Operation::Forget), Answer::None);
}

#[test]
fn a_read_ends_exactly_at_the_end_of_the_file() {
    let scratch = tempfile::tempdir().unwrap();
    let (ops, flist) = small(scratch.path());
    let file = flist.resolve(b"etc/hostname").unwrap();
    for (offset, wanted) in [(0, file.size()), (file.size() - 1, 1), (file.size(), 0), (u64::MAX, 0)] {
        let answer = ask(&ops, file.ino(), Operation::Read(Read { offset, size: u32::MAX }));
        assert_eq!(answer, Answer::Content(usize::try_from(wanted).unwrap()), "at {offset}");
    }
    assert_eq!(ops.failed_reads(), 0);
}
