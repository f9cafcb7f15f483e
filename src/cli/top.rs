//! `contd top`: lists the processes of a container, with their ids on both sides.

use std::time::Duration;

use contd_client::Deadline;
use contd_types::{ContainerRef, ProcessInfo};
use serde::Serialize;

use crate::cli::args::Format;
use crate::cli::completion::containers;
use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::{amounts, parse, table};

/// The flags of `contd top`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TopArgs {
    /// Output format: a table, or one JSON object per line
    #[arg(long, default_value = "table")]
    format: Format,
    /// Name, id, or the beginning of an id
    #[arg(value_parser = parse::container, add = clap_complete::ArgValueCandidates::new(containers))]
    container: ContainerRef,
}

/// Lists the processes.
pub(crate) async fn run(session: &Session<'_>, args: TopArgs) -> Result<(), CliError> {
    let target = session.target(args.container);
    let processes = session.connect().await?.processes(target, Deadline::Usual).await?;
    let text = match args.format {
        Format::Table => table::render(&rows(&processes)),
        Format::Json => {
            let lines: Result<Vec<String>, _> =
                processes.iter().map(|process| serde_json::to_string(&View::of(process))).collect();
            lines?.into_iter().map(|line| line + "\n").collect()
        }
    };
    session.host.output.data(text.as_bytes())
}

fn rows(processes: &[ProcessInfo]) -> Vec<Vec<String>> {
    let head = ["PID", "CONTAINER PID", "PPID", "UID", "STATE", "TIME", "RSS", "COMMAND"].map(str::to_owned).to_vec();
    let rows = processes.iter().map(|process| {
        vec![
            process.pid.to_string(),
            process.container_pid.to_string(),
            process.parent.to_string(),
            process.uid.to_string(),
            process.state.to_string(),
            clock(Duration::from_nanos(process.cpu_ns)),
            amounts::bytes(process.resident_bytes),
            process.command.join(" "),
        ]
    });
    std::iter::once(head).chain(rows).collect()
}

/// Formats processor time as `ps` does, with hundredths.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}.{:02}", seconds / 60, seconds % 60, time.subsec_millis() / 10)
}

/// A process as JSON. Programs rely on these fields; add, never rename.
#[derive(Debug, Serialize)]
struct View<'a> {
    pid: i32,
    container_pid: i32,
    parent: i32,
    uid: u32,
    state: char,
    cpu_seconds: f64,
    resident_bytes: u64,
    started: String,
    command: &'a [String],
}

impl<'a> View<'a> {
    fn of(process: &'a ProcessInfo) -> Self {
        Self {
            pid: process.pid.0,
            container_pid: process.container_pid.0,
            parent: process.parent.0,
            uid: process.uid,
            state: process.state,
            cpu_seconds: Duration::from_nanos(process.cpu_ns).as_secs_f64(),
            resident_bytes: process.resident_bytes,
            started: process.started.to_string(),
            command: &process.command,
        }
    }
}
