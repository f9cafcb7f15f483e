//! `contd wait`: waits for the end of containers, or for another state.

use std::time::Duration;

use contd_client::{ClientError, Follower};
use contd_protocol::api::Target;
use contd_types::{ContainerRef, ErrorKind, Exit, StateName};

use crate::cli::args::Containers;
use crate::cli::error::CliError;
use crate::cli::filter;
use crate::cli::host::Session;

/// Between two looks, when no event comes: those of another look are not missed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The flags of `contd wait`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WaitArgs {
    /// Wait until it is in this state, or was removed, and print that [default: it has ended; its exit code is printed]
    #[arg(long = "condition", value_name = "STATE|removed", value_parser = condition)]
    conditions: Vec<Condition>,
    #[command(flatten)]
    which: Containers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// It is in this state.
    State(StateName),
    /// There is none.
    Removed,
}

fn condition(text: &str) -> Result<Condition, String> {
    match text {
        "removed" => Ok(Condition::Removed),
        // docker's word for its default.
        "not-running" => Ok(Condition::State(StateName::Stopped)),
        state => filter::state(state).map(Condition::State),
    }
}

/// Waits for all containers and prints the exit code of each, in the order given. Survives a replacement of the daemon.
pub(crate) async fn run(session: &Session<'_>, args: WaitArgs) -> Result<u8, CliError> {
    let follower = session.follow().await?;
    session
        .all(args.which.containers, async |target| {
            if args.conditions.is_empty() {
                let exit = follower.wait(target).await?;
                return Ok(Some(exit.shell_code().to_string()));
            }
            until(&follower, target, &args.conditions).await.map(Some)
        })
        .await
}

/// Waits until one of the conditions is met; returns what to print.
async fn until(follower: &Follower, target: Target, conditions: &[Condition]) -> Result<String, CliError> {
    // From before the first look on, so that no change is missed.
    let mut events = follower.events(None, Some(target.namespace.clone())).await?;
    let mut target = target;
    let mut was_there = false;
    loop {
        match follower.inspect(target.clone()).await {
            Ok(info) => {
                // From now on this one, whoever gets its name.
                target.container = ContainerRef::from(&info.id);
                was_there = true;
                let state = info.state.name();
                if conditions.contains(&Condition::State(state)) {
                    let code = info.state.exit().map(Exit::shell_code).filter(|_| state == StateName::Stopped);
                    return Ok(code.map_or_else(|| state.to_string(), |code| code.to_string()));
                }
            }
            Err(ClientError::Api(error))
                if was_there && error.kind == ErrorKind::NotFound && conditions.contains(&Condition::Removed) =>
            {
                return Ok("removed".to_owned());
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => tokio::time::sleep(LOOK_AGAIN).await,
            },
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_states_in_our_words_and_dockers() {
        assert_eq!(condition("running"), Ok(Condition::State(StateName::Running)));
        assert_eq!(condition("exited"), Ok(Condition::State(StateName::Stopped)));
        assert_eq!(condition("not-running"), Ok(Condition::State(StateName::Stopped)));
        assert_eq!(condition("removed"), Ok(Condition::Removed));
        assert!(condition("up").expect_err("refused").contains("running"));
    }
}
