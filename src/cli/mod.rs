//! The command line: reads the flags, asks the daemon through `contd-client`, shows the answer.
//!
//! Scripts may rely on this: standard output is data and nothing else; standard error is for people, as `contd: error:
//! …`, `  caused by: …`, `hint: …`. Exit codes: 0, 1 for an error, 2 for wrong usage; `run` exits with the container's
//! own code, 125 when contd failed or for wrong usage, 126 and 127 when the entrypoint cannot be run or does not exist,
//! 128 + n after signal n; `create` has the same codes for its failures; `doctor` has 1 for findings and 125 when it
//! could not look. If the reader of our output goes away (`| head`), that is no error. A command in a hint can be
//! pasted as it is.
//!
//! ```text
//!  args, run_args, daemon_args ──parse, mounts, environment──► values
//!  one file per verb ──host: streams, clock, signals──► contd-client ──► view, status, table ──► output
//! ```

mod amounts;
mod args;
mod attach;
mod attached;
mod completion;
mod doctor;
mod environment;
mod error;
mod events;
mod exec;
mod filter;
mod flist;
mod host;
mod inspect;
mod kill;
mod logs;
mod man;
mod moment;
mod mounts;
mod namespaces;
mod others;
mod output;
mod parse;
mod pause;
mod progress;
mod prune;
mod ps;
mod rights_args;
mod rm;
mod run;
mod run_args;
mod shim;
mod shutdown;
mod signals;
mod start;
mod stats;
mod status;
mod stop;
mod table;
mod terminal;
#[cfg(test)]
mod tests;
mod top;
mod typing;
mod update;
mod usage;
mod version;
mod view;
mod wait;

use std::future::Future;
use std::process::ExitCode;

use clap::FromArgMatches;
use clap::parser::ValueSource;
use contd_types::ApiError;

use crate::cli::args::{Cli, Verb};
use crate::cli::error::CliError;
use crate::cli::host::{Host, Session};
use crate::cli::output::HintFlags;
pub(crate) use crate::config::DaemonArgs;

/// The function that runs the daemon; supplied by `main`, so that this module does not depend on it.
pub(crate) type DaemonMain = fn(&DaemonArgs) -> Result<(), ApiError>;

/// The stack on which a command line is parsed. A build without optimization takes half a MiB.
const GRAMMAR_STACK_BYTES: usize = 4 * 1024 * 1024;

/// Runs the command that the process was started with.
pub(crate) fn main(daemon: DaemonMain) -> ExitCode {
    let host = Host::of_process();
    // A shell asks how a line may go on.
    match with_room(completion::answer) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        Err(source) => {
            let error = CliError::Runtime { source };
            error.report(&host.output);
            return ExitCode::from(error.code());
        }
    }
    ExitCode::from(execute(std::env::args_os(), &host, daemon))
}

/// Runs a command line and returns its exit code; all messages are written by then.
pub(crate) fn execute<I>(words: I, host: &Host, daemon: DaemonMain) -> u8
where
    I: IntoIterator,
    I::Item: Into<std::ffi::OsString> + Clone,
{
    let words: Vec<std::ffi::OsString> = words.into_iter().map(Into::into).collect();
    let parsed = with_room(|| {
        let parsed = Cli::grammar().try_get_matches_from(&words).and_then(|matches| {
            let is_address_given = matches.value_source("address") == Some(ValueSource::CommandLine);
            Cli::from_arg_matches(&matches).map(|cli| (cli, is_address_given))
        });
        parsed.map_err(|error| usage::tell(error, &words, host))
    });
    let (cli, is_address_given) = match parsed {
        Ok(Ok(parsed)) => parsed,
        Ok(Err(code)) => return code,
        Err(source) => {
            let error = CliError::Runtime { source };
            error.report(&host.output);
            return error.run_code();
        }
    };
    let address = cli.address.as_deref().filter(|_| is_address_given);
    host.output.set_hint_flags(HintFlags::new(&cli.namespace, address));
    let is_run = matches!(cli.verb, Verb::Run(_) | Verb::Create(_) | Verb::Exec(_) | Verb::Attach(_));
    match carry_out(cli, host, daemon) {
        Ok(code) => code,
        Err(error) => {
            error.report(&host.output);
            if is_run { error.run_code() } else { error.code() }
        }
    }
}

