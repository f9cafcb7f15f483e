//! Platforms of images: `os/arch[/variant]` with Go's names, and the order in which they suit a machine.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// A platform that an image runs on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// The operating system, for example `linux`.
    pub os: String,
    /// The processor, for example `amd64`.
    #[serde(rename = "architecture")]
    pub arch: String,
    /// The variant of the processor, for example `v7`.
    #[serde(default)]
    pub variant: Option<String>,
}

/// A text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("platform {given:?}: it is not os/arch or os/arch/variant")]
pub struct PlatformError {
    /// The text given.
    pub given: String,
}

impl Platform {
    /// Returns the platform of this machine.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            other => other,
        };
        Self { os: "linux".to_owned(), arch: arch.to_owned(), variant: None }
    }

    /// Tells whether an image for this platform runs where `asked` runs, whatever this machine can do.
    #[must_use]
    pub fn serves(&self, asked: &Self) -> bool {
        self.rank_for(asked, None).is_some()
    }

    /// Ranks how well an image for this platform suits `asked`: the lowest rank is the best; `None` if it does not run.
    ///
    /// A variant is a level of its processor: `amd64/v3` runs images built for v1 to v3. If `asked` has a variant, the nearest
    /// level below is the best. Without one it is the lowest level available, plain `amd64`, so that the result is the same
    /// on each machine and runs on all. For 32-bit ARM it is the highest level that the processor has, since such images are
    /// built separately for each. `own` is the level of this machine: if `asked` has no variant, no higher level suits.
    pub(super) fn rank_for(&self, asked: &Self, own: Option<u32>) -> Option<u32> {
        if self.os != asked.os || self.arch != asked.arch {
            return None;
        }
        match (self.step(), asked.said_variant().map(|_| asked.step())) {
            (Some(step), Some(Some(asked))) => asked.checked_sub(step),
            (Some(step), None) => {
                let most = own.unwrap_or(u32::MAX);
                let rank = if self.arch == "arm" { own.unwrap_or(ARM_STEP).abs_diff(step) } else { step };
                (step <= most).then_some(rank)
            }
            // A variant that is not a number suits only itself.
            (_, Some(_)) => (self.variant == asked.variant).then_some(0),
            (None, None) => Some(u32::MAX),
        }
    }

    fn said_variant(&self) -> Option<&str> {
        self.variant.as_deref().filter(|variant| !variant.is_empty())
    }

    /// Returns the level of the variant, or the usual level if there is no variant. `v8.1` is 8.
    fn step(&self) -> Option<u32> {
        match self.said_variant() {
            Some(variant) => variant.strip_prefix('v').unwrap_or(variant).split('.').next()?.parse().ok(),
            None => Some(match self.arch.as_str() {
                "arm" => ARM_STEP,
                "arm64" => 8,
                "amd64" => 1,
                _ => 0,
            }),
        }
    }

    /// Returns the level of this machine's processor; `None` where variants have no meaning.
    pub(super) fn step_of_this_machine() -> Option<u32> {
        own_step()
    }
}

/// The level of `arm` without a variant, as in containerd.
const ARM_STEP: u32 = 7;

/// Detects the x86-64 level, as the ABI defines it, with what the operating system must have enabled.
#[cfg(target_arch = "x86_64")]
fn own_step() -> Option<u32> {
    macro_rules! has {
        ($($feature:tt)*) => { $(std::arch::is_x86_feature_detected!($feature))&&* };
    }
    let v2 = has!("cmpxchg16b" "popcnt" "sse3" "sse4.1" "sse4.2" "ssse3");
    let v3 = v2 && has!("avx" "avx2" "bmi1" "bmi2" "f16c" "fma" "lzcnt" "movbe");
    let v4 = v3 && has!("avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl");
    Some(1 + u32::from(v2) + u32::from(v3) + u32::from(v4))
}

