//! Reads the configuration of the daemon (`contd_node::Config`): one TOML file, drop-ins beside it, flags above both.
//!
//! Order of precedence, the later wins: built-in defaults, the file, `conf.d/*.toml` beside it by name, flags. An unknown
//! key is an error that names the file, the line and the column. A missing file is fine unless it was asked for.

mod args;
mod load;
mod place;

pub(crate) use args::DaemonArgs;
pub(crate) use load::{ConfigError, load};
