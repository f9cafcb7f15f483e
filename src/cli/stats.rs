//! `contd stats`: shows what running containers use, again and again.
//!
//! Rates are the difference of two looks. On a terminal the table is drawn again at its place; otherwise each look is a table, or
//! lines of JSON, behind the last.

use std::collections::{HashMap, VecDeque};
use std::io::IsTerminal;
use std::time::Duration;

use contd_client::{Client, Deadline, ListFilter};
use contd_protocol::api::Target;
use contd_types::{ContainerId, ContainerRef, ContainerStats, PressureUsage};
use serde::Serialize;
use tokio::time::MissedTickBehavior;

use crate::cli::args::Format;
use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::{amounts, parse, table};

/// How many looks the bars show.
const HISTORY: usize = 10;
/// Puts the cursor to the first line and clears what is below.
const CLEAR: &str = "\x1b[H\x1b[J";
/// Stands for a figure that is not known.
const UNKNOWN: &str = "--";

/// The meaning of the fields; shown by the help.
pub(crate) const FIELDS_HELP: &str = "\
Fields of --format json, each null where the kernel does not tell: id, name, namespace, pid; cpu_percent (100 is one processor),
cpu_seconds, cpu_user_seconds, cpu_system_seconds, throttled_periods, throttled_seconds; memory_bytes, working_set_bytes,
anonymous_bytes, file_bytes, swap_bytes, memory_peak_bytes, memory_limit_bytes, oom_kills; pids, pids_limit; network_received_bytes,
network_sent_bytes; block_read_bytes, block_written_bytes; pressure_cpu_seconds, pressure_memory_seconds, pressure_io_seconds.";

/// The flags of `contd stats`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StatsArgs {
    /// Look once, over a second, and end
    #[arg(long)]
    no_stream: bool,
    /// Seconds between two looks
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = parse::seconds)]
    interval: Duration,
    /// Show the containers of all namespaces
    #[arg(short = 'A', long, conflicts_with = "containers")]
    all_namespaces: bool,
    /// Do not draw the table again at its place
    #[arg(long)]
    no_reset: bool,
    /// Output format: a table, or one JSON object per line
    #[arg(long, default_value = "table")]
    format: Format,
    /// Names, ids, or the beginnings of ids; all that run if there is none
    #[arg(value_name = "CONTAINER", value_parser = parse::container)]
    containers: Vec<ContainerRef>,
}

/// Looks until it is interrupted, or once.
pub(crate) async fn run(session: &Session<'_>, args: StatsArgs) -> Result<u8, CliError> {
    let client = session.connect().await?;
    let mut board = Board::default();
    // The first look has no rate.
    board.take(look(session, &client, &args).await?);
    let is_redrawn = args.format == Format::Table && !args.no_reset && std::io::stdout().is_terminal();
    let mut looks = tokio::time::interval(args.interval.max(Duration::from_millis(100)));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks.tick().await;
    loop {
        looks.tick().await;
        board.take(look(session, &client, &args).await?);
        let text = match args.format {
            Format::Json => board.json()?,
            Format::Table => board.table(args.all_namespaces),
        };
        let clear = if is_redrawn && !args.no_stream { CLEAR } else { "" };
        session.host.output.data(format!("{clear}{text}").as_bytes())?;
        if args.no_stream {
            return Ok(0);
        }
    }
}

async fn look(session: &Session<'_>, client: &Client, args: &StatsArgs) -> Result<Vec<ContainerStats>, CliError> {
    if args.containers.is_empty() {
        let namespace = || ListFilter::Namespace(session.namespace.clone());
        let filter = if args.all_namespaces { ListFilter::All } else { namespace() };
        return Ok(client.all_stats(filter, Deadline::Usual).await?);
    }
    let mut all = Vec::new();
    for container in &args.containers {
        let target: Target = session.target(container.clone());
        all.push(client.stats(target, Deadline::Usual).await?);
    }
    Ok(all)
}

/// The last two looks, and some of those before.
#[derive(Debug, Default)]
struct Board {
    rows: Vec<Row>,
}

/// One container.
#[derive(Debug)]
struct Row {
    stats: ContainerStats,
    /// Processors in use since the look before.
    cpu: Option<f64>,
    cpus: VecDeque<f64>,
    memories: VecDeque<f64>,
}

