//! Starting, finding and cleaning up by what is in the run directory: real processes and files, a shim of shell.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};

use crate::common::{Scratch, id, namespace, task};
use contd_lease::ProcessIdentity;
use contd_protocol::shim::{InitRecord, TaskSpec, files};
use contd_shim_client::{Attached, ProcessShimClient, ShimClient, ShimClientConfig, ShimError};
use contd_types::{Exit, Explain, Pid, Timestamp};

struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().expect("sleep"))
    }

    fn record(&self) -> InitRecord {
        let pid = i32::try_from(self.0.id()).expect("pid");
        let identity = ProcessIdentity::of(pid).expect("look up").expect("alive");
        InitRecord { pid: Pid(pid), start_ticks: identity.start_ticks, is_started: true }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _already_dead = self.0.kill();
        self.0.wait().expect("reap");
    }
}

fn put(scratch: &Scratch, number: u8, name: &str, value: &impl serde::Serialize) {
    let path = scratch.client.dir_of(&id(number)).join(name);
    std::fs::write(path, serde_json::to_vec(value).expect("json")).expect("write");
}

async fn find(scratch: &Scratch, number: u8) -> Attached {
    scratch.client.attach(&namespace(), &id(number)).await.expect("attach")
}

#[tokio::test]
async fn nothing_is_absent_and_cleaning_it_up_is_fine() {
    let scratch = Scratch::new();
    assert!(matches!(find(&scratch, 1).await, Attached::Absent));
    scratch.client.clean_up(&namespace(), &id(1)).await.expect("nothing to do");
    assert_eq!(scratch.client.list().await.expect("list"), []);
}

#[tokio::test]
async fn a_dead_shim_tells_the_exit_it_wrote_down() {
    let scratch = Scratch::new();
    drop(scratch.hold(1));
    assert!(matches!(find(&scratch, 1).await, Attached::Dead { exit: None }));
    let exit = Exit::unknown("test", Timestamp(5));
    put(&scratch, 1, files::EXIT, &exit);
    let Attached::Dead { exit: Some(found) } = find(&scratch, 1).await else { panic!("no exit") };
    assert_eq!(found, exit);
    put(&scratch, 1, files::EXIT, &"no exit at all");
    assert!(matches!(find(&scratch, 1).await, Attached::Dead { exit: None }));
}

#[tokio::test]
async fn an_orphan_is_seen_and_ended_but_never_another_process_with_its_pid() {
    let scratch = Scratch::new();
    drop(scratch.hold(1));
    let mut orphan = Sleeper::start();
    let record = orphan.record();
    put(&scratch, 1, files::TASK, &task(1, scratch.dir.path()));
    put(&scratch, 1, files::INIT, &InitRecord { start_ticks: record.start_ticks - 1, ..record });
    scratch.client.clean_up(&namespace(), &id(1)).await.expect("clean up");
    assert!(orphan.0.try_wait().expect("wait").is_none(), "another process was ended");
    drop(scratch.hold(1));
    put(&scratch, 1, files::TASK, &task(1, scratch.dir.path()));
    put(&scratch, 1, files::INIT, &record);
    // There is no program for a successor here.
    let found = scratch.client.attach(&namespace(), &id(1)).await;
    assert!(matches!(found, Err(ShimError::Spawn { .. })), "{found:?}");
    assert!(orphan.0.try_wait().expect("wait").is_none(), "a successor that cannot be started ends nothing");
    scratch.client.clean_up(&namespace(), &id(1)).await.expect("clean up");
    let status = orphan.0.try_wait().expect("wait").expect("the orphan is dead");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    assert!(matches!(find(&scratch, 1).await, Attached::Absent));
    scratch.client.clean_up(&namespace(), &id(1)).await.expect("again");
    assert!(scratch.shims_in().is_empty());
}

