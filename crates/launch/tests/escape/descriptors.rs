//! Descriptors of the host's that the launcher's parent has left open (CVE-2024-21626).

use std::process::Command;

use serde_json::json;

use crate::programs::programs;
use crate::run::{Outcome, Running};
use crate::scene::{SECRET, Scene, on_both};

/// Starts a bundle with the host's directory open as 3 to 20, to be inherited.
fn run_with_open_directory(scene: &Scene, config: &serde_json::Value) -> Outcome {
    let launch = scene.command(std::path::Path::new(env!("CARGO_BIN_EXE_contd-launch")), config, "c");
    Running::start(with_open_directory(scene, &launch)).outcome()
}

fn with_open_directory(scene: &Scene, inner: &Command) -> Command {
    let opens: String = (3..=20).map(|number| format!(" {number}<\"$0\"")).collect();
    let mut command = Command::new("/bin/bash");
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(std::process::Stdio::null());
    command.arg("-c").arg(format!("exec{opens}; exec \"$@\"")).arg(scene.outside());
    command.arg(inner.get_program()).args(inner.get_args());
    command
}

#[test]
fn a_container_has_three_descriptors_whatever_was_open() {
    on_both(|scene| {
        let outcome = run_with_open_directory(scene, &scene.config(&["descriptors", "read|/proc/self/fd/3/canary"]));
        assert_eq!(outcome.assert_worked("descriptors"), "[0, 1, 2]");
        outcome.assert_refused("read|/proc/self/fd/3/canary", &[crate::scene::ENOENT]);
    });
}

#[test]
fn a_working_directory_that_is_a_descriptor_is_refused() {
    on_both(|scene| {
        for number in 3..=30 {
            let mut config = scene.config(&["read|canary"]);
            config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
            run_with_open_directory(scene, &config).assert_no_container("process.cwd");
        }
    });
}

#[test]
fn a_working_directory_that_the_image_links_to_a_descriptor_is_refused() {
    on_both(|scene| {
        for number in [3, 7, 8, 9, 20] {
            scene.link("link", format!("/proc/self/fd/{number}"));
            for cwd in ["/link", "/link/.."] {
                let mut config = scene.config(&["read|canary"]);
                config["process"]["cwd"] = json!(cwd);
                run_with_open_directory(scene, &config).assert_no_container("process.cwd");
            }
        }
    });
}

#[test]
fn a_program_below_a_descriptor_is_not_there() {
    on_both(|scene| {
        std::fs::copy(&programs().attack, scene.outside().join("dir/attack")).unwrap();
        for number in 3..=30 {
            let mut config = scene.config(&[]);
            config["process"]["args"] = json!([format!("/proc/self/fd/{number}/dir/attack"), "say|here"]);
            let outcome = run_with_open_directory(scene, &config);
            assert_eq!(outcome.code, 127, "{number}: {outcome:?}");
        }
        std::fs::remove_file(scene.outside().join("dir/attack")).unwrap();
    });
}

#[test]
fn the_check_sees_a_descriptor_that_is_inherited() {
    on_both(|scene| {
        let mut attack = Command::new(&programs().attack);
        attack.args(["descriptors", "read|/proc/self/fd/3/canary"]);
        let outcome = Running::start(with_open_directory(scene, &attack)).outcome();
        assert!(outcome.assert_worked("descriptors").starts_with("[0, 1, 2, 3, 4, 5, 6"), "{outcome:?}");
        assert_eq!(outcome.assert_worked("read|/proc/self/fd/3/canary"), SECRET);
    });
}

/// Many containers have the host's `/dev/null` as their input.
#[test]
fn an_image_that_brings_a_dev_null_does_not_get_the_hosts() {
    use std::os::unix::fs::MetadataExt;
    on_both(|scene| {
        let owner = || std::fs::metadata("/dev/null").unwrap().uid();
        let before = owner();
        std::fs::create_dir(scene.root().join("dev")).unwrap();
        std::fs::write(scene.root().join("dev/null"), "").unwrap();
        let mut config = scene.config(&["say|here"]);
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        config["linux"]["maskedPaths"] = json!([]);
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        let outcome = scene.run(&config);
        let after = owner();
        std::os::unix::fs::chown("/dev/null", Some(before), None).unwrap();
        outcome.assert_worked("say|here");
        assert_eq!(after, before, "the host's /dev/null was given to the container's user");
    });
}
