//! The server: runs one container or makes one slot for each line of input, and answers with one line.

use std::io::{BufRead, Read, Write, pipe};
use std::path::Path;
use std::time::Instant;

use super::bundle::Bundle;
use super::cgroups::Cgroups;
use super::{init, sys};

/// A child process that waits in its cgroups and namespaces.
struct Slot {
    pid: i32,
    cgroups: Cgroups,
    go: std::io::PipeWriter,
    executed: std::io::PipeReader,
}

/// Serves until the end of its input.
pub(crate) fn serve(dir: &Path) {
    let bundle = Bundle::read(dir);
    Cgroups::make_parents(&bundle);
    let mut slot = None;
    for line in std::io::stdin().lock().lines() {
        let answer = match line.expect("read a command").as_str() {
            "prepare" => {
                slot = Some(make(&bundle));
                "ready".to_owned()
            }
            "warm" => run(&bundle, slot.take().expect("a slot"), Instant::now()),
            "cold" => {
                let begin = Instant::now();
                run(&bundle, make(&bundle), begin)
            }
            other => panic!("the floor does not know {other:?}"),
        };
        println!("{answer}");
        std::io::stdout().flush().expect("answer");
    }
    if let Some(slot) = slot {
        drop(slot.go);
        sys::reap(slot.pid);
        slot.cgroups.remove();
    }
    Cgroups::remove_parents(&bundle);
}

/// Makes the cgroups and a child process in them.
fn make(bundle: &Bundle) -> Slot {
    let cgroups = Cgroups::make(bundle);
    let ((wait, go), (executed, hold)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
    let pid = sys::clone3(sys::NEW_NAMESPACES);
    if pid == 0 {
        // Close the parent's ends here: a child that holds them would never see them close.
        drop((go, executed));
        sys::end_on_panic();
        init::run(bundle, &cgroups, wait, &hold);
    }
    Slot { pid, cgroups, go, executed }
}

/// Tells the child of a slot to go; returns the nanoseconds since `begin` until it was executed, and until it was
/// removed.
fn run(bundle: &Bundle, slot: Slot, begin: Instant) -> String {
    let Slot { pid, cgroups, mut go, mut executed } = slot;
    cgroups.limit(bundle);
    go.write_all(b"g").expect("say go");
    // The exec closes the pipe; a child that fails writes to standard error and exits with a code.
    let read = executed.read(&mut [0]).expect("wait for the exec");
    assert_eq!(read, 0, "the pipe is only ever closed");
    let started = begin.elapsed();
    let status = sys::reap(pid);
    cgroups.remove();
    let removed = begin.elapsed();
    assert_eq!(status, 0, "the container of the floor failed");
    format!("{} {}", started.as_nanos(), removed.as_nanos())
}
