//! `contd logs`: shows the output of containers, each stream on the same stream of ours.
//!
//! The output of one container is passed on byte by byte. Of several, each line has the container's name before it, and a line is
//! passed on when it is whole, so that those of others never come between.

use std::collections::VecDeque;
use std::time::Duration;

use contd_client::{FollowedLog, Follower, LogsOptions};
use contd_protocol::api::{LogItem, LogStream};
use contd_types::{ContainerRef, Timestamp};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::cli::args::Containers;
use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::moment::{Moment, moment};
use crate::cli::output::Pump;
use crate::cli::parse::{self, Tail};

/// The most bytes of an unfinished line that wait for its end, when there are several containers.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// The flags of `contd logs`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LogsArgs {
    /// Follow the output until the containers end
    #[arg(short, long)]
    follow: bool,
    /// Show only the last N lines of each, or all
    #[arg(short = 'n', long, value_name = "LINES|all", default_value = "all", value_parser = parse::lines)]
    tail: Tail,
    /// Show only what was written from then on: a time, or how long ago (10m)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Moment>,
    /// Show only what was written up to then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Moment>,
    /// Write the time before each line
    #[arg(short, long)]
    timestamps: bool,
    #[command(flatten)]
    which: Containers,
}

/// The part of the output that is shown.
#[derive(Debug, Clone, Copy)]
struct Part {
    since: Timestamp,
    until: Timestamp,
    /// The lines to keep of those up to `until`, which the daemon does not know.
    last: Option<u64>,
    /// How long it is until `until`; `None` when that has passed, or never comes.
    left: Option<Duration>,
    options: LogsOptions,
}

impl Part {
    fn of(args: &LogsArgs, now: Timestamp) -> Self {
        let until = args.until.map(|until| until.resolve(now));
        let is_past = until.is_some_and(|until| until <= now);
        Self {
            since: args.since.map_or(Timestamp(0), |since| since.resolve(now)),
            until: until.unwrap_or(Timestamp(u64::MAX)),
            last: args.tail.0.filter(|_| is_past),
            left: until.map(|until| until.saturating_since(now)).filter(|_| !is_past),
            options: LogsOptions { is_following: args.follow && !is_past, tail: args.tail.0.filter(|_| !is_past) },
        }
    }

    fn has(&self, at: Timestamp) -> bool {
        self.since <= at && at <= self.until
    }
}

/// Shows the output.
pub(crate) async fn run(session: &Session<'_>, args: LogsArgs) -> Result<u8, CliError> {
    let part = Part::of(&args, session.host.clock.now());
    let follower = session.follow().await?;
    let pump = Pump::start(&session.host.output);
    let show = |container: ContainerRef, are_several: bool| {
        let prefix = if are_several { format!("{container} | ") } else { String::new() };
        let mut form = Form::new(prefix, args.timestamps);
        let (follower, pump) = (&follower, &pump);
        async move { show(session, follower, pump, container, part, &mut form).await }
    };
    let are_several = args.which.containers.len() > 1;
    let mut results = Vec::new();
    if part.options.is_following {
        let all: FuturesUnordered<_> =
            args.which.containers.into_iter().map(|container| show(container, are_several)).collect();
        results = all.collect().await;
    } else {
        for container in args.which.containers {
            results.push(show(container, are_several).await);
        }
    }
    // Lines from before an error are shown before it; a closed output is no more important.
    let written = pump.finish().await;
    let mut code = 0;
    for error in results.into_iter().filter_map(Result::err) {
        error.report(&session.host.output);
        code = error.code();
    }
    written.map(|()| code)
}