/// Does something on a stack of its own size: the grammar of all verbs is built on it, and `ulimit -s` may be small.
fn with_room<T: Send>(work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("grammar".to_owned()).stack_size(GRAMMAR_STACK_BYTES);
        let thread = thread.spawn_scoped(scope, work)?;
        thread.join().map_or_else(|panic| std::panic::resume_unwind(panic), Ok)
    })
}

fn carry_out(cli: Cli, host: &Host, daemon: DaemonMain) -> Result<u8, CliError> {
    match cli.verb {
        Verb::Daemon(mut args) => {
            args.address = cli.address;
            daemon(&args).map(|()| 0).map_err(CliError::Daemon)
        }
        Verb::Flist(args) => flist::run(host, cli.address, args),
        Verb::Completion(args) => completion::run(host, &args).map(|()| 0),
        Verb::Man(args) => man::run(args).map(|()| 0),
        Verb::Doctor(mut args) => {
            args.dirs.address = cli.address;
            block_on(doctor::run(host, &args))
        }
        verb => block_on(ask_daemon(verb, &Session::new(host, cli.address, cli.namespace))),
    }
}

fn block_on(work: impl Future<Output = Result<u8, CliError>>) -> Result<u8, CliError> {
    block_on_result(work)?
}

/// Runs a future that asks the daemon, on its own event loop.
fn block_on_result<T>(work: impl Future<Output = T>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::Runtime { source })?;
    let result = runtime.block_on(work);
    // A thread that is blocked by the reader of our output must not keep the process.
    runtime.shutdown_background();
    Ok(result)
}

async fn ask_daemon(verb: Verb, session: &Session<'_>) -> Result<u8, CliError> {
    match verb {
        Verb::Run(args) => Box::pin(run::run(session, &args)).await,
        Verb::Create(args) => Box::pin(run::create(session, &args)).await,
        Verb::Update(args) => update::run(session, args).await,
        Verb::Shim(args) => shim::run(session, args).await,
        Verb::Start(args) => Box::pin(start::run(session, args)).await,
        Verb::Ps(args) => ps::run(session, &args).await.map(|()| 0),
        Verb::Inspect(args) => inspect::run(session, args).await,
        Verb::Logs(args) => logs::run(session, args).await,
        Verb::Stop(args) => stop::run(session, args).await,
        Verb::Stats(args) => stats::run(session, args).await,
        Verb::Top(args) => top::run(session, args).await.map(|()| 0),
        Verb::Restart(args) => stop::restart(session, args).await,
        Verb::Pause(args) => pause::run(session, args, true).await,
        Verb::Unpause(args) => pause::run(session, args, false).await,
        Verb::Kill(args) => kill::run(session, args).await,
        Verb::Shutdown(args) => shutdown::run(session, args).await,
        Verb::Wait(args) => wait::run(session, args).await,
        Verb::Rm(args) => rm::run(session, args).await,
        Verb::Prune(args) => prune::run(session, args).await,
        Verb::Namespaces(args) => namespaces::run(session, &args).await.map(|()| 0),
        Verb::Version(args) => version::run(session, &args).await.map(|()| 0),
        Verb::Events(args) => events::run(session, args).await.map(|()| 0),
        Verb::Attach(args) => Box::pin(attach::run(session, args)).await,
        Verb::Exec(args) => Box::pin(exec::run(session, *args)).await,
        // These were carried out above: they ask no daemon.
        Verb::Daemon(_) | Verb::Doctor(_) | Verb::Flist(_) | Verb::Completion(_) | Verb::Man(_) => Ok(0),
    }
}
