//! `contd logs`: shows a container's output, each stream on the same stream of ours.

use contd_client::LogsOptions;
use contd_protocol::api::{LogItem, LogStream};
use contd_types::ContainerRef;

use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::output::Pump;
use crate::cli::parse::{self, Tail};

/// The flags of `contd logs`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LogsArgs {
    /// Follow the output until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Show only the last N lines, or all
    #[arg(long, value_name = "LINES|all", default_value = "all", value_parser = parse::lines)]
    tail: Tail,
    /// Write the time before each line
    #[arg(short, long)]
    timestamps: bool,
    /// Name, id, or the beginning of an id
    #[arg(value_parser = parse::container)]
    container: ContainerRef,
}

/// Shows the output.
pub(crate) async fn run(session: &Session<'_>, args: LogsArgs) -> Result<(), CliError> {
    let options = LogsOptions { is_following: args.follow, tail: args.tail.0 };
    let target = session.target(args.container);
    let mut logs = session.follow().await?.logs(target, options).await?;
    let pump = Pump::start(&session.host.output);
    let mut stamper = args.timestamps.then(Stamper::default);
    while let Some(item) = logs.next().await {
        let item = match item {
            Ok(item) => item,
            Err(error) => {
                // Show the output that came before the error.
                pump.finish().await?;
                return Err(error.into());
            }
        };
        let stream = item.stream;
        let bytes = match &mut stamper {
            Some(stamper) => stamper.stamp(&item),
            None => item.content,
        };
        let Some(room) = pump.room().await else { break };
        room.send((stream, bytes));
    }
    pump.finish().await
}

/// Writes the time before each line, also when a line comes in several pieces.
#[derive(Debug, Default)]
struct Stamper {
    is_mid_stdout: bool,
    is_mid_stderr: bool,
}

impl Stamper {
    fn stamp(&mut self, item: &LogItem) -> Vec<u8> {
        let is_mid = match item.stream {
            LogStream::Stdout => &mut self.is_mid_stdout,
            LogStream::Stderr => &mut self.is_mid_stderr,
        };
        let stamp = format!("{} ", item.at);
        let mut bytes = Vec::with_capacity(item.content.len() + stamp.len());
        for line in item.content.split_inclusive(|&byte| byte == b'\n') {
            if !*is_mid {
                bytes.extend_from_slice(stamp.as_bytes());
            }
            bytes.extend_from_slice(line);
            *is_mid = line.last() != Some(&b'\n');
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_types::Timestamp;

    #[test]
    fn each_line_is_stamped_once_however_it_is_cut() {
        let mut stamper = Stamper::default();
        let mut stamp = |stream, text: &str| {
            let item = LogItem { at: Timestamp(0), stream, content: text.as_bytes().to_vec() };
            String::from_utf8(stamper.stamp(&item)).expect("text")
        };
        let at = Timestamp(0).to_string();
        assert_eq!(stamp(LogStream::Stdout, "a\nb"), format!("{at} a\n{at} b"));
        assert_eq!(stamp(LogStream::Stderr, "e\n"), format!("{at} e\n"));
        assert_eq!(stamp(LogStream::Stdout, "c\n"), "c\n");
        assert_eq!(stamp(LogStream::Stdout, "\n"), format!("{at} \n"));
    }
}
