//! A network namespace of a test's own, with one interface, gone when dropped.

use std::process::Command;

/// A named network namespace with a dummy interface `test0`.
#[derive(Debug)]
pub struct Netns {
    /// Its name in `/run/netns`.
    pub name: String,
}

impl Netns {
    /// Makes it.
    pub fn new(name: &str) -> Self {
        let netns = Self { name: format!("contd-t-{name}-{}", std::process::id()) };
        ip(&["netns", "add", &netns.name]);
        ip(&["-n", &netns.name, "link", "add", "test0", "type", "bridge"]);
        ip(&["-n", &netns.name, "addr", "add", "10.99.0.1/24", "dev", "test0"]);
        ip(&["-n", &netns.name, "link", "set", "test0", "up"]);
        netns
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

#[track_caller]
fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("run ip (make deps installs iproute2)");
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