/// Shows the output of one container; returns when our output is closed, too.
async fn show(
    session: &Session<'_>,
    follower: &Follower,
    pump: &Pump,
    container: ContainerRef,
    part: Part,
    form: &mut Form,
) -> Result<(), CliError> {
    let mut log = follower.logs(session.target(container), part.options).await?;
    let mut last = part.last.map(Last::new);
    let over = tokio::time::sleep(part.left.unwrap_or(Duration::MAX));
    tokio::pin!(over);
    let result = loop {
        let item = tokio::select! {
            item = next(&mut log) => item,
            () = &mut over, if part.left.is_some() => None,
        };
        match item {
            None => break Ok(()),
            Some(Err(error)) => break Err(error),
            Some(Ok(item)) if !part.has(item.at) => {}
            Some(Ok(item)) => match &mut last {
                Some(last) => last.push(&item),
                None => {
                    if !pass_on(pump, form.put(item)).await {
                        return Ok(());
                    }
                }
            },
        }
    };
    for item in last.into_iter().flat_map(|last| last.pieces) {
        if !pass_on(pump, form.put(item)).await {
            return Ok(());
        }
    }
    for (stream, bytes) in form.rest() {
        if !pass_on(pump, (stream, bytes)).await {
            return Ok(());
        }
    }
    result
}

async fn next(log: &mut FollowedLog) -> Option<Result<LogItem, CliError>> {
    log.next().await.map(|item| item.map_err(CliError::from))
}

/// False when our output is closed.
async fn pass_on(pump: &Pump, (stream, bytes): (LogStream, Vec<u8>)) -> bool {
    if bytes.is_empty() {
        return true;
    }
    let Some(room) = pump.room().await else { return false };
    room.send((stream, bytes));
    true
}

/// The last lines of what was pushed, in pieces.
#[derive(Debug)]
struct Last {
    most: u64,
    /// How many of the pieces end a line.
    lines: u64,
    pieces: VecDeque<LogItem>,
}

impl Last {
    fn new(most: u64) -> Self {
        Self { most, lines: 0, pieces: VecDeque::new() }
    }

    fn push(&mut self, item: &LogItem) {
        let is_end = |piece: &LogItem| piece.content.last() == Some(&b'\n');
        for line in item.content.split_inclusive(|&byte| byte == b'\n') {
            let piece = LogItem { at: item.at, stream: item.stream, content: line.to_vec() };
            self.lines += u64::from(is_end(&piece));
            self.pieces.push_back(piece);
            while self.lines > self.most {
                let first = self.pieces.pop_front();
                self.lines -= u64::from(first.is_some_and(|first| is_end(&first)));
            }
        }
    }
}

/// The form in which the output of one container is shown.
#[derive(Debug)]
struct Form {
    /// Stands before each line; empty for a container that is alone.
    prefix: String,
    has_times: bool,
    stdout: Line,
    stderr: Line,
}

/// A line that has begun.
#[derive(Debug, Default)]
struct Line {
    has_begun: bool,
    /// The unfinished line, which waits for its end when there are several containers.
    waits: Vec<u8>,
}

impl Form {
    fn new(prefix: String, has_times: bool) -> Self {
        Self { prefix, has_times, stdout: Line::default(), stderr: Line::default() }
    }

