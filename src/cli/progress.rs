//! The progress bar on standard error, if that is a terminal.

use std::time::Duration;

use contd_client::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use crate::cli::output::Output;

/// The bar's templates, with and without a known total.
const BAR: &str = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}";
const COUNTER: &str = "{msg} {bytes} {bytes_per_sec}";

/// A shorter operation gets no bar: it would only flicker.
const SHOWN_AFTER: Duration = Duration::from_millis(500);

/// A progress bar, shown only on a terminal and after a while. Removed when dropped.
#[derive(Debug)]
pub(crate) struct ProgressView {
    is_shown: bool,
    /// The time of the first step.
    since: Option<Instant>,
    bar: Option<ProgressBar>,
    has_total: Option<bool>,
}

impl ProgressView {
    /// Makes a progress bar that is not shown yet.
    pub(crate) fn new(output: &Output) -> Self {
        Self { is_shown: output.is_err_terminal, since: None, bar: None, has_total: None }
    }

    /// Updates the bar, and shows it when it is due.
    pub(crate) fn show(&mut self, progress: &Progress) {
        self.show_at(progress, Instant::now());
    }

    fn show_at(&mut self, progress: &Progress, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if !self.is_shown || now.saturating_duration_since(since) < SHOWN_AFTER {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()));
        let has_total = progress.total_bytes.is_some();
        if self.has_total != Some(has_total) {
            // A test checks that the templates parse; the default style will do.
            bar.set_style(style(has_total).unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.has_total = Some(has_total);
        }
        if let Some(total) = progress.total_bytes {
            bar.set_length(total);
        }
        bar.set_message(progress.what.chars().filter(|c| !c.is_control()).collect::<String>());
        bar.set_position(progress.done_bytes);
    }

    /// Removes the bar, so that output can follow.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for ProgressView {
    fn drop(&mut self) {
        self.clear();
    }
}

fn style(has_total: bool) -> Result<ProgressStyle, indicatif::style::TemplateError> {
    ProgressStyle::with_template(if has_total { BAR } else { COUNTER })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_templates_parse() {
        assert!(style(true).is_ok() && style(false).is_ok());
    }

    #[test]
    fn a_bar_is_there_only_for_what_takes_half_a_second() {
        let mut view = ProgressView::new(&Output::new(std::io::sink(), std::io::sink()));
        view.is_shown = true;
        let step = |done_bytes| Progress { what: "pack".into(), done_bytes, total_bytes: Some(44 << 10) };
        let start = Instant::now();
        for (millis, has_bar) in [(0, false), (499, false), (500, true), (501, true)] {
            view.show_at(&step(millis), start + Duration::from_millis(millis));
            assert_eq!(view.bar.is_some(), has_bar, "after {millis} ms");
        }
    }

    #[test]
    fn nothing_is_drawn_when_nobody_watches() {
        let mut view = ProgressView::new(&Output::new(std::io::sink(), std::io::sink()));
        view.show(&Progress { what: "fetch".into(), done_bytes: 1, total_bytes: None });
        assert!(view.bar.is_none());
    }
}