impl Board {
    /// Takes the next look; those that have ended are gone.
    fn take(&mut self, looked: Vec<ContainerStats>) {
        let mut before: HashMap<ContainerId, Row> =
            self.rows.drain(..).map(|row| (row.stats.id.clone(), row)).collect();
        self.rows = looked.into_iter().map(|stats| Row::follow(before.remove(&stats.id), stats)).collect();
    }

    fn table(&self, has_namespaces: bool) -> String {
        let head = ["NAME", "CPU %", "", "MEM USAGE / LIMIT", "MEM %", "", "NET I/O", "BLOCK I/O", "PIDS"];
        let mut head: Vec<String> = head.map(str::to_owned).to_vec();
        if has_namespaces {
            head.insert(0, "NAMESPACE".to_owned());
        }
        let rows = self.rows.iter().map(|row| {
            let mut cells = row.cells();
            if has_namespaces {
                cells.insert(0, row.stats.namespace.to_string());
            }
            cells
        });
        table::render(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
    }

    fn json(&self) -> Result<String, CliError> {
        let mut text = String::new();
        for row in &self.rows {
            text.push_str(&serde_json::to_string(&View::of(row))?);
            text.push('\n');
        }
        Ok(text)
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
impl Row {
    /// Goes on with what the look before told of the same run.
    fn follow(before: Option<Self>, stats: ContainerStats) -> Self {
        let before = before.filter(|row| row.stats.pid == stats.pid);
        let cpu = before.as_ref().and_then(|row| {
            let used = stats.usage.cpu.total_ns?.checked_sub(row.stats.usage.cpu.total_ns?)?;
            let over = stats.monotonic_ns.checked_sub(row.stats.monotonic_ns).filter(|over| *over > 0)?;
            Some(used as f64 / over as f64)
        });
        let (mut cpus, mut memories) = before.map(|row| (row.cpus, row.memories)).unwrap_or_default();
        let push = |values: &mut VecDeque<f64>, value: Option<f64>| {
            values.extend(value);
            values.drain(..values.len().saturating_sub(HISTORY));
        };
        push(&mut cpus, cpu);
        push(&mut memories, stats.usage.memory.bytes.map(|bytes| bytes as f64));
        Self { stats, cpu, cpus, memories }
    }

    fn cells(&self) -> Vec<String> {
        let usage = &self.stats.usage;
        let unknown = || UNKNOWN.to_owned();
        let bytes = |count: Option<u64>| count.map_or_else(unknown, amounts::bytes);
        let limit = usage.memory.limit_bytes;
        let part = usage.memory.bytes.zip(limit).map(|(bytes, limit)| bytes as f64 / (limit.max(1)) as f64);
        // Against its limit where it has one, otherwise against the most that is shown.
        let most = |values: &VecDeque<f64>| values.iter().copied().fold(0.0, f64::max);
        let network = self.stats.network.map(|network| (network.received_bytes, network.sent_bytes));
        vec![
            self.stats.name.to_string(),
            self.cpu.map_or_else(unknown, amounts::percent),
            amounts::bars(self.cpus.iter().copied(), most(&self.cpus).max(1.0)),
            format!("{} / {}", bytes(usage.memory.bytes), limit.map_or_else(|| "none".to_owned(), amounts::bytes)),
            part.map_or_else(unknown, amounts::percent),
            amounts::bars(
                self.memories.iter().copied(),
                limit.map_or_else(|| most(&self.memories), |limit| limit as f64),
            ),
            network.map_or_else(unknown, |(in_, out)| format!("{} / {}", amounts::bytes(in_), amounts::bytes(out))),
            format!("{} / {}", bytes(usage.io.read_bytes), bytes(usage.io.written_bytes)),
            usage.pids.count.map_or_else(unknown, |count| count.to_string()),
        ]
    }
}

/// A look as JSON. Programs rely on these fields; add, never rename.
#[derive(Debug, Serialize)]
struct View<'a> {
    id: &'a str,
    name: &'a str,
    namespace: &'a str,
    pid: i32,
    cpu_percent: Option<f64>,
    cpu_seconds: Option<f64>,
    cpu_user_seconds: Option<f64>,
    cpu_system_seconds: Option<f64>,
    throttled_periods: Option<u64>,
    throttled_seconds: Option<f64>,
    memory_bytes: Option<u64>,
    working_set_bytes: Option<u64>,
    anonymous_bytes: Option<u64>,
    file_bytes: Option<u64>,
    swap_bytes: Option<u64>,
    memory_peak_bytes: Option<u64>,
    memory_limit_bytes: Option<u64>,
    oom_kills: Option<u64>,
    pids: Option<u64>,
    pids_limit: Option<u64>,
    network_received_bytes: Option<u64>,
    network_sent_bytes: Option<u64>,
    block_read_bytes: Option<u64>,
    block_written_bytes: Option<u64>,
    pressure_cpu_seconds: Option<f64>,
    pressure_memory_seconds: Option<f64>,
    pressure_io_seconds: Option<f64>,
}

impl<'a> View<'a> {
    fn of(row: &'a Row) -> Self {
        let ContainerStats { id, name, namespace, pid, usage, network, .. } = &row.stats;
        let seconds = |ns: Option<u64>| ns.map(|ns| Duration::from_nanos(ns).as_secs_f64());
        let PressureUsage { cpu_ns, memory_ns, io_ns } = usage.pressure;
        Self {
            id: id.as_str(),
            name: name.as_str(),
            namespace: namespace.as_str(),
            pid: pid.0,
            cpu_percent: row.cpu.map(|cpus| cpus * 100.0),
            cpu_seconds: seconds(usage.cpu.total_ns),
            cpu_user_seconds: seconds(usage.cpu.user_ns),
            cpu_system_seconds: seconds(usage.cpu.system_ns),
            throttled_periods: usage.cpu.throttled_periods,
            throttled_seconds: seconds(usage.cpu.throttled_ns),
            memory_bytes: usage.memory.bytes,
            working_set_bytes: usage.memory.working_set_bytes,
            anonymous_bytes: usage.memory.anonymous_bytes,
            file_bytes: usage.memory.file_bytes,
            swap_bytes: usage.memory.swap_bytes,
            memory_peak_bytes: usage.memory.peak_bytes,
            memory_limit_bytes: usage.memory.limit_bytes,
            oom_kills: usage.memory.oom_kills,
            pids: usage.pids.count,
            pids_limit: usage.pids.limit,
            network_received_bytes: network.map(|network| network.received_bytes),
            network_sent_bytes: network.map(|network| network.sent_bytes),
            block_read_bytes: usage.io.read_bytes,
            block_written_bytes: usage.io.written_bytes,
            pressure_cpu_seconds: seconds(cpu_ns),
            pressure_memory_seconds: seconds(memory_ns),
            pressure_io_seconds: seconds(io_ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::samples;

    #[test]
    fn rates_are_the_difference_of_two_looks_of_one_run() {
        let mut stats = samples::stats();
        let mut board = Board::default();
        let mut look = |board: &mut Board, seconds: u64, busy: u64, pid: i32| {
            stats.monotonic_ns = seconds * 1_000_000_000;
            stats.usage.cpu.total_ns = Some(busy);
            stats.pid = contd_types::Pid(pid);
            board.take(vec![stats.clone()]);
            board.rows[0].cpu
        };
        assert_eq!(look(&mut board, 1, 5_000_000_000, 7), None);
        assert_eq!(look(&mut board, 3, 6_000_000_000, 7), Some(0.5));
        assert_eq!(look(&mut board, 4, 1_000_000_000, 8), None, "another run");
        for second in 5..30 {
            look(&mut board, second, (second - 4) * 1_000_000_000 / 4, 8);
        }
        assert_eq!((board.rows[0].cpus.len(), board.rows[0].memories.len()), (HISTORY, HISTORY));
        board.take(Vec::new());
        assert_eq!(board.table(false).lines().count(), 1, "it has ended");
    }

    #[test]
    fn the_help_names_every_field() {
        let mut board = Board::default();
        board.take(vec![samples::stats()]);
        let value: serde_json::Value = serde_json::from_str(&board.json().expect("JSON")).expect("JSON");
        for field in value.as_object().expect("an object").keys() {
            let is_named = FIELDS_HELP.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == field);
            assert!(is_named, "{field} is missing");
        }
    }

    #[test]
    fn a_table_says_what_is_not_known() {
        let mut stats = samples::stats();
        stats.usage.memory.limit_bytes = None;
        stats.usage.io = contd_types::IoUsage::default();
        let mut board = Board::default();
        board.take(vec![stats]);
        let text = board.table(true);
        let row = text.lines().nth(1).expect("a row");
        for words in ["default", "web", "--", "64.0MiB / none", "-- / --"] {
            assert!(row.contains(words), "{words}: {row}");
        }
    }
}
