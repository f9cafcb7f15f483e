//! Amounts as people type them: sizes in bytes, numbers of CPUs. All arithmetic is on whole numbers.

use crate::spec::CpuLimit;

/// Why a limit of 0, or below, is refused: docs/decisions/0018-what-is-typed.md.
pub const NO_LIMIT: &str = "would be no limit, and every container has one: write a number above 0, or leave it out for the \
    node's default";

/// Digits behind the point that count; more say nothing about bytes or milliseconds.
const FRACTION_DIGITS: usize = 9;

/// A decimal number: `whole + nanos / 10^9`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    whole: u64,
    nanos: u64,
}

impl Decimal {
    /// Understands digits with at most one point; `None` for anything else, a sign included.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        // As Go has it: `.5`, but no point without digits behind.
        let whole = if whole.is_empty() && text.starts_with('.') { "0" } else { whole };
        let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(fraction) {
            return None;
        }
        let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(FRACTION_DIGITS).collect();
        Some(Self { whole: whole.parse().ok()?, nanos: digits.parse().ok()? })
    }

    /// Returns the number times `factor`, rounded down; `None` above 2^64.
    pub fn times(self, factor: u64) -> Option<u64> {
        let nanos = (u128::from(self.whole) * 1_000_000_000 + u128::from(self.nanos)).checked_mul(factor.into())?;
        u64::try_from(nanos / 1_000_000_000).ok()
    }
}

/// Parses a size in bytes: a number, then `b`, `k`, `m`, `g` or `t` (powers of 1024; `kb` and `kib` mean the same).
///
/// # Errors
/// A sentence that says what to write instead.
pub fn size(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let split = lower.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(split);
    let factor = match unit {
        "" | "b" => Some(1),
        "k" | "kb" | "kib" => Some(1u64 << 10),
        "m" | "mb" | "mib" => Some(1 << 20),
        "g" | "gb" | "gib" => Some(1 << 30),
        "t" | "tb" | "tib" => Some(1 << 40),
        _ => None,
    };
    let size = factor.and_then(|factor| Decimal::parse(number)?.times(factor));
    size.ok_or_else(|| "not a size: write a number and b, k, m or g, for example 512m".to_owned())
}

/// Tells whether a text is a number with a minus before it.
pub fn is_below_zero(text: &str) -> bool {
    text.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Parses a number of CPUs, for example `0.5`.
///
/// # Errors
/// A sentence that says what to write instead.
pub fn cpus(text: &str) -> Result<CpuLimit, String> {
    if is_below_zero(text) || Decimal::parse(text).is_some_and(|cpus| cpus == Decimal { whole: 0, nanos: 0 }) {
        return Err(format!("{text} {NO_LIMIT}"));
    }
    let millis = Decimal::parse(text).and_then(|cpus| u32::try_from(cpus.times(1000)?).ok());
    let millis = millis.ok_or("not a number of CPUs: write for example 0.5 or 2")?;
    CpuLimit::from_millis(millis).map_err(|error| format!("{error}; {}", error.hint()))
}
