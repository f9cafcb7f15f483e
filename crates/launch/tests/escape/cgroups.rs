//! A container can only read its own cgroup.

use std::fs;
use std::path::Path;

use crate::scene::{EACCES, ENOENT, EPERM, EROFS, Scene, add_capability, on_both, without_seccomp};

/// The files by which a container could escape its limits, or run a program on the host.
const FILES: [&str; 6] =
    ["cgroup.procs", "tasks", "release_agent", "notify_on_release", "devices.allow", "memory.limit_in_bytes"];

/// Lists the cgroup directories that a container sees.
fn dirs() -> Vec<String> {
    let top = Path::new("/sys/fs/cgroup");
    let mut dirs = vec![top.display().to_string()];
    for entry in fs::read_dir(top).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        dirs.push(entry.path().display().to_string());
    }
    dirs
}

fn attempts() -> Vec<String> {
    let write = |dir: String| FILES.map(|file| format!("write|{dir}/{file}|0"));
    let mut attempts: Vec<String> = dirs().into_iter().flat_map(write).collect();
    attempts.push("create|/sys/fs/cgroup/file".to_owned());
    attempts
}

/// Asserts that no file could be written, and that there were files to write.
#[track_caller]
fn assert_read_only(scene: &Scene, change: impl Fn(&mut serde_json::Value)) {
    let attempts = attempts();
    let attempts: Vec<&str> = attempts.iter().map(String::as_str).collect();
    let mut config = scene.config(&attempts);
    change(&mut config);
    let outcome = scene.run(&config);
    for attempt in &attempts {
        outcome.assert_refused(attempt, &[EROFS, EPERM, EACCES, ENOENT]);
    }
    let is_there = attempts.iter().filter(|attempt| outcome.of(attempt) == format!("errno {EROFS}")).count();
    assert!(is_there >= 4, "hardly anything was there: {outcome:?}");
}

#[test]
fn a_container_cannot_write_its_cgroup() {
    on_both(|scene| assert_read_only(scene, |_| {}));
}

#[test]
fn a_container_with_the_right_to_mount_cannot_write_its_cgroup_as_it_is() {
    on_both(|scene| {
        assert_read_only(scene, |config| {
            without_seccomp(config);
            add_capability(config, "CAP_SYS_ADMIN");
            add_capability(config, "CAP_DAC_READ_SEARCH");
        });
    });
}

#[test]
fn a_container_cannot_mount_a_cgroup_hierarchy() {
    on_both(|scene| {
        let attempts =
            ["mount|cgroup|/work|devices", "mount|cgroup2|/work|", "in-user-namespace|mount|cgroup|/work|devices"];
        let mut config = scene.config(&attempts);
        without_seccomp(&mut config);
        let outcome = scene.run(&config);
        for attempt in attempts {
            outcome.assert_refused(attempt, &[EPERM]);
        }
    });
}

#[test]
fn the_check_sees_a_cgroup_that_can_be_written() {
    on_both(|scene| {
        let dir = dirs().into_iter().find(|dir| dir.ends_with("/pids")).unwrap_or_else(|| "/sys/fs/cgroup".to_owned());
        let attempts = [format!("remount|{dir}"), format!("write|{dir}/cgroup.procs|0")];
        let attempts: Vec<&str> = attempts.iter().map(String::as_str).collect();
        let mut config = scene.config(&attempts);
        without_seccomp(&mut config);
        add_capability(&mut config, "CAP_SYS_ADMIN");
        let outcome = scene.run(&config);
        for attempt in &attempts {
            outcome.assert_worked(attempt);
        }
    });
}
