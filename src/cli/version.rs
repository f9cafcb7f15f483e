//! `contd version`: shows the versions of this command and of the daemon.

use contd_client::Deadline;
use contd_protocol::api::{VERSIONS, VersionInfo};
use serde_json::{Value, json};

use crate::cli::args::Format;
use crate::cli::error::CliError;
use crate::cli::host::Session;

/// The flags of `contd version`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct VersionArgs {
    /// Output format: lines for people, or one JSON object
    #[arg(long, default_value = "table")]
    format: Format,
}

/// Shows our version in any case, and the daemon's if it answers.
pub(crate) async fn run(session: &Session<'_>, args: &VersionArgs) -> Result<(), CliError> {
    let answer = match session.connect().await {
        Ok(client) => client.version(Deadline::Usual).await.map_err(CliError::from),
        Err(error) => Err(error),
    };
    let daemon = answer.as_ref().ok();
    let text = match args.format {
        Format::Json => format!("{}\n", as_json(daemon)),
        Format::Table => as_text(daemon),
    };
    session.host.output.data(text.as_bytes())?;
    answer.map(drop)
}

fn as_json(daemon: Option<&VersionInfo>) -> Value {
    let daemon = daemon.map(|daemon| {
        json!({
            "version": daemon.version,
            "protocol": daemon.protocol,
            "pid": daemon.pid,
            "started": daemon.started_at.to_string(),
            "runtime": daemon.runtime,
        })
    });
    let client = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "protocol_min": VERSIONS.min,
        "protocol_max": VERSIONS.max,
    });
    json!({ "client": client, "daemon": daemon })
}

fn as_text(daemon: Option<&VersionInfo>) -> String {
    let (version, min, max) = (env!("CARGO_PKG_VERSION"), VERSIONS.min, VERSIONS.max);
    let mut text = format!("client   {version}, protocol {min} to {max}\n");
    if let Some(VersionInfo { version, protocol, pid, started_at, runtime }) = daemon {
        text.push_str(&format!(
            "daemon   {version}, protocol {protocol}, pid {pid}, since {started_at}\nruntime  {runtime}\n"
        ));
    }
    text
}
