//! The image's `/etc/passwd` and `/etc/group` may be any kind of file: no reader hangs, and no file of the host is
//! read.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::scene::{Scene, on_both};

/// Makes a file at a path.
type Make = Box<dyn Fn(&Path)>;

/// Lists the kinds of files that the image has as its users' file.
fn strange_files(scene: &Scene) -> Vec<(&'static str, Make)> {
    let host = scene.outside().join("passwd");
    let climbing = format!("../../../../../../../../../../../..{}", host.display());
    vec![
        ("a link", Box::new(move |place| symlink(&host, place).unwrap())),
        ("a climbing link", Box::new(move |place| symlink(&climbing, place).unwrap())),
        ("a link by proc", Box::new(|place| symlink("/proc/1/root/etc/passwd", place).unwrap())),
        ("a link to a descriptor", Box::new(|place| symlink("/proc/self/fd/0", place).unwrap())),
        ("a loop", Box::new(|place| symlink("passwd", place).unwrap())),
        (
            "a FIFO",
            Box::new(|place| nix::unistd::mkfifo(place, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap()),
        ),
        ("a directory", Box::new(|place| fs::create_dir(place).unwrap())),
        ("a link to an endless file", Box::new(|place| symlink("/dev/zero", place).unwrap())),
        ("a huge file", Box::new(|place| fs::File::create(place).unwrap().set_len(1 << 40).unwrap())),
    ]
}

fn put(scene: &Scene, make: &dyn Fn(&Path)) {
    for name in ["passwd", "group"] {
        let place = scene.root().join("etc").join(name);
        let _no_file = fs::remove_file(&place);
        let _no_directory = fs::remove_dir(&place);
        make(&place);
    }
}

#[test]
fn a_strange_file_of_users_gives_no_home_and_no_delay() {
    on_both(|scene| {
        fs::write(scene.outside().join("passwd"), "victim:x:0:0::/the/hosts/home:/bin/sh\n").unwrap();
        // Make the bundle first: contd reads these files too (below).
        let mut config = scene.config(&["env|HOME"]);
        let env = config["process"]["env"].as_array_mut().unwrap();
        env.retain(|pair| !pair.as_str().unwrap().starts_with("HOME="));
        for (what, make) in strange_files(scene) {
            put(scene, &*make);
            let outcome = scene.run(&config);
            assert_eq!(outcome.assert_worked("env|HOME"), "/", "{what}");
        }
        fs::remove_file(scene.outside().join("passwd")).unwrap();
    });
}

#[test]
fn a_strange_file_of_users_has_no_user_for_the_bundle() {
    on_both(|scene| {
        fs::write(scene.outside().join("passwd"), "victim:x:0:0::/the/hosts/home:/bin/sh\n").unwrap();
        for (what, make) in strange_files(scene) {
            put(scene, &*make);
            let made = scene.config_for(&["env|HOME"], Some("victim:victim"));
            assert!(made.is_err(), "{what}: {made:?}");
        }
        fs::remove_file(scene.outside().join("passwd")).unwrap();
    });
}

#[test]
fn the_check_sees_a_home_that_was_read() {
    on_both(|scene| {
        let mut config = scene.config(&["env|HOME"]);
        let env = config["process"]["env"].as_array_mut().unwrap();
        env.retain(|pair| !pair.as_str().unwrap().starts_with("HOME="));
        fs::write(scene.root().join("etc/passwd"), "root:x:0:0::/a/home:/bin/sh\n").unwrap();
        assert_eq!(scene.run(&config).assert_worked("env|HOME"), "/a/home");
    });
}
