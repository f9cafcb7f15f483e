//! Describes the state of a container in the words of `ps`.

use std::time::Duration;

use contd_types::{State, Timestamp};

/// Returns the description of a state, as of `now`.
pub(crate) fn describe(state: &State, started_at: Option<Timestamp>, now: Timestamp) -> String {
    let up = || match started_at {
        Some(at) => format!("Up {}", rough(now.saturating_since(at))),
        None => "Up".to_owned(),
    };
    match state {
        State::Creating => "Creating".to_owned(),
        State::Created { .. } | State::Prepared => "Created".to_owned(),
        State::Starting { .. } => "Starting".to_owned(),
        State::Running { .. } => up(),
        State::Paused { .. } => format!("{} (Paused)", up()),
        State::Stopping { .. } => "Stopping".to_owned(),
        State::Stopped { exit } => format!("Exited ({}) {}", exit.shell_code(), ago(exit.at, now)),
        State::Backoff { exit, attempt, until } => {
            let wait = rough(until.saturating_since(now));
            format!("Backoff (restart {attempt} in {wait}, exited with {})", exit.shell_code())
        }
        State::Failed { step, .. } => format!("Failed ({step})"),
        State::Recovering => "Recovering".to_owned(),
        State::Deleting => "Deleting".to_owned(),
        State::Lingering { reason } => format!("Deleting ({reason})"),
    }
}

/// Tells whether `ps` shows the container without `-a`: it runs, will run, or is being made or ended.
pub(crate) fn is_alive(state: &State) -> bool {
    !matches!(state, State::Stopped { .. } | State::Failed { .. } | State::Prepared)
}

/// Returns how long ago a time was, as text.
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", rough(now.saturating_since(at)))
}

/// Formats a duration in its largest unit.
fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        86_400..31_536_000 => (seconds / 86_400, "day"),
        _ => (seconds / 31_536_000, "year"),
    };
    if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_types::{Exit, ExitCause, ExitSource, Pid, Step};

    const NOW: Timestamp = Timestamp(1_000_000_000_000_000);

    fn before(seconds: u64) -> Timestamp {
        Timestamp(NOW.0 - seconds * 1_000_000_000)
    }

    #[test]
    fn each_state_has_its_words() {
        let exit = |code, seconds| Exit {
            cause: ExitCause::Code(code),
            at: before(seconds),
            oom_kills: 0,
            source: ExitSource::Reaped,
            is_drained: true,
        };
        let pid = Pid(1);
        let until = NOW.saturating_add(Duration::from_secs(4));
        for (state, words) in [
            (State::Running { pid }, "Up 3 minutes"),
            (State::Paused { pid }, "Up 3 minutes (Paused)"),
            (State::Stopped { exit: exit(0, 120) }, "Exited (0) 2 minutes ago"),
            (State::Stopped { exit: exit(7, 1) }, "Exited (7) 1 second ago"),
            (State::Backoff { exit: exit(1, 1), attempt: 3, until }, "Backoff (restart 3 in 4 seconds, exited with 1)"),
            (State::Failed { step: Step::Rootfs, reason: "x".into() }, "Failed (rootfs)"),
            (State::Recovering, "Recovering"),
            (State::Lingering { reason: "a mount is busy".into() }, "Deleting (a mount is busy)"),
        ] {
            assert_eq!(describe(&state, Some(before(185)), NOW), words);
        }
    }

    #[test]
    fn durations_are_said_in_their_largest_unit() {
        for (seconds, words) in [
            (0, "0 seconds"),
            (59, "59 seconds"),
            (60, "1 minute"),
            (7200, "2 hours"),
            (90_000, "1 day"),
            (70_000_000, "2 years"),
        ] {
            assert_eq!(rough(Duration::from_secs(seconds)), words);
        }
    }
}
