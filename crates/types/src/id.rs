//! Ids that contd chooses, and references by which a person names a container.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{self, NameError};

/// The length of a container id in hexadecimal digits: 128 random bits.
pub const ID_DIGITS: usize = 32;

/// The number of digits that `ps` shows; enough to be unique on a node.
pub const SHORT_ID_DIGITS: usize = 12;

/// A container's id: 32 lower-case hexadecimal digits, chosen by contd, never used again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// A text is not a container id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("container id {text:?}: not {ID_DIGITS} lower-case hexadecimal digits")]
pub struct IdError {
    /// The text that was given.
    pub text: String,
}

impl ContainerId {
    /// Makes an id from random bits, which the caller provides.
    pub fn from_random(bits: [u8; ID_DIGITS / 2]) -> Self {
        Self(bits.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Parses an id.
    ///
    /// # Errors
    /// [`IdError`] unless the text is exactly 32 lower-case hexadecimal digits.
    pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
        let text = text.into();
        let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() == ID_DIGITS && is_hex { Ok(Self(text)) } else { Err(IdError { text }) }
    }

    /// Returns the whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the first digits, as `ps` shows them.
    pub fn short(&self) -> &str {
        self.0.get(..SHORT_ID_DIGITS).unwrap_or(&self.0)
    }
}

impl FromStr for ContainerId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl TryFrom<String> for ContainerId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> String {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A container's name, its id, or the beginning of its id, as a person types it.
///
/// Resolved within one namespace in this order: exact name, exact id, the only id with that beginning.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerRef(String);

impl ContainerRef {
    /// Parses a reference; the grammar is that of names, which ids and their prefixes fit.
    ///
    /// # Errors
    /// [`NameError`] when the text is outside that grammar.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        name::check("container", &text)?;
        Ok(Self(text))
    }

    /// Returns the reference as typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether the id equals the reference or begins with it.
    pub fn is_prefix_of(&self, id: &ContainerId) -> bool {
        id.as_str().starts_with(&self.0)
    }
}

impl FromStr for ContainerRef {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl TryFrom<String> for ContainerRef {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl From<ContainerRef> for String {
    fn from(reference: ContainerRef) -> String {
        reference.0
    }
}

impl From<&ContainerId> for ContainerRef {
    fn from(id: &ContainerId) -> Self {
        Self(id.as_str().to_owned())
    }
}

impl fmt::Display for ContainerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bits_make_a_valid_id() {
        let id = ContainerId::from_random([0xab; 16]);
        assert_eq!(id.as_str(), "ab".repeat(16));
        assert_eq!(id.short(), "abababababab");
        assert_eq!(ContainerId::new(id.as_str()).expect("own id"), id);
    }

    #[test]
    fn upper_case_short_and_foreign_ids_are_refused() {
        for bad in ["", "ab", &"AB".repeat(16), &"ab".repeat(17), &"g".repeat(32), "../../../../etc/passwd/aaaaaaaaa"] {
            assert!(ContainerId::new(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_reference_matches_the_ids_that_begin_with_it() {
        let id = ContainerId::from_random([0x12; 16]);
        assert!(ContainerRef::new("1212").expect("valid").is_prefix_of(&id));
        assert!(!ContainerRef::new("13").expect("valid").is_prefix_of(&id));
    }
}
