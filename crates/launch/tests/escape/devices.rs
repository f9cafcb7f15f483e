//! The host's block devices: a node may be made where that is allowed, but cannot be opened.

use std::fs;

use serde_json::{Value, json};

use crate::scene::{EPERM, Scene, on_both, without_seccomp};

/// Returns the numbers of a block device that the host can open: with any other the check could not fail.
fn block_device() -> (u64, u64) {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let devices = fs::read_dir("/dev").unwrap().flatten();
    let mut blocks = devices.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_block_device()));
    let open = blocks.find(|entry| fs::File::open(entry.path()).is_ok()).unwrap();
    let device = fs::metadata(open.path()).unwrap().rdev();
    (nix::sys::stat::major(device), nix::sys::stat::minor(device))
}

fn allow(config: &mut Value, access: &str) {
    let (major, minor) = block_device();
    let rules = config["linux"]["resources"]["devices"].as_array_mut().unwrap();
    rules.push(json!({"allow": true, "type": "b", "major": major, "minor": minor, "access": access}));
}

/// Returns the attempts: make a node, look at it, read the device.
fn attempts() -> [String; 3] {
    let (major, minor) = block_device();
    [format!("node|/tmp/disk|{major}|{minor}"), "kind|/tmp/disk".to_owned(), "read|/tmp/disk".to_owned()]
}

fn config(scene: &Scene) -> Value {
    let attempts = attempts();
    let attempts: Vec<&str> = attempts.iter().map(String::as_str).collect();
    let mut config = scene.config(&attempts);
    without_seccomp(&mut config);
    config
}

#[test]
fn a_node_of_a_block_device_opens_nothing() {
    on_both(|scene| {
        let outcome = scene.run(&config(scene));
        // As with runc: a container with CAP_MKNOD may make it.
        outcome.assert_worked(&attempts()[0]);
        outcome.assert_refused(&attempts()[2], &[EPERM]);
    });
}

#[test]
fn a_node_that_the_image_brings_cannot_be_opened() {
    on_both(|scene| {
        let (major, minor) = block_device();
        let device = nix::sys::stat::makedev(major, minor);
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
        nix::sys::stat::mknod(&scene.root().join("tmp/disk"), nix::sys::stat::SFlag::S_IFBLK, mode, device).unwrap();
        let outcome = scene.run(&scene.config(&["read|/tmp/disk", "write|/tmp/disk|"]));
        outcome.assert_refused("read|/tmp/disk", &[EPERM]);
        outcome.assert_refused("write|/tmp/disk|", &[EPERM]);
    });
}

/// The kernel's cgroup v1 takes a rule that begins with `a` as one about everything, whatever follows it.
#[test]
fn a_rule_for_both_kinds_of_devices_with_numbers_is_about_those_alone() {
    on_both(|scene| {
        for rule in [
            json!({"allow": true, "type": "a", "major": 1, "minor": 11, "access": "rwm"}),
            json!({"allow": true, "major": 1, "access": "r"}),
            json!({"allow": true, "type": "a", "access": "m"}),
        ] {
            let mut config = config(scene);
            config["linux"]["resources"]["devices"].as_array_mut().unwrap().push(rule.clone());
            let outcome = scene.run(&config);
            outcome.assert_refused(&attempts()[2], &[EPERM]);
            fs::remove_file(scene.root().join("tmp/disk")).unwrap();
        }
    });
}

/// The kernel's cgroup v1 ignores a denial that does not have exactly the numbers of an allowed entry.
#[test]
fn a_device_that_is_taken_back_is_not_there_or_the_bundle_is_refused() {
    on_both(|scene| {
        let (major, minor) = block_device();
        for (allowed, denied) in
            [((Some(major), Some(minor)), (Some(major), None)), ((Some(major), None), (Some(major), Some(minor)))]
        {
            let mut config = config(scene);
            let rules = config["linux"]["resources"]["devices"].as_array_mut().unwrap();
            for (allow, (major, minor)) in [(true, allowed), (false, denied)] {
                let mut rule = json!({"allow": allow, "type": "b", "major": major, "access": "rwm"});
                if let Some(minor) = minor {
                    rule["minor"] = json!(minor);
                }
                rules.push(rule);
            }
            let outcome = scene.run(&config);
            if outcome.code == 125 {
                outcome.assert_no_container("linux.resources.devices");
            } else {
                outcome.assert_refused(&attempts()[2], &[EPERM]);
                fs::remove_file(scene.root().join("tmp/disk")).unwrap();
            }
        }
    });
}

#[test]
fn the_check_sees_a_device_that_can_be_opened() {
    on_both(|scene| {
        let mut config = config(scene);
        allow(&mut config, "rm");
        scene.run(&config).assert_worked(&attempts()[2]);
    });
}
