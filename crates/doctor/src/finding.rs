//! A finding of a check: its severity, the thing and its place, why it matters, and the remedy.

use std::fmt;
use std::path::Path;

use contd_types::ContainerId;

use crate::fix::Fix;

/// How bad it is. Everything above a note makes `contd doctor` end with code 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth to know; nothing needs to be done.
    Note,
    /// Something is left behind, or will become a problem.
    Warning,
    /// Containers cannot be run, or not as promised.
    Problem,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

/// One finding. Without a [`Fix`] it needs a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The check that found it; filled in by whoever ran that.
    pub check: &'static str,
    /// How bad.
    pub severity: Severity,
    /// The fact that was found.
    pub what: String,
    /// A path, a pid, a cgroup; empty where it is the whole node.
    pub place: String,
    /// Why it matters.
    pub why: String,
    /// The next step for a person.
    pub remedy: String,
    /// The container that it would be of.
    pub container: Option<ContainerId>,
    /// The remedy of `--fix`.
    pub fix: Option<Fix>,
}

impl Finding {
    fn new(severity: Severity, what: impl Into<String>) -> Self {
        Self {
            check: "",
            severity,
            what: what.into(),
            place: String::new(),
            why: String::new(),
            remedy: String::new(),
            container: None,
            fix: None,
        }
    }

    /// Something is as it should be.
    #[must_use]
    pub fn ok(what: impl Into<String>) -> Self {
        Self::new(Severity::Ok, what)
    }

    /// Worth to know.
    #[must_use]
    pub fn note(what: impl Into<String>) -> Self {
        Self::new(Severity::Note, what)
    }

    /// Something is left behind, or will become a problem.
    #[must_use]
    pub fn warning(what: impl Into<String>) -> Self {
        Self::new(Severity::Warning, what)
    }

    /// Containers cannot be run, or not as promised.
    #[must_use]
    pub fn problem(what: impl Into<String>) -> Self {
        Self::new(Severity::Problem, what)
    }

    /// Says where.
    #[must_use]
    pub fn at(self, path: &Path) -> Self {
        self.at_text(path.display().to_string())
    }

    /// Says where, when it is no path.
    #[must_use]
    pub fn at_text(mut self, place: impl Into<String>) -> Self {
        self.place = place.into();
        self
    }

    /// Says why it matters.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// Says what to do, for a person.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// Says which container it would be of.
    #[must_use]
    pub fn of(mut self, container: &ContainerId) -> Self {
        self.container = Some(container.clone());
        self
    }

    /// Says what `--fix` does about it, which is the remedy then.
    #[must_use]
    pub fn fixed_by(mut self, fix: Fix) -> Self {
        self.remedy = format!("contd doctor --fix {fix}");
        self.fix = Some(fix);
        self
    }

    /// Tells whether two looks have found the same thing.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        (self.check, &self.what, &self.place) == (other.check, &other.what, &other.place)
    }
}
