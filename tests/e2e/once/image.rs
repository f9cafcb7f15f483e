//! An image, imported and run: what it says of itself is what runs, unless the caller says otherwise.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::harness::{Node, busybox_tree, eventually};

use contd_test_harness::image::{Form, Layout};

/// The program of the image: shows all that it was given, and then waits for its stop signal if it is told to.
const ENTRY: &str = "#!/bin/sh\n\
    echo \"args: $*|$2\"\n\
    echo \"user: $(id -u):$(id -g) $HOME\"\n\
    echo \"dir: $(pwd)\"\n\
    echo \"greeting: $GREETING\"\n\
    [ \"$1\" = wait ] || exit 0\n\
    trap 'echo interrupted; exit 7' INT\n\
    trap 'echo terminated; exit 8' TERM\n\
    echo ready\n\
    while :; do sleep 0.1; done\n";

/// Makes an image of busybox in two layers, and imports it with the command.
fn imported(node: &Node, cmd: &[&str]) -> String {
    let input = node.root.join("input");
    let tree = input.join("image-tree");
    busybox_tree(&tree);
    fs::write(tree.join("old"), "hidden by the second layer").expect("write");
    let lower = contd_test_harness::image::layer(|tar| {
        tar.follow_symlinks(false);
        tar.append_dir_all(".", &tree).expect("add the tree");
    });
    let entry = input.join("entry.sh");
    fs::write(&entry, ENTRY).expect("write");
    fs::set_permissions(&entry, fs::Permissions::from_mode(0o755)).expect("make it executable");
    let upper = contd_test_harness::image::layer(|tar| {
        tar.append_path_with_name(&entry, "entry.sh").expect("add the entry");
        contd_test_harness::image::file(tar, ".wh.old", b"");
    });
    let run = json!({
        "Entrypoint": ["/entry.sh"], "Cmd": cmd, "Env": ["GREETING=hello", "PATH=/bin"],
        "WorkingDir": "/work/deep", "User": "app", "StopSignal": "SIGINT",
    });
    let mut layout = Layout::default();
    let manifest = layout.image(&[(lower, Form::Gzip), (upper, Form::Zstd)], ("linux", "amd64"), &run);
    layout.manifests.push(manifest);
    import(node, &layout.write_folder(&input)).display().to_string()
}

fn import(node: &Node, source: &Path) -> PathBuf {
    let (out, store) = (node.root.join("input/image.fl"), node.root.join("input/image-store"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_contd"));
    command.args(["flist", "import"]).args([source, &out]).args(["--store", &format!("dir://{}", store.display())]);
    let output = command.output().expect("run contd flist import");
    assert!(output.status.success(), "import: {}", String::from_utf8_lossy(&output.stderr));
    out
}

#[test]
fn an_image_runs_without_a_command_as_it_says_itself() {
    let node = Node::start();
    let flist = imported(&node, &["one", "two words"]);
    let own = "args: one two words|two words\nuser: 1000:1000 /home/app\ndir: /work/deep\ngreeting: hello";
    assert_eq!(node.contd(["run", "--rm", &flist]).ok(), own);
    // A command takes the place of the image's command, and everything else stays.
    let seen = node.contd(["run", "--rm", &flist, "x", "y"]);
    assert_eq!(seen.ok(), own.replace("one two words|two words", "x y|y"));
    // The caller's values come first.
    let mine = ["run", "--rm", "--env", "GREETING=mine", "--workdir", "/tmp", "--user", "root", &flist];
    assert_eq!(node.contd(mine).ok(), "args: one two words|two words\nuser: 0:0 /root\ndir: /tmp\ngreeting: mine");
    // An entrypoint takes the place of both.
    let other = ["run", "--rm", "--entrypoint", "/bin/sh", &flist, "-c", "ls /old 2>/dev/null; echo $GREETING $0"];
    assert_eq!(node.contd(other).ok(), "hello /bin/sh");
    let pwd = node.contd(["run", "--rm", "--entrypoint", "[\"/bin/pwd\"]", &flist]);
    assert_eq!(pwd.ok(), "/work/deep");
    // The file that 0-OS reads is there too.
    let startup = node.contd(["run", "--rm", "--entrypoint", "", &flist, "cat", "/.startup.toml"]);
    assert!(startup.ok().contains("name = \"/entry.sh\"\nargs = [\"one\", \"two words\"]\ndir = \"/work/deep\""));
    node.finish();
}

#[test]
fn the_stop_signal_of_an_image_is_used_also_by_a_later_daemon() {
    let mut node = Node::start();
    let flist = imported(&node, &["wait"]);
    for (name, restarts) in [("one", false), ("two", true)] {
        node.contd(["run", "-d", "--name", name, &flist]).ok();
        eventually("the trap is set", || node.contd(["logs", name]).stdout.contains("ready").then_some(()));
        if restarts {
            node.kill_daemon();
            node.start_daemon();
        }
        let seen = node.inspect(name);
        assert_eq!(seen["command"], json!(["/entry.sh", "wait"]));
        assert_eq!(seen["env"], json!(["GREETING=hello", "PATH=/bin"]));
        assert_eq!((&seen["working_dir"], &seen["user"]), (&json!("/work/deep"), &json!("app")));
        assert_eq!(seen["stop_signal"], json!("SIGINT"));
        node.contd(["stop", name]).ok();
        assert_eq!(node.inspect(name)["exit_code"], json!(7), "{}", node.contd(["logs", name]).stdout);
        // The root is still there: it is started again from what its flist says.
        node.contd(["start", name]).ok();
        eventually("the trap is set again", || {
            (node.contd(["logs", name]).stdout.matches("ready").count() == 2).then_some(())
        });
        node.contd(["rm", "-f", name]).ok();
    }
    node.finish();
}
