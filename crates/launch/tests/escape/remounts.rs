//! Read-only and masked paths stay so from the inside.

use serde_json::json;

use crate::scene::{EINVAL, EPERM, EROFS, Scene, add_capability, on_both, without_seccomp};

const PLACES: [&str; 5] = ["/proc/sys", "/proc/bus", "/sys", "/sys/fs/cgroup", "/proc/interrupts"];

/// Returns each way to change each path.
fn attempts() -> Vec<String> {
    let ways = ["remount", "set-attributes", "unmount", "open-tree"];
    let mut attempts: Vec<String> = PLACES.iter().flat_map(|place| ways.map(|way| format!("{way}|{place}"))).collect();
    for place in ["/proc", "/sys/firmware"] {
        attempts.push(format!("unmount|{place}"));
    }
    attempts.push("mount|proc|/work|".to_owned());
    attempts.push("mount|sysfs|/work|".to_owned());
    attempts.push("mount|tmpfs|/proc/sys|".to_owned());
    attempts.push("bind|/proc|/work".to_owned());
    attempts
}

#[track_caller]
fn assert_all_refused(scene: &Scene, prefix: &str, has_filter: bool, errors: &[i32]) {
    let attempts: Vec<String> = attempts().iter().map(|attempt| format!("{prefix}{attempt}")).collect();
    let attempts: Vec<&str> = attempts.iter().map(String::as_str).collect();
    let mut config = scene.config(&attempts);
    if !has_filter {
        without_seccomp(&mut config);
    }
    let outcome = scene.run(&config);
    for attempt in &attempts {
        outcome.assert_refused(attempt, errors);
    }
}

#[test]
fn a_container_cannot_remount_or_unmount() {
    on_both(|scene| assert_all_refused(scene, "", true, &[EPERM]));
}

#[test]
fn a_container_cannot_remount_or_unmount_without_the_filter_either() {
    on_both(|scene| assert_all_refused(scene, "", false, &[EPERM]));
}

/// In a user namespace a process has every capability, but inherited mounts are locked.
#[test]
fn a_user_namespace_cannot_unmask_either() {
    on_both(|scene| {
        let attempts = [
            ("remount|/proc/sys", EPERM),
            ("set-attributes|/proc/sys", EPERM),
            ("remount|/sys", EPERM),
            ("unmount|/proc/sys", EINVAL),
            ("unmount|/proc/interrupts", EINVAL),
            ("unmount|/proc", EINVAL),
            ("mount|proc|/work|", EPERM),
            ("mount|sysfs|/work|", EPERM),
            // Without the mounts on it, it would be bare.
            ("bind|/proc|/work", EINVAL),
        ];
        let words: Vec<String> = attempts.iter().map(|(attempt, _)| format!("in-user-namespace|{attempt}")).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut config = scene.config(&words);
        without_seccomp(&mut config);
        let outcome = scene.run(&config);
        for (attempt, (_, errno)) in words.iter().zip(attempts) {
            outcome.assert_refused(attempt, &[errno]);
        }
    });
}

#[test]
fn what_is_read_only_cannot_be_written() {
    on_both(|scene| {
        let files = [
            "write|/proc/sys/kernel/core_pattern|x",
            "write|/proc/sys/kernel/hostname|x",
            "write|/proc/sys/kernel/panic|0",
            "create|/sys/file",
        ];
        for is_strong in [false, true] {
            let mut config = scene.config(&files);
            if is_strong {
                without_seccomp(&mut config);
                add_capability(&mut config, "CAP_SYS_ADMIN");
            }
            let outcome = scene.run(&config);
            files.iter().for_each(|file| outcome.assert_refused(file, &[EROFS, EPERM]));
            outcome.assert_refused("write|/proc/sys/kernel/core_pattern|x", &[EROFS]);
        }
    });
}

#[test]
fn a_read_only_root_stays_so() {
    on_both(|scene| {
        for has_filter in [true, false] {
            let mut config = scene.config(&["create|/file", "remount|/", "set-attributes|/", "create|/file2"]);
            config["root"]["readonly"] = json!(true);
            if !has_filter {
                without_seccomp(&mut config);
            }
            let outcome = scene.run(&config);
            outcome.assert_refused("create|/file", &[EROFS]);
            outcome.assert_refused("remount|/", &[EPERM]);
            outcome.assert_refused("set-attributes|/", &[EPERM]);
            outcome.assert_refused("create|/file2", &[EROFS]);
        }
    });
}

#[test]
fn the_check_sees_a_mask_that_was_taken_off() {
    on_both(|scene| {
        let attempts = [
            "unmount|/proc/interrupts",
            "read|/proc/interrupts",
            "remount|/proc/sys",
            "set-attributes|/sys",
            "mount|proc|/work|",
        ];
        let mut config = scene.config(&attempts);
        without_seccomp(&mut config);
        add_capability(&mut config, "CAP_SYS_ADMIN");
        let outcome = scene.run(&config);
        for attempt in attempts {
            outcome.assert_worked(attempt);
        }
        assert_ne!(outcome.assert_worked("read|/proc/interrupts"), "");
    });
}