#[tokio::test]
async fn nothing_is_cleaned_up_behind_a_living_shim() {
    let scratch = Scratch::new();
    let _held = scratch.hold(1);
    let mut init = Sleeper::start();
    put(&scratch, 1, files::INIT, &init.record());
    let refused = scratch.client.clean_up(&namespace(), &id(1)).await;
    assert!(matches!(refused, Err(ShimError::StillAlive { .. })), "{refused:?}");
    assert!(init.0.try_wait().expect("wait").is_none(), "its container was ended");
    assert_eq!(scratch.shims_in().len(), 1);
}

#[tokio::test]
async fn a_runtime_that_keeps_the_container_stops_the_clean_up_until_it_lets_go() {
    let scratch = Scratch::new();
    drop(scratch.hold(1));
    let state_dir = scratch.dir.path().join("runtime").join(id(1).as_str());
    std::fs::create_dir_all(&state_dir).expect("mkdir");
    let mut stubborn = task(1, scratch.dir.path());
    let contd_protocol::shim::RuntimeSpec::Oci { binary, .. } = &mut stubborn.runtime else {
        panic!("not an OCI runtime")
    };
    *binary = "/bin/false".into();
    put(&scratch, 1, files::TASK, &stubborn);
    let kept = scratch.client.clean_up(&namespace(), &id(1)).await;
    assert!(matches!(&kept, Err(ShimError::CleanUp { path, .. }) if *path == state_dir), "{kept:?}");
    assert_eq!(scratch.shims_in().len(), 1, "the task file says where the rest is");
    std::fs::remove_dir(&state_dir).expect("rmdir");
    scratch.client.clean_up(&namespace(), &id(1)).await.expect("it does not know the container any more");
    assert!(scratch.shims_in().is_empty());
}

#[tokio::test]
async fn the_list_has_every_lease_and_skips_what_is_none() {
    let scratch = Scratch::new();
    let _held = scratch.hold(1);
    drop(scratch.hold(2));
    scratch.lease(3).reserve(&format!("t/{}", id(3)), std::path::Path::new("/x")).expect("reserve");
    scratch.lease(4).reserve("no container", std::path::Path::new("/x")).expect("reserve");
    scratch.lease(5).reserve(&format!("t/{}", id(6)), std::path::Path::new("/x")).expect("reserve");
    let shims = scratch.dir.path().join("run/s");
    std::fs::create_dir(shims.join("half-removed")).expect("mkdir");
    std::fs::create_dir(shims.join("garbage")).expect("mkdir");
    std::fs::write(shims.join("garbage/lease.json"), b"{").expect("write");
    let found = scratch.client.list().await.expect("list");
    let found: Vec<_> = found.into_iter().map(|shim| (shim.id, shim.is_alive)).collect();
    assert_eq!(found, [(id(1), true), (id(2), false), (id(3), false)]);
    assert!(!shims.join("half-removed").exists(), "what an interrupted removal left is swept");
    assert!(shims.join("garbage").exists(), "what is not understood is not touched");
}

async fn failed_spawn(scratch: &Scratch) -> ShimError {
    let failure = scratch.client.spawn(task(1, scratch.dir.path())).await.expect_err("no shim");
    assert!(scratch.shims_in().is_empty(), "left behind: {:?}", scratch.shims_in());
    failure
}

#[tokio::test]
async fn a_shim_that_cannot_be_run_leaves_nothing() {
    let failure = failed_spawn(&Scratch::new()).await;
    assert!(matches!(failure, ShimError::Spawn { .. }), "{failure:?}");
}

#[tokio::test]
async fn a_shim_that_ends_early_is_quoted_and_leaves_nothing() {
    let failure = failed_spawn(&Scratch::with_script("echo no luck today >&2; exit 3")).await;
    let ShimError::EndedEarly { status, stderr, .. } = failure else { panic!("{failure:?}") };
    assert_eq!((status.as_str(), stderr.as_str()), ("exit status: 3", "no luck today"));
}

#[tokio::test]
async fn a_shim_that_talks_without_end_is_quoted_in_part() {
    let failure = failed_spawn(&Scratch::with_script("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1")).await;
    let ShimError::EndedEarly { stderr, .. } = failure else { panic!("{failure:?}") };
    assert_eq!(stderr.len(), 4096);
}

