//! Masked files of `/proc` and `/sys` stay masked, whatever the image has in their place or in that of `/dev/null`.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::scene::{ENOENT, Scene, add_mount, on_both};

/// A file that exists on every kernel and is readable for root.
const MASKED_FILE: &str = "read|/proc/interrupts";
const MASKED_DIR: &str = "list|/sys/firmware";

fn without_dev(config: &mut Value) {
    let is_kept = |mount: &Value| !mount["destination"].as_str().unwrap().starts_with("/dev");
    config["mounts"].as_array_mut().unwrap().retain(is_kept);
}

#[track_caller]
fn assert_masked(scene: &Scene, config: &Value) {
    let outcome = scene.run(config);
    assert_eq!(outcome.assert_worked(MASKED_FILE), "", "{outcome:?}");
    assert_eq!(outcome.assert_worked(MASKED_DIR), "", "{outcome:?}");
}

#[test]
fn what_is_masked_is_empty() {
    on_both(|scene| assert_masked(scene, &scene.config(&[MASKED_FILE, MASKED_DIR])));
}

#[test]
fn the_check_sees_what_is_not_masked() {
    on_both(|scene| {
        let mut config = scene.config(&[MASKED_FILE, MASKED_DIR]);
        config["linux"]["maskedPaths"] = json!([]);
        let outcome = scene.run(&config);
        assert_ne!(outcome.assert_worked(MASKED_FILE), "");
    });
}

#[test]
fn an_image_with_a_dev_null_of_its_own_is_masked_by_the_real_one() {
    on_both(|scene| {
        let dev = scene.root().join("dev");
        fs::create_dir(&dev).unwrap();
        fs::write(dev.join("null"), "unmasked").unwrap();
        assert_masked(scene, &scene.config(&[MASKED_FILE, MASKED_DIR]));
        fs::remove_file(dev.join("null")).unwrap();
        symlink("/proc/interrupts", dev.join("null")).unwrap();
        assert_masked(scene, &scene.config(&[MASKED_FILE, MASKED_DIR]));
    });
}

#[test]
fn without_a_dev_of_its_own_an_image_with_a_false_null_is_refused() {
    on_both(|scene| {
        let dev = scene.root().join("dev");
        fs::create_dir(&dev).unwrap();
        let mut config = scene.config(&[MASKED_FILE, MASKED_DIR]);
        without_dev(&mut config);
        fs::write(dev.join("null"), "unmasked").unwrap();
        scene.run(&config).assert_no_container("linux.maskedPaths");
        for says in ["/proc/interrupts", "/proc/self/fd/0", "zero"] {
            fs::remove_file(dev.join("null")).unwrap();
            symlink(says, dev.join("null")).unwrap();
            scene.run(&config).assert_no_container("linux.maskedPaths");
        }
        // Without one, the launcher makes it.
        fs::remove_file(dev.join("null")).unwrap();
        assert_masked(scene, &config);
    });
}

#[test]
fn links_in_the_image_below_proc_and_sys_change_nothing() {
    on_both(|scene| {
        for dir in ["proc", "sys"] {
            fs::create_dir(scene.root().join(dir)).unwrap();
        }
        symlink("/etc", scene.root().join("proc/interrupts")).unwrap();
        symlink("/etc", scene.root().join("sys/firmware")).unwrap();
        assert_masked(scene, &scene.config(&[MASKED_FILE, MASKED_DIR]));
    });
}

