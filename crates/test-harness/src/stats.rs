//! Medians, their spread, and ratios beside their goals.

use std::time::{Duration, Instant};

/// Samples of one measurement; durations in milliseconds.
#[derive(Debug, Default, Clone)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Measures the time of one call.
    pub fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let result = work();
        self.push(begin.elapsed());
        result
    }

    /// Adds a duration.
    pub fn push(&mut self, duration: Duration) {
        self.0.push(duration.as_secs_f64() * 1e3);
    }

    /// Adds a value that is not a duration.
    pub fn push_value(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Returns the median.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Returns the value of a quantile, for example 0.9.
    pub fn quantile(&self, at: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * at).round() as usize]
    }

    /// Returns the number of samples.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Prints a line of a table.
    pub fn line(&self, what: &str, unit: &str) {
        let (low, high) = (self.quantile(0.1), self.quantile(0.9));
        println!("{what:44} {:9.2} {unit} median   p10 {low:.2}, p90 {high:.2}, n={}", self.median(), self.count());
    }
}

impl std::fmt::Display for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (low, high) = (self.quantile(0.1), self.quantile(0.9));
        write!(f, "{:.2} ms median ({low:.2} to {high:.2}, n={})", self.median(), self.count())
    }
}

/// The goal of a ratio.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
    /// No goal: shown for comparison.
    None,
}

/// Prints a ratio with its goal.
pub fn ratio(what: &str, ours: f64, theirs: f64, goal: Goal) {
    let ratio = ours / theirs;
    let verdict = |is_met: bool| if is_met { "met" } else { "MISSED" };
    let goal = match goal {
        Goal::AtMost(most) => format!("goal: at most {most}x   {}", verdict(ratio <= most)),
        Goal::AtLeast(least) => format!("goal: at least {least}x   {}", verdict(ratio >= least)),
        Goal::None => String::new(),
    };
    println!("  {what:42} {ratio:9.3} x          {goal}");
}