#[tokio::test]
async fn a_shim_gets_its_directory_and_no_environment_but_path() {
    let scratch = Scratch::with_script("echo \"$0|$*|$(pwd)\" >&2; tr '\\0' ' ' </proc/self/environ >&2; exit 1");
    let failure = failed_spawn(&scratch).await;
    let ShimError::EndedEarly { stderr, .. } = failure else { panic!("{failure:?}") };
    let (line, environment) = stderr.split_once('\n').expect("two lines");
    assert!(line.ends_with(&format!("|--dir {}|/", scratch.client.dir_of(&id(1)).display())), "{line}");
    let names: Vec<_> = environment.split_whitespace().filter_map(|entry| entry.split('=').next()).collect();
    assert!(names.contains(&"PATH"), "{names:?}");
    assert!(names.iter().all(|name| ["PATH", "PWD", "_", "SHLVL", "OLDPWD"].contains(name)), "{names:?}");
}

#[tokio::test]
async fn a_shim_that_says_it_is_ready_and_is_not_leaves_nothing() {
    let failure = failed_spawn(&Scratch::with_script("exit 0")).await;
    assert!(matches!(failure, ShimError::Connect { .. }), "{failure:?}");
}

#[tokio::test]
async fn a_launcher_that_hangs_is_ended() {
    let scratch = Scratch::with_script("echo $$ > $0.pid; exec sleep 1000");
    let failure = failed_spawn(&scratch).await;
    assert!(
        matches!(&failure, ShimError::Spawn { source, .. } if source.kind() == std::io::ErrorKind::TimedOut),
        "{failure:?}"
    );
    let pid = std::fs::read_to_string(scratch.dir.path().join("shim.sh.pid")).expect("pid");
    assert_eq!(ProcessIdentity::of(pid.trim().parse().expect("pid")).expect("look up"), None);
}

#[tokio::test]
async fn a_successor_that_does_not_come_up_leaves_what_its_forerunner_wrote() {
    let scratch = Scratch::with_script("exit 1");
    drop(scratch.hold(1));
    put(&scratch, 1, files::EXIT, &Exit::unknown("test", Timestamp(5)));
    scratch.client.spawn(task(1, scratch.dir.path())).await.expect_err("no shim");
    assert!(matches!(find(&scratch, 1).await, Attached::Dead { exit: Some(_), .. }));
}

#[tokio::test]
async fn the_task_and_the_lease_are_there_before_the_process() {
    let scratch = Scratch::with_script("cp -r \"$2\" \"$0.seen\"; stat -c %a \"$2\" \"$2/..\" > \"$0.modes\"; exit 1");
    failed_spawn(&scratch).await;
    let seen = scratch.dir.path().join("shim.sh.seen");
    let found: TaskSpec = serde_json::from_slice(&std::fs::read(seen.join(files::TASK)).expect("task")).expect("json");
    assert_eq!(found, task(1, scratch.dir.path()));
    assert!(seen.join("lease.json").exists());
    assert_eq!(std::fs::metadata(seen.join(files::TASK)).expect("stat").permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_to_string(scratch.dir.path().join("shim.sh.modes")).expect("modes"), "700\n711\n");
}

#[tokio::test]
async fn a_run_directory_that_is_too_long_is_refused_before_anything_is_made() {
    let scratch = Scratch::new();
    let run_dir = scratch.dir.path().join("x".repeat(100));
    let client = ProcessShimClient::new(ShimClientConfig { shim_binary: "/bin/true".into(), run_dir: run_dir.clone() });
    let failure = client.spawn(task(1, scratch.dir.path())).await.expect_err("too long");
    assert!(matches!(failure, ShimError::PathTooLong { limit: 107, .. }), "{failure:?}");
    assert_eq!(failure.hint().as_deref(), Some("use a shorter run directory"));
    assert!(!run_dir.exists());
}
