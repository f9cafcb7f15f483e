//! What an image runs on: `os/arch[/variant]`, in the words of Go, as all images have it.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// A platform.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// The operating system, for example `linux`.
    pub os: String,
    /// The processor, for example `amd64`.
    #[serde(rename = "architecture")]
    pub arch: String,
    /// Which of its kind, for example `v7`.
    #[serde(default)]
    pub variant: Option<String>,
}

/// Why a text is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("platform {given:?}: it is not os/arch or os/arch/variant")]
pub struct PlatformError {
    /// What was given.
    pub given: String,
}

impl Platform {
    /// The one that this program runs on.
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

    /// Tells whether an image for this platform is one for `asked`. Who asks for no variant takes any.
    #[must_use]
    pub fn serves(&self, asked: &Self) -> bool {
        let is_same = self.os == asked.os && self.arch == asked.arch;
        is_same && (asked.variant.is_none() || self.known_variant() == asked.known_variant())
    }

    /// 64-bit ARM is v8 where nothing is said.
    fn known_variant(&self) -> Option<&str> {
        self.variant.as_deref().filter(|variant| !variant.is_empty() && (self.arch != "arm64" || *variant != "v8"))
    }
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

    #[test]
    fn who_asks_for_no_variant_takes_any() {
        let serves = |there: &str, asked: &str| there.parse::<Platform>().unwrap().serves(&asked.parse().unwrap());
        assert!(serves("linux/arm/v7", "linux/arm"));
        assert!(!serves("linux/arm", "linux/arm/v7"));
        assert!(!serves("linux/arm/v6", "linux/arm/v7"));
        assert!(serves("linux/arm64", "linux/arm64/v8") && serves("linux/arm64/v8", "linux/arm64"));
        assert!(!serves("linux/arm64/v9", "linux/arm64/v8"));
        assert!(!serves("windows/amd64", "linux/amd64"));
    }
}
