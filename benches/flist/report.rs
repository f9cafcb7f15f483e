//! The result table: measurement, contd, ext4, EROFS, reached and goal, and the real `rfs`.

use std::fmt;

use crate::forms::Comparison;
use crate::stats::{Goal, Samples};

/// The headers of the columns.
const HEADS: [&str; 8] = ["what", "contd", "ext4", "EROFS", "reached (p10 to p90, n)", "goal", "", "rfs"];

/// Rows, in the order of the measurements.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<[String; 8]>);

impl Table {
    /// Adds a flist with its blocks in the cache beside ext4.
    pub(crate) fn kept(&mut self, what: &str, comparison: &Comparison, goal: Goal, rfs: Option<f64>) {
        self.compare(what, &comparison.kept, &comparison.kept_ratio, comparison, goal, rfs);
    }

    /// Adds a flist with an empty block cache beside ext4.
    pub(crate) fn empty(&mut self, what: &str, comparison: &Comparison, goal: Goal, rfs: Option<f64>) {
        self.compare(what, &comparison.empty, &comparison.empty_ratio, comparison, goal, rfs);
    }

    fn compare(
        &mut self,
        what: &str,
        ours: &Samples,
        ratios: &Samples,
        comparison: &Comparison,
        goal: Goal,
        rfs: Option<f64>,
    ) {
        let erofs = if comparison.has_erofs { duration(comparison.erofs.median()) } else { "-".to_owned() };
        self.push([
            what.to_owned(),
            duration(ours.median()),
            duration(comparison.ext4.median()),
            erofs,
            spread(ratios, ratio),
            goal_text(goal, ratio),
            verdict(goal, ratios.median()).to_owned(),
            rfs.map_or_else(String::new, ratio),
        ]);
    }

    /// Adds a figure with a goal of its own.
    pub(crate) fn value(&mut self, what: &str, values: &Samples, show: fn(f64) -> String, goal: Goal) {
        self.beside(what, values, show, "-", goal);
    }

    /// Adds a figure with a goal of its own, and the one of EROFS.
    pub(crate) fn beside(&mut self, what: &str, values: &Samples, show: fn(f64) -> String, erofs: &str, goal: Goal) {
        self.push([
            what.to_owned(),
            show(values.median()),
            "-".to_owned(),
            erofs.to_owned(),
            spread(values, show),
            goal_text(goal, show),
            verdict(goal, values.median()).to_owned(),
            String::new(),
        ]);
    }

    /// Adds our figure beside another of the same run that is neither ext4 nor EROFS.
    pub(crate) fn over(&mut self, what: &str, [ours, theirs]: [String; 2], ratios: &Samples, goal: Goal) {
        self.over_rfs(what, [ours, theirs], ratios, goal, None);
    }

    /// Adds the same with the figure of the real `rfs`.
    pub(crate) fn over_rfs(
        &mut self,
        what: &str,
        [ours, theirs]: [String; 2],
        ratios: &Samples,
        goal: Goal,
        rfs: Option<f64>,
    ) {
        self.push([
            what.to_owned(),
            ours,
            theirs,
            "-".to_owned(),
            spread(ratios, ratio),
            goal_text(goal, ratio),
            verdict(goal, ratios.median()).to_owned(),
            rfs.map_or_else(String::new, ratio),
        ]);
    }

    /// Adds a measurement that could not be made, with the reason.
    pub(crate) fn skipped(&mut self, what: &str, why: &str) {
        let dash = || "-".to_owned();
        self.push([
            what.to_owned(),
            dash(),
            dash(),
            dash(),
            format!("skipped: {why}"),
            String::new(),
            String::new(),
            String::new(),
        ]);
    }

    fn push(&mut self, row: [String; 8]) {
        eprintln!("{}", row.join(" | "));
        self.0.push(row);
    }
}

/// Formats as Markdown, with aligned columns.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = HEADS.map(str::to_owned);
        let rows: Vec<&[String; 8]> = [&heads].into_iter().chain(&self.0).collect();
        let widths: Vec<usize> =
            (0..HEADS.len()).map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
        for (number, row) in rows.iter().enumerate() {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
            write!(f, "{}| {} |", if number > 0 { "\n" } else { "" }, cells.join(" | "))?;
            if number == 0 {
                let rules: Vec<String> = widths.iter().map(|&width| "-".repeat(width.max(3))).collect();
                write!(f, "\n| {} |", rules.join(" | "))?;
            }
        }
        Ok(())
    }
}

/// Formats milliseconds for people.
pub(crate) fn duration(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{:.0} µs", ms * 1e3),
        ms if ms < 1e3 => format!("{ms:.1} ms"),
        ms => format!("{:.2} s", ms / 1e3),
    }
}

/// Formats a ratio.
pub(crate) fn ratio(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}x") } else { format!("{value:.0}x") }
}

/// Formats MiB.
pub(crate) fn mib(value: f64) -> String {
    format!("{value:.1} MiB")
}

/// Formats bytes.
pub(crate) fn bytes(value: f64) -> String {
    format!("{value:.0} B")
}

/// Formats MiB per second.
pub(crate) fn throughput(value: f64) -> String {
    format!("{value:.0} MiB/s")
}

/// Formats a count.
pub(crate) fn count(value: f64) -> String {
    format!("{value:.0}")
}

fn spread(values: &Samples, show: fn(f64) -> String) -> String {
    if values.count() == 1 {
        return show(values.median());
    }
    let (low, high) = (show(values.quantile(0.1)), show(values.quantile(0.9)));
    format!("{} ({low} to {high}, {})", show(values.median()), values.count())
}

fn goal_text(goal: Goal, show: fn(f64) -> String) -> String {
    match goal {
        Goal::AtMost(most) => format!("at most {}", show(most)),
        Goal::AtLeast(least) => format!("at least {}", show(least)),
        Goal::None => String::new(),
    }
}

fn verdict(goal: Goal, reached: f64) -> &'static str {
    let is_met = match goal {
        Goal::AtMost(most) => reached <= most,
        Goal::AtLeast(least) => reached >= least,
        Goal::None => return "",
    };
    if is_met { "met" } else { "MISSED" }
}
