//! Mount targets that are symlinks in the image: no mount and no file is made outside of the root.

use std::fs;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::programs::programs;
use crate::scene::{Scene, Start, add_mount, bind, on_both};

/// How often a container is started while its mount target is swapped.
const RACES: usize = 40;

fn tmpfs(target: &str) -> Value {
    json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=64k"]})
}

/// Returns the targets of links that lead out of the root: the outside, as an absolute path and climbing.
fn ways_out(scene: &Scene) -> Vec<(&'static str, String)> {
    let outside = scene.outside().join("dir").display().to_string();
    vec![
        ("absolute", outside.clone()),
        ("climbing", format!("../../../../../../../../../../../..{outside}")),
        ("beside", "../../outside/dir".to_owned()),
        ("dangling", scene.outside().join("missing").display().to_string()),
    ]
}

#[test]
fn a_symlinked_mount_target_stays_inside_the_root() {
    on_both(|scene| {
        for (name, says) in ways_out(scene) {
            // Once as the target, once as a directory on the way to it.
            for target in [name.to_owned(), format!("{name}/below")] {
                scene.link(name, &says);
                let file = format!("create|/{target}/file");
                let mut config = scene.config(&[&file]);
                add_mount(&mut config, tmpfs(&format!("/{target}")));
                let outcome = scene.run(&config);
                // A link to a path that is not in the root may be refused, or its target may be made inside.
                if outcome.code == 125 {
                    outcome.assert_no_container("mounts[7].destination");
                } else {
                    outcome.assert_worked(&file);
                }
                assert!(!scene.is_touched(), "{target} -> {says}");
            }
        }
    });
}

/// `/etc/resolv.conf` of Debian and `/etc/localtime` of many images are such links.
#[test]
fn what_a_dangling_link_names_is_made_inside_the_root() {
    on_both(|scene| {
        fs::write(scene.root().join("file"), "the image's").unwrap();
        for (says, leads_to) in [
            ("/run/systemd/stub", "/run/systemd/stub"),
            ("../srv/./a/../b", "/srv/b"),
            ("../../../../../outside/missing", "/outside/missing"),
            ("/chain/one", "/chain.d/two"),
        ] {
            scene.link("chain", "/chain.d");
            scene.link("chain.d/one", "two");
            scene.link("way/out", says);
            let read = format!("read|{leads_to}");
            let mut config = scene.config(&["read|/way/out", &read]);
            bind(&mut config, &scene.root().join("file"), "/way/out");
            let outcome = scene.run(&config);
            assert_eq!(outcome.assert_worked("read|/way/out"), "the image's");
            assert_eq!(outcome.assert_worked(&read), "the image's");
            scene.link("way/dir", format!("{leads_to}.d/deep"));
            let create = format!("create|{leads_to}.d/deep/below/file");
            let mut config = scene.config(&[&create]);
            add_mount(&mut config, tmpfs("/way/dir/below"));
            scene.run(&config).assert_worked(&create);
            assert!(!scene.is_touched(), "{says}");
        }
        for says in ["loop", "/proc/self/root/x", "/way/loop/x"] {
            scene.link("way/loop", says);
            let mut config = scene.config(&["say|here"]);
            add_mount(&mut config, tmpfs("/way/loop"));
            scene.run(&config).assert_no_container("mounts[7].destination");
        }
    });
}

#[test]
fn a_file_on_a_directory_is_refused_with_both() {
    on_both(|scene| {
        fs::write(scene.root().join("file"), "the image's").unwrap();
        for (source, target) in [("file", "/dir"), ("dir", "/file")] {
            let mut config = scene.config(&["say|here"]);
            let source = scene.root().join(source);
            bind(&mut config, &source, target);
            let outcome = scene.run(&config);
            outcome.assert_no_container("mounts[7].destination");
            for word in [&*source.to_string_lossy(), target, "is a directory"] {
                assert!(outcome.words.contains(word), "{word}: {}", outcome.words);
            }
        }
        let mut config = scene.config(&["say|here"]);
        add_mount(&mut config, tmpfs("/file"));
        scene.run(&config).assert_no_container("the target is a file");
        // An option without a meaning for a bind is not dropped either.
        let mut config = scene.config(&["say|here"]);
        let mount = json!({"destination": "/dir", "type": "bind", "source": scene.root().join("dir"), "options": ["rbind", "r0"]});
        add_mount(&mut config, mount);
        scene.run(&config).assert_no_container("mounts[7].options (r0)");
    });
}

#[test]
fn a_symlinked_target_of_a_bind_stays_inside_the_root() {
    on_both(|scene| {
        fs::write(scene.root().join("file"), "the image's").unwrap();
        for (name, says) in ways_out(scene) {
            scene.link(name, &says);
            let mut config = scene.config(&["say|here"]);
            bind(&mut config, &scene.root().join("file"), &format!("/{name}/file"));
            let outcome = scene.run(&config);
            assert!(outcome.code == 0 || outcome.code == 125, "{outcome:?}");
            assert!(!scene.is_touched(), "{name} -> {says}");
        }
    });
}