/// Reads the level from the kernel's name of the machine: `armv7l`.
#[cfg(target_arch = "arm")]
fn own_step() -> Option<u32> {
    let machine = std::fs::read_to_string("/proc/sys/kernel/arch").unwrap_or_default();
    match machine.strip_prefix("armv").and_then(|rest| rest.get(..1)) {
        Some(digit) => digit.parse().ok(),
        // The kernel is a 64-bit one, or does not report the level.
        None => Some(ARM_STEP),
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "arm")))]
fn own_step() -> Option<u32> {
    None
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts = text.split('/').collect::<Vec<_>>();
        let (os, arch, variant) = match parts.as_slice() {
            [os, arch] => (os, arch, None),
            [os, arch, variant] => (os, arch, Some(*variant)),
            _ => return Err(PlatformError { given: text.to_owned() }),
        };
        if parts.iter().any(|part| part.is_empty()) {
            return Err(PlatformError { given: text.to_owned() });
        }
        Ok(Self { os: (*os).to_owned(), arch: (*arch).to_owned(), variant: variant.map(str::to_owned) })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.arch)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_written_as_it_is_read() {
        for text in ["linux/amd64", "linux/arm/v7"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for bad in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux//v7"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    fn best<'a>(asked: &str, own: Option<u32>, there: &[&'a str]) -> Option<&'a str> {
        let asked = asked.parse::<Platform>().unwrap();
        let rank = |text: &&str| text.parse::<Platform>().unwrap().rank_for(&asked, own);
        there.iter().copied().filter(|text| rank(text).is_some()).min_by_key(rank)
    }

    #[test]
    fn without_a_variant_the_plain_one_is_taken_or_the_lowest_that_this_machine_runs() {
        let amd = |own, there: &[&'static str]| best("linux/amd64", Some(own), there);
        assert_eq!(amd(4, &["linux/amd64/v3", "linux/amd64"]), Some("linux/amd64"));
        assert_eq!(amd(4, &["linux/amd64/v3", "linux/amd64/v1", "linux/amd64/v2"]), Some("linux/amd64/v1"));
        assert_eq!(amd(3, &["linux/amd64/v4", "linux/amd64/v3", "linux/amd64/v2"]), Some("linux/amd64/v2"));
        assert_eq!(amd(2, &["linux/amd64/v4", "linux/amd64/v3"]), None);
        let arm = |own, there: &[&'static str]| best("linux/arm", own, there);
        let all = ["linux/arm/v5", "linux/arm/v8", "linux/arm/v6", "linux/arm/v7"];
        assert_eq!(arm(Some(6), &all), Some("linux/arm/v6"));
        assert_eq!(arm(Some(7), &all), Some("linux/arm/v7"));
        assert_eq!(arm(Some(8), &all), Some("linux/arm/v8"));
        assert_eq!(arm(None, &all), Some("linux/arm/v7"));
        assert_eq!(arm(Some(6), &["linux/arm", "linux/arm/v5"]), Some("linux/arm/v5"));
        assert_eq!(best("linux/arm64", None, &["linux/arm64/v9", "linux/arm64/v8"]), Some("linux/arm64/v8"));
        assert_eq!(best("linux/s390x", None, &["linux/s390x/z15"]), Some("linux/s390x/z15"));
    }

    #[test]
    fn a_variant_that_is_asked_for_takes_itself_or_the_nearest_below() {
        let there = ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"];
        assert_eq!(best("linux/amd64/v3", Some(1), &there), Some("linux/amd64/v2"));
        assert_eq!(best("linux/amd64/v4", Some(1), &there), Some("linux/amd64/v4"));
        assert_eq!(best("linux/amd64/v1", Some(4), &there), Some("linux/amd64"));
        assert_eq!(best("linux/arm/v6", None, &["linux/arm/v7", "linux/arm", "linux/arm/v5"]), Some("linux/arm/v5"));
        assert_eq!(best("linux/s390x/z14", None, &["linux/s390x/z15"]), None);
    }

    #[test]
    fn an_image_serves_its_own_platform_and_higher_variants_of_it() {
        let serves = |there: &str, asked: &str| there.parse::<Platform>().unwrap().serves(&asked.parse().unwrap());
        assert!(serves("linux/arm/v7", "linux/arm"));
        assert!(serves("linux/arm", "linux/arm/v7"));
        assert!(serves("linux/arm/v6", "linux/arm/v7") && !serves("linux/arm/v7", "linux/arm/v6"));
        assert!(serves("linux/arm64", "linux/arm64/v8") && serves("linux/arm64/v8", "linux/arm64"));
        assert!(!serves("linux/arm64/v9", "linux/arm64/v8"));
        assert!(!serves("windows/amd64", "linux/amd64"));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn this_machine_has_one_of_the_four_levels() {
        assert!((1..=4).contains(&Platform::step_of_this_machine().unwrap()));
    }
}
