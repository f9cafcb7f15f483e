//! A container cannot enter the host's namespaces, nor new ones where it would have every right.

use crate::scene::{EINVAL, ENOSYS, EPERM, add_capability, on_both, without_seccomp};

const NEW_USER: &str = "268435456";
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

#[test]
fn a_container_can_name_no_namespace_of_the_hosts() {
    on_both(|scene| {
        let kinds: Vec<&str> = NAMESPACES.into_iter().filter(|kind| *kind != "user").collect();
        let attempts: Vec<String> = kinds
            .iter()
            .flat_map(|kind| [format!("link|/proc/1/ns/{kind}"), format!("link|/proc/self/ns/{kind}")])
            .collect();
        let attempts: Vec<&str> = attempts.iter().map(String::as_str).collect();
        let outcome = scene.run(&scene.config(&attempts));
        for (kind, pair) in kinds.iter().zip(attempts.chunks(2)) {
            let host = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
            for attempt in pair {
                assert_ne!(outcome.assert_worked(attempt), host, "{attempt}");
            }
        }
    });
}

#[test]
fn a_container_cannot_enter_a_namespace() {
    on_both(|scene| {
        let attempts: Vec<String> = NAMESPACES.iter().map(|kind| format!("setns|/proc/1/ns/{kind}")).collect();
        let attempts: Vec<&str> = attempts.iter().map(String::as_str).collect();
        for has_filter in [true, false] {
            let mut config = scene.config(&attempts);
            if !has_filter {
                without_seccomp(&mut config);
            }
            let outcome = scene.run(&config);
            for attempt in &attempts {
                // The kernel refuses to enter a process's own user namespace again.
                outcome.assert_refused(attempt, if has_filter { &[EPERM] } else { &[EPERM, EINVAL] });
            }
        }
    });
}

#[test]
fn a_container_can_make_no_user_namespace() {
    on_both(|scene| {
        let attempts = [format!("unshare|{NEW_USER}"), format!("clone|{NEW_USER}"), format!("clone3|{NEW_USER}")];
        let attempts: Vec<&str> = attempts.iter().map(String::as_str).collect();
        let outcome = scene.run(&scene.config(&attempts));
        outcome.assert_refused(attempts[0], &[EPERM]);
        outcome.assert_refused(attempts[1], &[EPERM]);
        // A filter cannot examine clone3's arguments, so the call gets ENOSYS.
        outcome.assert_refused(attempts[2], &[ENOSYS]);
    });
}

#[test]
fn the_check_sees_a_user_namespace_that_was_made() {
    on_both(|scene| {
        let attempts = [format!("unshare|{NEW_USER}"), format!("clone|{NEW_USER}"), format!("clone3|{NEW_USER}")];
        let attempts: Vec<&str> = attempts.iter().map(String::as_str).collect();
        let mut config = scene.config(&attempts);
        without_seccomp(&mut config);
        let outcome = scene.run(&config);
        for attempt in &attempts {
            outcome.assert_worked(attempt);
        }
    });
}

#[test]
fn other_namespaces_want_a_right_that_a_container_lacks() {
    on_both(|scene| {
        // The flags of mount, cgroup, UTS, IPC, PID, network.
        let flags = ["131072", "33554432", "67108864", "134217728", "536870912", "1073741824"];
        let attempts: Vec<String> = flags.iter().map(|flag| format!("unshare|{flag}")).collect();
        let attempts: Vec<&str> = attempts.iter().map(String::as_str).collect();
        let mut config = scene.config(&attempts);
        without_seccomp(&mut config);
        let outcome = scene.run(&config);
        attempts.iter().for_each(|attempt| outcome.assert_refused(attempt, &[EPERM]));
        add_capability(&mut config, "CAP_SYS_ADMIN");
        let outcome = scene.run(&config);
        for attempt in &attempts {
            outcome.assert_worked(attempt);
        }
    });
}
