//! SIGHUP: reads the configuration again and takes over what can change while the daemon runs: `access`, `limits`, `logs`
//! and `defaults`. One that cannot be used changes nothing, and neither a bad one nor the signal itself ends the daemon.

use contd_node::{Config, Node};
use tracing::{error, info, warn};

use crate::config;
use crate::config::DaemonArgs;
use crate::daemon::calls::{ApiSettings, Backend};

/// The configuration that the daemon goes by, and where it is read again.
#[derive(Debug)]
pub(crate) struct Reload<'a> {
    args: &'a DaemonArgs,
    in_force: Config,
}

impl<'a> Reload<'a> {
    pub(crate) fn new(args: &'a DaemonArgs, in_force: Config) -> Self {
        Self { args, in_force }
    }

    /// Reads it again. What is asked from now on goes by it, also on connections that are open.
    pub(crate) fn run(&mut self, backend: &Backend, node: &Node) {
        let read = match config::load(self.args) {
            Ok(read) => read,
            Err(error) => {
                let error = contd_types::one_line(&error);
                return error!(error, "configuration not taken over: it is wrong, and the one before stays in force");
            }
        };
        let (next, waiting) = merge(&self.in_force, read);
        if let Err(error) = node.reconfigure(&next) {
            let error = contd_types::one_line(&error);
            return error!(error, "configuration not taken over: it is wrong, and the one before stays in force");
        }
        backend.settings.send_replace(ApiSettings::of(node.rules(), &next));
        let changed = changes(&self.in_force, &next).join(" ");
        self.in_force = next;
        info!(changed, "configuration read again");
        if !waiting.is_empty() {
            warn!(keys = waiting.join(" "), "these keys have changed and wait for the next start of contd");
        }
    }
}

/// Takes what can change from `read`, all else from `in_force`; names what is another in `read` and cannot.
fn merge(in_force: &Config, read: Config) -> (Config, Vec<&'static str>) {
    let is_other = [
        ("state_dir", read.state_dir != in_force.state_dir),
        ("run_dir", read.run_dir != in_force.run_dir),
        ("log_dir", read.log_dir != in_force.log_dir),
        ("cache_dir", read.cache_dir != in_force.cache_dir),
        ("address", read.socket() != in_force.socket()),
        ("netns_dir", read.netns_dir != in_force.netns_dir),
        ("cgroup_parent", read.cgroup_parent != in_force.cgroup_parent),
        ("runtime", read.runtime != in_force.runtime),
        ("cache", read.cache != in_force.cache),
    ];
    let waiting = is_other.into_iter().filter_map(|(key, is_other)| is_other.then_some(key)).collect();
    let mut next = in_force.clone();
    (next.defaults, next.logs, next.limits, next.access) = (read.defaults, read.logs, read.limits, read.access);
    (next, waiting)
}

fn changes(before: &Config, after: &Config) -> Vec<&'static str> {
    let is_other = [
        ("access", before.access != after.access),
        ("limits", before.limits != after.limits),
        ("logs", before.logs != after.logs),
        ("defaults", before.defaults != after.defaults),
    ];
    is_other.into_iter().filter_map(|(key, is_other)| is_other.then_some(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_change_changes_and_the_rest_waits_by_name() {
        let mut read = Config::default();
        read.limits.connections = 7;
        read.logs.max_mib = 3;
        read.cgroup_parent = "contd-other".into();
        read.runtime.warm_slots = 9;
        let (next, waiting) = merge(&Config::default(), read);
        assert_eq!(waiting, ["cgroup_parent", "runtime"]);
        assert_eq!(changes(&Config::default(), &next), ["limits", "logs"]);
        let mut expected = Config::default();
        (expected.limits, expected.logs) = (next.limits.clone(), next.logs.clone());
        assert_eq!(next, expected);
        assert_eq!((next.limits.connections, next.logs.max_mib), (7, 3));
    }
}
