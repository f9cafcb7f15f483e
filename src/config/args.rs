//! The flags of `contd daemon`. The configuration supplies those that are left out.

use std::path::PathBuf;

/// The directories and the address of a daemon; each flag overrides the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct DaemonArgs {
    /// The configuration file [default: /etc/contd/config.toml, where it exists]
    #[arg(long, value_name = "FILE", env = "CONTD_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Put the state directory and the cache directory here, as <DIR>/state and <DIR>/cache, unless they are named
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Records, writable layers and bundles [default: /var/lib/contd]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Sockets, pipes and leases; on a tmpfs [default: /run/contd]
    #[arg(long, value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
    /// Logs of the containers, as <DIR>/<namespace>/<name>.log [default: /var/log]
    #[arg(long, value_name = "DIR")]
    pub(crate) log_dir: Option<PathBuf>,
    /// Flists and their blocks [default: /var/cache/contd]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Refuse to start if a daemon is running, instead of replacing it
    #[arg(long)]
    pub(crate) no_takeover: bool,
    /// The API socket; filled in from the global flag.
    #[arg(skip)]
    pub(crate) address: Option<PathBuf>,
}