#[test]
fn a_mount_target_through_a_process_in_proc_is_refused_or_stays_inside() {
    on_both(|scene| {
        for says in ["/proc/self/root", "/proc/1/root", "/proc/self/cwd", "/proc/self/fd/3", "/proc/self/exe"] {
            let outside = scene.outside().join("dir").display().to_string();
            scene.link("way", says);
            let mut config = scene.config(&["say|here"]);
            add_mount(&mut config, tmpfs(&format!("/way{outside}")));
            scene.run(&config).assert_no_container("mounts[7].destination");
        }
    });
}

#[test]
fn a_mount_target_that_climbs_stays_inside_the_root() {
    on_both(|scene| {
        let outside = scene.outside().join("dir").display().to_string();
        let file = format!("create|{outside}/file");
        let mut config = scene.config(&[&file]);
        add_mount(&mut config, tmpfs(&format!("/../../../../../../../../../../..{outside}")));
        scene.run(&config).assert_worked(&file);
    });
}

#[test]
fn a_default_mount_whose_directory_is_a_link_stays_inside_the_root() {
    on_both(|scene| {
        let outside = scene.outside().join("dir").display().to_string();
        for place in ["dev", "proc", "sys"] {
            scene.link(place, &outside);
            let outcome = scene.run(&scene.config(&["say|here"]));
            assert!(outcome.code == 0 || outcome.code == 125, "{place}: {outcome:?}");
            if place == "proc" || place == "sys" {
                outcome.assert_no_container(".destination");
            }
            fs::remove_file(scene.root().join(place)).unwrap();
        }
    });
}

/// A process that swaps a name in the image, as one of another container with the same root could; ends with the test.
struct Swapper {
    child: Child,
    _stdout: ChildStdout,
}

impl Drop for Swapper {
    fn drop(&mut self) {
        let _has_ended = self.child.kill();
        let _status = self.child.wait();
    }
}

fn swap(scene: &Scene, says: &str) -> Swapper {
    let name = scene.root().join("dir/target");
    fs::create_dir_all(&name).unwrap();
    let attempt = format!("swap|{}|{says}|/no/end", name.display());
    let mut child = Command::new(&programs().attack).arg(attempt).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 9];
    std::io::Read::read_exact(&mut stdout, &mut first).unwrap();
    assert_eq!(&first, b"swapping\n");
    Swapper { child, _stdout: stdout }
}

#[test]
fn a_mount_target_that_is_swapped_meanwhile_stays_inside_the_root() {
    on_both(|scene| {
        let races = if scene.start == Start::Cold { RACES } else { RACES / 2 };
        let outside = scene.outside().join("dir").display().to_string();
        // Make the same path inside the root, so that both lead somewhere.
        fs::create_dir_all(scene.root().join(outside.trim_start_matches('/'))).unwrap();
        let climbing = format!("../../../../../../../../../../../..{outside}");
        for says in [outside, climbing, "/proc/self/root".to_owned()] {
            let swapper = swap(scene, &says);
            let mut refused = 0;
            for _ in 0..races / 2 {
                let mut config = scene.config(&["say|here"]);
                add_mount(&mut config, tmpfs("/dir/target"));
                add_mount(&mut config, tmpfs("/dir/target/below/it"));
                let outcome = scene.run(&config);
                assert!(outcome.code == 0 || outcome.code == 125, "{outcome:?}");
                refused += usize::from(outcome.code == 125);
                assert!(!scene.is_touched(), "{says}");
            }
            eprintln!("{says}: {refused} of {} refused", races / 2);
            drop(swapper);
            fs::remove_dir_all(scene.root().join("dir")).unwrap();
            fs::create_dir(scene.root().join("dir")).unwrap();
        }
    });
}

/// The kernel resolves a `..` again when any rename came between, and may leave the retry to us.
#[test]
fn renames_elsewhere_do_not_hinder_a_mount_behind_a_climbing_link() {
    on_both(|scene| {
        fs::create_dir(scene.root().join("target")).unwrap();
        scene.link("way/in", "../work/../work/../work/../work/../target");
        let swapper = swap(scene, "/work");
        for _ in 0..RACES / 4 {
            let mut config = scene.config(&["create|/target/file"]);
            add_mount(&mut config, tmpfs("/way/in"));
            let outcome = scene.run(&config);
            outcome.assert_worked("create|/target/file");
        }
        drop(swapper);
        assert!(!scene.root().join("target/file").exists());
    });
}

#[test]
fn the_check_sees_what_is_made_outside_of_the_root() {
    let scene = Scene::prepare(Start::Cold);
    let mut config = scene.config(&["create|/dir/file"]);
    bind(&mut config, &scene.outside().join("dir"), "/dir");
    scene.run(&config).assert_worked("create|/dir/file");
    assert!(scene.is_touched());
    fs::remove_file(scene.outside().join("dir/file")).unwrap();
    scene.assert_untouched();
}
