//! `contd update`: changes the settings of containers that can be changed while they are there.

use contd_client::Deadline;
use contd_types::{Changes, CpuLimit, RestartPolicy};

use crate::cli::args::Containers;
use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::parse;
use crate::cli::rights_args::LimitArgs;

/// The flags of `contd update`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct UpdateArgs {
    /// Restart policy from now on: no, on-failure[:MAX], always or unless-stopped
    #[arg(long, value_name = "POLICY", value_parser = parse::restart)]
    restart: Option<RestartPolicy>,
    /// Memory limit, for example 128m
    #[arg(short, long, value_name = "SIZE", allow_negative_numbers = true, value_parser = parse::limit_size)]
    memory: Option<u64>,
    /// CPU limit in processors, for example 1.5
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = parse::cpus)]
    cpus: Option<CpuLimit>,
    /// Limit of processes and threads
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = parse::pids)]
    pids_limit: Option<u32>,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    which: Containers,
}

/// Changes the containers and prints each changed one.
pub(crate) async fn run(session: &Session<'_>, args: UpdateArgs) -> Result<u8, CliError> {
    let changes = Changes {
        restart: args.restart,
        memory_bytes: args.memory,
        cpu: args.cpus,
        pids_limit: args.pids_limit,
        resources: args.limits.resources(),
    };
    if changes == Changes::default() {
        return Err(CliError::NothingToChange);
    }
    session
        .each(args.which.containers, async |client, target| {
            client.update(target, changes.clone(), Deadline::Usual).await?;
            Ok(None)
        })
        .await
}
