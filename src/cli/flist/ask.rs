//! Queries on a node's flists: asks the daemon, or reads the node's files if no daemon runs.

use std::future::Future;
use std::io;
use std::path::PathBuf;

use contd_client::{Client, ClientError, Deadline};

use crate::cli::block_on_result;
use crate::cli::error::CliError;
use crate::cli::host::Host;
use crate::config;
use crate::config::DaemonArgs;
use contd_node::FlistPlaces;

/// Calls `call` to ask the daemon. Calls `look` to read the files if directories are named or no daemon answers; the
/// latter is reported.
pub(super) fn ask<T, F>(
    host: &Host,
    address: Option<PathBuf>,
    dirs: &DaemonArgs,
    call: impl FnOnce(Client) -> F,
    look: impl FnOnce(&FlistPlaces) -> Result<T, CliError>,
) -> Result<T, CliError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let config = config::load(dirs);
    if dirs.cache_dir.is_some() || dirs.run_dir.is_some() {
        return look(&FlistPlaces::of(&config?));
    }
    // A user who may ask the daemon may not be able to read its configuration.
    let (address, config) = match (address, config) {
        (Some(address), config) => (address, config),
        (None, config) => config.map(|config| (config.socket(), Ok(config)))?,
    };
    let asked = block_on_result(async {
        let client = Client::connect(&address, Deadline::Usual).await?;
        call(client).await
    })?;
    match asked {
        Err(ClientError::Connect { source, .. }) if is_not_running(&source) => {
            let config = config?;
            host.output.tell(&format!(
                "contd: no daemon answers at {}: looking at the files below {} and {}\n",
                address.display(),
                config.run_dir.display(),
                config.cache_dir.display()
            ));
            look(&FlistPlaces::of(&config))
        }
        answered => Ok(answered?),
    }
}

fn is_not_running(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
