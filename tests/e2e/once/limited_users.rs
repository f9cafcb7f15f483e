//! The users that may open the socket, and what a refusal says: with a real second user.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::harness::limited_user::{GID, LimitedUser, SOCKET_GID, UID, let_in};
use crate::harness::{Manager, Node};

/// The group and the mode of a file.
fn rights(path: &Path) -> (u32, u32) {
    let found = fs::metadata(path).expect("the socket is there");
    (found.gid(), found.mode() & 0o7777)
}

#[test]
fn the_socket_has_the_group_and_the_mode_of_the_configuration() {
    let user = LimitedUser::new();
    let mut node = user.node("");
    assert_eq!(rights(&node.socket()), (SOCKET_GID, 0o660), "whatever the umask is");
    assert_eq!(user.inside(&node, &[], "id -u"), "0");
    // Taken over, it has what the new daemon is told; the old one's clients still have their connections.
    fs::write(node.root.join("conf.d/z.toml"), format!("[api]\ngroup = {GID}\nmode = \"0666\"\n")).expect("write");
    node.take_over();
    assert_eq!(rights(&node.socket()), (GID, 0o666));
    fs::remove_file(node.root.join("conf.d/z.toml")).expect("remove");
    node.take_over();
    assert_eq!(rights(&node.socket()), (SOCKET_GID, 0o660));
    node.finish();
}

#[test]
fn a_socket_of_the_service_manager_keeps_its_own_rights() {
    let node = Node::managed(|root| {
        let manager = Manager::with_socket(root);
        let socket = root.join("run/contd.sock");
        std::os::unix::fs::chown(&socket, None, Some(GID)).expect("chown");
        fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o606)).expect("chmod");
        manager
    });
    assert_eq!(rights(&node.socket()), (GID, 0o606));
    assert!(node.daemon_log().contains("SocketMode"), "it says whose they are");
    node.finish();
}

#[test]
fn who_is_refused_is_told_what_is_missing() {
    let user = LimitedUser::new();
    let node = user.node("read_only = true");
    user.contd(&node, ["ps"]).ok();
    // A verb outside of the rule: which namespaces there are, and that it may look only.
    user.contd(&node, ["ps", "--namespace", "other"]).fails_with(1, "no rule of uid 61000 allows that");
    let other = user.contd(&node, ["ps", "--namespace", "other"]);
    assert!(other.stderr.contains("your rules are about: t"), "{}", other.stderr);
    let change = user.contd(&node, ["rm", "x"]);
    assert!(change.code != 0 && change.stderr.contains("look only"), "{}", change.stderr);
    // In the group of the socket, and without a rule.
    let stranger = LimitedUser::new().with(61_009, &[SOCKET_GID]);
    let refused = stranger.contd(&node, ["ps"]);
    assert!(refused.code != 0 && refused.stderr.contains("uid 61009 may not use this socket"), "{}", refused.stderr);
    assert!(refused.stderr.contains("[[access]]"), "{}", refused.stderr);
    // With a rule, and not in the group.
    let outside = LimitedUser::new().with(UID, &[]);
    let refused = outside.contd(&node, ["ps"]);
    assert!(refused.code != 0 && refused.stderr.contains("of gid 61002"), "{}", refused.stderr);
    assert!(refused.stderr.contains("usermod"), "{}", refused.stderr);
    node.finish();
}

#[test]
fn a_socket_without_a_group_says_what_the_operator_sets() {
    let user = LimitedUser::new();
    let node = Node::start();
    let_in(&node);
    let refused = user.contd(&node, ["ps"]);
    assert!(refused.code != 0 && refused.stderr.contains("[api] group"), "{}", refused.stderr);
    node.finish();
}

#[test]
fn a_rule_for_a_group_counts_for_supplementary_groups() {
    let user = LimitedUser::new().with(61_010, &[SOCKET_GID, 61_011]);
    let rule = format!("[[access]]\ngid = 61011\nnamespaces = [\"t\"]\nflists = [\"{}\"]\n", user.path("flists"));
    let node = Node::with_config(&format!("[api]\ngroup = {SOCKET_GID}\n{rule}"));
    let_in(&node);
    assert_eq!(user.inside(&node, &[], "echo in"), "in");
    let user = user.with(61_010, &[SOCKET_GID]);
    assert!(user.contd(&node, ["ps"]).stderr.contains("may not use this socket"));
    node.finish();
}