    /// Returns what is to be shown now.
    fn put(&mut self, item: LogItem) -> (LogStream, Vec<u8>) {
        if self.prefix.is_empty() && !self.has_times {
            return (item.stream, item.content);
        }
        let stamp = if self.has_times { format!("{} ", item.at) } else { String::new() };
        let line = match item.stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        };
        let mut bytes = std::mem::take(&mut line.waits);
        for part in item.content.split_inclusive(|&byte| byte == b'\n') {
            if !line.has_begun {
                bytes.extend_from_slice(self.prefix.as_bytes());
                bytes.extend_from_slice(stamp.as_bytes());
            }
            bytes.extend_from_slice(part);
            line.has_begun = part.last() != Some(&b'\n');
        }
        if !self.prefix.is_empty() && line.has_begun {
            let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
            if bytes.len() - whole < MAX_LINE_BYTES {
                line.waits = bytes.split_off(whole);
            } else {
                // Too long to wait for: its rest is a line of its own.
                bytes.push(b'\n');
                line.has_begun = false;
            }
        }
        (item.stream, bytes)
    }

    /// Returns the lines whose end has not come.
    fn rest(&mut self) -> [(LogStream, Vec<u8>); 2] {
        [(LogStream::Stdout, &mut self.stdout), (LogStream::Stderr, &mut self.stderr)].map(|(stream, line)| {
            let mut rest = std::mem::take(&mut line.waits);
            line.has_begun = false;
            if !rest.is_empty() {
                rest.push(b'\n');
            }
            (stream, rest)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(at: u64, stream: LogStream, text: &str) -> LogItem {
        LogItem { at: Timestamp(at), stream, content: text.as_bytes().to_vec() }
    }

    fn put(form: &mut Form, stream: LogStream, text: &str) -> String {
        String::from_utf8(form.put(item(0, stream, text)).1).expect("text")
    }

    #[test]
    fn each_line_is_stamped_once_however_it_is_cut() {
        let mut form = Form::new(String::new(), true);
        let at = Timestamp(0).to_string();
        assert_eq!(put(&mut form, LogStream::Stdout, "a\nb"), format!("{at} a\n{at} b"));
        assert_eq!(put(&mut form, LogStream::Stderr, "e\n"), format!("{at} e\n"));
        assert_eq!(put(&mut form, LogStream::Stdout, "c\n"), "c\n");
        assert_eq!(put(&mut form, LogStream::Stdout, "\n"), format!("{at} \n"));
    }

    #[test]
    fn of_several_containers_a_line_comes_whole_with_the_name_before_it() {
        let mut form = Form::new("web | ".to_owned(), false);
        assert_eq!(put(&mut form, LogStream::Stdout, "a\nb"), "web | a\n");
        assert_eq!(put(&mut form, LogStream::Stderr, "e\n"), "web | e\n");
        assert_eq!(put(&mut form, LogStream::Stdout, "c"), "");
        assert_eq!(put(&mut form, LogStream::Stdout, "d\n"), "web | bcd\n");
        assert_eq!(put(&mut form, LogStream::Stdout, "rest"), "");
        assert_eq!(form.rest(), [(LogStream::Stdout, b"web | rest\n".to_vec()), (LogStream::Stderr, Vec::new())]);
        let long = "x".repeat(MAX_LINE_BYTES);
        assert_eq!(put(&mut form, LogStream::Stdout, &long), format!("web | {long}\n"));
        assert_eq!(put(&mut form, LogStream::Stdout, "y\n"), "web | y\n");
    }

    #[test]
    fn the_last_lines_are_kept_however_they_are_cut() {
        let kept = |most, texts: &[&str]| {
            let mut last = Last::new(most);
            texts.iter().for_each(|text| last.push(&item(0, LogStream::Stdout, text)));
            let pieces = last.pieces.into_iter().map(|piece| String::from_utf8(piece.content).expect("text"));
            pieces.collect::<String>()
        };
        let all = ["a\nb", "b\nc\n", "d\n"];
        assert_eq!(kept(2, &all), "c\nd\n");
        assert_eq!(kept(3, &all), "bb\nc\nd\n");
        assert_eq!(kept(9, &all), "a\nbb\nc\nd\n");
        assert_eq!(kept(0, &all), "");
    }

    #[test]
    fn the_daemon_is_asked_for_the_tail_unless_it_ends_in_the_past() {
        let args = |until| LogsArgs {
            follow: true,
            tail: Tail(Some(5)),
            since: Some(Moment::Ago(Duration::from_nanos(60))),
            until,
            timestamps: false,
            which: Containers { containers: Vec::new() },
        };
        let open = Part::of(&args(None), Timestamp(100));
        assert!(
            open.options.is_following && open.options.tail == Some(5) && open.last.is_none() && open.left.is_none()
        );
        assert!(open.has(Timestamp(40)) && open.has(Timestamp(1000)) && !open.has(Timestamp(39)));
        let later = Part::of(&args(Some(Moment::At(Timestamp(130)))), Timestamp(100));
        assert!(later.options.tail == Some(5) && later.left == Some(Duration::from_nanos(30)));
        let past = Part::of(&args(Some(Moment::At(Timestamp(90)))), Timestamp(100));
        assert!(!past.options.is_following && past.options.tail.is_none() && past.last == Some(5));
        assert!(past.has(Timestamp(90)) && !past.has(Timestamp(91)));
    }
}
