//! The place of a container's writable layer.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The place of the writable layer, unless the caller gives a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerKind {
    /// On disk, below the state directory: kept until the container is removed, also across a reboot.
    #[default]
    Disk,
    /// In memory, which counts against the container's own limit: lost at each end of the container.
    Memory,
}

/// A text is not a [`LayerKind`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no kind of layer: use disk or memory")]
pub struct UnknownLayer {
    /// The given text.
    pub given: String,
}

impl FromStr for LayerKind {
    type Err = UnknownLayer;
    fn from_str(text: &str) -> Result<Self, UnknownLayer> {
        match text {
            "disk" => Ok(Self::Disk),
            "memory" => Ok(Self::Memory),
            _ => Err(UnknownLayer { given: text.to_owned() }),
        }
    }
}

impl fmt::Display for LayerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_parse_and_print_the_same_and_are_the_same_in_files() {
        for kind in [LayerKind::Disk, LayerKind::Memory] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(serde_json::to_string(&kind).expect("JSON"), format!("\"{kind}\""));
        }
        assert!("Disk".parse::<LayerKind>().is_err() && "".parse::<LayerKind>().is_err());
    }
}