#[test]
fn a_link_in_a_masked_path_masks_nothing_outside_of_the_root() {
    on_both(|scene| {
        let canary = scene.outside().join("canary");
        scene.link("way/canary", &canary);
        scene.link("way/dir", scene.outside());
        scene.link("way/self", "/proc/self/root");
        let mut config = scene.config(&["say|here"]);
        config["linux"]["maskedPaths"] = json!(["/way/canary", "/way/dir"]);
        config["linux"]["readonlyPaths"] = json!(["/way/canary", "/way/dir"]);
        scene.run(&config).assert_worked("say|here");
        assert_eq!(fs::read_to_string(&canary).unwrap(), crate::scene::SECRET);
        fs::write(scene.outside().join("dir/file"), "still writable").unwrap();
        fs::remove_file(scene.outside().join("dir/file")).unwrap();
        config["linux"]["maskedPaths"] = json!(["/way/self/way"]);
        scene.run(&config).assert_no_container("linux.maskedPaths");
    });
}

#[test]
fn nothing_may_be_mounted_over_proc() {
    on_both(|scene| {
        for target in ["/proc", "/proc/sys", "/dev/../proc", "//proc/./self", "/proc/sysrq-trigger"] {
            let mut config = scene.config(&["say|here"]);
            add_mount(&mut config, json!({"destination": target, "type": "tmpfs", "source": "tmpfs"}));
            scene.run(&config).assert_no_container("mounts[7].destination");
        }
        // A bind under another path is refused too.
        let source = scene.root().join("work");
        for kind in ["bind", "proc", "none"] {
            let mut config = scene.config(&["say|here"]);
            let mount = json!({"destination": "/proc", "type": kind, "source": source, "options": ["bind"]});
            add_mount(&mut config, mount);
            scene.run(&config).assert_no_container("mounts[7].destination");
        }
    });
}

#[test]
fn an_image_cannot_lead_a_mount_over_proc() {
    on_both(|scene| {
        for says in ["/proc", "/proc/sys", "proc/fs", "/proc/1/attr", "/proc/thread-self"] {
            // Every bundle has a tmpfs there.
            scene.link("dev", says);
            scene.run(&scene.config(&["say|here"])).assert_no_container("mounts[1].destination");
        }
        fs::remove_file(scene.root().join("dev")).unwrap();
        scene.link("data", "/proc/sys");
        let mut config = scene.config(&["say|here"]);
        let source = scene.root().join("work");
        add_mount(&mut config, json!({"destination": "/data", "type": "bind", "source": source, "options": ["rbind"]}));
        scene.run(&config).assert_no_container("mounts[");
    });
}

#[test]
fn an_image_cannot_lead_a_mount_over_sys() {
    on_both(|scene| {
        let source = scene.root().join("work");
        for says in ["/sys", "sys/firmware", "/sys/fs/cgroup", "../../sys/kernel", "/proc/../sys"] {
            scene.link("data", says);
            for mount in [
                json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs"}),
                json!({"destination": "/data", "type": "bind", "source": source, "options": ["rbind"]}),
            ] {
                let mut config = scene.config(&["say|here"]);
                add_mount(&mut config, mount);
                scene.run(&config).assert_no_container("mounts[7].destination");
            }
        }
        // A bundle that itself mounts there is allowed to, as with runc.
        let mut config = scene.config(&["create|/sys/firmware/file"]);
        config["linux"]["maskedPaths"] = json!([]);
        add_mount(&mut config, json!({"destination": "/sys/firmware", "type": "tmpfs", "source": "tmpfs"}));
        scene.run(&config).assert_worked("create|/sys/firmware/file");
    });
}

#[test]
fn what_lxcfs_gives_may_be_mounted_below_proc() {
    on_both(|scene| {
        fs::write(scene.root().join("uptime"), "1.00 2.00").unwrap();
        let mut config = scene.config(&["read|/proc/uptime", "read|/proc/interrupts.d"]);
        let source = scene.root().join("uptime");
        let mount = json!({"destination": "/proc/uptime", "type": "bind", "source": source, "options": ["bind"]});
        add_mount(&mut config, mount);
        let outcome = scene.run(&config);
        assert_eq!(outcome.assert_worked("read|/proc/uptime"), "1.00 2.00");
        outcome.assert_refused("read|/proc/interrupts.d", &[ENOENT]);
    });
}
