//! The working directory is resolved inside the root.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::scene::on_both;

#[test]
fn a_working_directory_that_climbs_is_inside_the_root() {
    on_both(|scene| {
        let outside = scene.outside().display().to_string();
        for cwd in
            [format!("/../../../../../../../../../../..{outside}"), outside.clone(), format!("/work/../..{outside}")]
        {
            let mut config = scene.config(&["cwd", "create|file"]);
            config["process"]["cwd"] = json!(cwd);
            let outcome = scene.run(&config);
            assert_eq!(outcome.assert_worked("cwd"), outside);
            outcome.assert_worked("create|file");
            let inside = scene.root().join(outside.trim_start_matches('/')).join("file");
            fs::remove_file(inside).unwrap();
        }
    });
}

#[test]
fn a_working_directory_behind_links_is_inside_the_root() {
    on_both(|scene| {
        let outside = scene.outside().display().to_string();
        fs::create_dir_all(scene.root().join(outside.trim_start_matches('/'))).unwrap();
        scene.link("one", "./work/../two");
        scene.link("two", "../../../../../three");
        scene.link("three", &outside);
        scene.link("four", "../../outside");
        for cwd in ["/one", "/two", "/three"] {
            let mut config = scene.config(&["cwd", "read|canary"]);
            config["process"]["cwd"] = json!(cwd);
            let outcome = scene.run(&config);
            assert_eq!(outcome.assert_worked("cwd"), outside);
            outcome.assert_refused("read|canary", &[crate::scene::ENOENT]);
        }
        // A missing directory is made where the link leads inside the root, as with runc.
        let mut config = scene.config(&["cwd"]);
        config["process"]["cwd"] = json!("/four");
        assert_eq!(scene.run(&config).assert_worked("cwd"), "/outside");
        assert!(scene.root().join("outside").is_dir() && !Path::new("/outside").exists());
    });
}

#[test]
fn a_loop_of_links_is_no_working_directory() {
    on_both(|scene| {
        scene.link("one", "two");
        scene.link("two", "one");
        let mut config = scene.config(&["cwd"]);
        config["process"]["cwd"] = json!("/one");
        scene.run(&config).assert_no_container("process.cwd");
    });
}

#[test]
fn a_working_directory_through_a_process_in_proc_is_refused() {
    on_both(|scene| {
        for cwd in ["/proc/self/root", "/proc/1/cwd", "/proc/self/root/work"] {
            let mut config = scene.config(&["cwd"]);
            config["process"]["cwd"] = json!(cwd);
            scene.run(&config).assert_no_container("process.cwd");
        }
    });
}
