//! Amounts as people read them.

/// The units of bytes, each 1024 of the one before.
const BYTES: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
/// How much of a unit makes one of the next.
const STEP: f64 = 1024.0;
/// Eighths of a block, from nothing on.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Formats bytes with three digits at most before the unit.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn bytes(count: u64) -> String {
    let (mut amount, mut units) = (count as f64, BYTES.iter());
    let mut unit = units.next().copied().unwrap_or_default();
    while amount >= 999.5 {
        let Some(next) = units.next() else { break };
        (amount, unit) = (amount / STEP, next);
    }
    let digits = if amount >= 99.95 || unit == "B" {
        0
    } else if amount >= 9.995 {
        1
    } else {
        2
    };
    format!("{amount:.digits$}{unit}")
}

/// Formats a part of a whole as a percentage.
pub(crate) fn percent(part: f64) -> String {
    format!("{:.2}%", part * 100.0)
}

/// Draws a value of each look as a block, the newest last; the largest fills it.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 8")]
pub(crate) fn bars(values: impl IntoIterator<Item = f64>, full: f64) -> String {
    let block = |value: f64| {
        let eighths = (value / full * 8.0).round().clamp(0.0, 8.0);
        let shown = if value > 0.0 { eighths.max(1.0) } else { eighths };
        BARS.get(shown as usize).copied().unwrap_or(' ')
    };
    values.into_iter().map(|value| if full > 0.0 { block(value) } else { ' ' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits_and_a_unit_of_1024() {
        let cases = [(0, "0B"), (999, "999B"), (1000, "0.98KiB"), (1536, "1.50KiB"), (10 << 20, "10.0MiB")];
        let more = [(123 << 30, "123GiB"), (1023 << 20, "1.00GiB"), (u64::MAX, "16384PiB")];
        for (count, shown) in cases.into_iter().chain(more) {
            assert_eq!(bytes(count), shown, "{count}");
        }
        assert_eq!(percent(0.12345), "12.35%");
    }

    #[test]
    fn bars_show_that_something_was_used_and_what_was_most() {
        assert_eq!(bars([0.0, 0.001, 0.5, 1.0, 3.0], 1.0), " ▁▄██");
        assert_eq!(bars([0.0, 0.0], 0.0), "  ");
    }
}
