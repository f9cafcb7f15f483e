//! Whether the wall clock can be right: logs, certificates and records live by it.

use std::time::Duration;

use contd_types::{Clock, SystemClock, Timestamp};

use crate::error::LookError;
use crate::finding::Finding;
use crate::known::{RECORD, container_dirs};
use crate::node::Node;
use contd_node::EVENTS_DIR;

/// 2026-01-01: this program is younger than that.
const WRITTEN: Timestamp = Timestamp(1_767_225_600_000_000_000);
/// Clocks are set back a little now and then.
const TOLERANCE: Duration = Duration::from_secs(60);

/// Checks it.
pub(crate) fn check(node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    let dirs = container_dirs(&node.state)?;
    let records = dirs.into_iter().map(|(_, _, dir)| dir.join(RECORD));
    let journal = node.state.join(EVENTS_DIR).join("journal.jsonl");
    let changed = |path: std::path::PathBuf| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let newest = records.chain([journal]).filter_map(changed).map(Timestamp::from_system_time).max();
    Ok(vec![judge(SystemClock.now(), newest)])
}

fn judge(now: Timestamp, newest: Option<Timestamp>) -> Finding {
    if now < WRITTEN {
        return Finding::warning(format!("the clock says {now}, which is before contd was written"))
            .because("times in logs and records are wrong, and https fails: certificates are not valid yet")
            .remedy("set the clock, or let NTP do it");
    }
    match newest.filter(|newest| *newest > now.saturating_add(TOLERANCE)) {
        Some(newest) => Finding::warning(format!("the clock says {now}, but records were written at {newest}"))
            .because("it was set back: times in logs and records are not in order")
            .remedy("set the clock, or let NTP do it"),
        None => Finding::ok("the clock can be right"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    #[test]
    fn a_clock_of_1970_and_one_that_was_set_back_are_warned_of() {
        let later = WRITTEN.saturating_add(Duration::from_secs(3600));
        assert_eq!(judge(Timestamp(0), None).severity, Severity::Warning);
        assert_eq!(judge(WRITTEN, Some(later)).severity, Severity::Warning);
        assert_eq!(judge(WRITTEN, Some(WRITTEN.saturating_add(TOLERANCE))).severity, Severity::Ok);
        assert_eq!(judge(later, None).severity, Severity::Ok);
    }
}
