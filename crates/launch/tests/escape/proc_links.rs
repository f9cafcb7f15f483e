//! The links in `/proc` to a process's root and directories do not lead out of the container.

use crate::programs::programs;
use crate::run::Running;
use crate::scene::{SECRET, add_capability, on_both, without_seccomp};

#[test]
fn links_of_processes_lead_nowhere_outside() {
    on_both(|scene| {
        let canary = scene.outside().join("canary").display().to_string();
        let ways = ["/proc/1/root", "/proc/self/root", "/proc/1/cwd", "/proc/self/cwd", "/proc/1/root/../..", "/.."];
        let mut attempts: Vec<String> = ways.iter().map(|way| format!("read|{way}{canary}")).collect();
        attempts.push(format!("read|{canary}"));
        let attempts: Vec<&str> = attempts.iter().map(String::as_str).collect();
        for is_strong in [false, true] {
            let mut config = scene.config(&attempts);
            if is_strong {
                without_seccomp(&mut config);
                add_capability(&mut config, "CAP_SYS_PTRACE");
                add_capability(&mut config, "CAP_DAC_READ_SEARCH");
            }
            let outcome = scene.run(&config);
            for attempt in &attempts {
                outcome.assert_refused(attempt, &[crate::scene::ENOENT]);
            }
        }
    });
}

#[test]
fn a_container_sees_no_process_but_its_own() {
    on_both(|scene| {
        let own = std::process::id();
        let attempts = ["link|/proc/2/exe".to_owned(), format!("link|/proc/{own}/exe"), "list|/proc/1/root".to_owned()];
        let attempts: Vec<&str> = attempts.iter().map(String::as_str).collect();
        let outcome = scene.run(&scene.config(&attempts));
        outcome.assert_refused(attempts[0], &[crate::scene::ENOENT]);
        outcome.assert_refused(attempts[1], &[crate::scene::ENOENT]);
        assert!(outcome.assert_worked(attempts[2]).contains("attack"));
    });
}

#[test]
fn the_check_sees_a_canary_that_is_reached() {
    on_both(|scene| {
        let attempt = format!("read|/proc/self/root{}", scene.outside().join("canary").display());
        let mut on_the_host = std::process::Command::new(&programs().attack);
        on_the_host.arg(&attempt);
        assert_eq!(Running::start(on_the_host).outcome().assert_worked(&attempt), SECRET);
    });
}
