//! Names that people choose: containers, namespaces, network namespaces.
//!
//! One grammar, one check: `[A-Za-z0-9][A-Za-z0-9_.-]{0,63}`. A name is used as a path component, a cgroup name and a
//! log file name; the grammar excludes `/`, NUL, a leading dot (so `.` and `..`) and everything a shell would expand.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes. With `.log` and a rotation suffix it stays far below the 255 bytes of a file name.
pub const MAX_NAME_BYTES: usize = 64;

/// A text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The text is empty.
    #[error("{what}: the name is empty")]
    Empty {
        /// The kind of name, for example `container name`.
        what: &'static str,
    },
    /// The text is longer than [`MAX_NAME_BYTES`].
    #[error("{what}: {len} bytes are more than the {MAX_NAME_BYTES} allowed")]
    TooLong {
        /// The kind of name.
        what: &'static str,
        /// The text's length in bytes.
        len: usize,
    },
    /// The text has a character outside the grammar, or one that may not come first.
    #[error("{what} {name:?}: character {found:?} is not allowed at position {at}")]
    Forbidden {
        /// The kind of name.
        what: &'static str,
        /// The given text.
        name: String,
        /// The invalid character.
        found: char,
        /// Its position, in characters from 0.
        at: usize,
    },
}

impl NameError {
    /// Returns the form of a valid name.
    pub fn hint(&self) -> &'static str {
        "use 1 to 64 characters out of A-Z a-z 0-9 _ . - and begin with a letter or a digit"
    }
}

/// Checks the grammar; the only place that knows it.
pub(crate) fn check(what: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong { what, len: text.len() });
    }
    for (at, found) in text.chars().enumerate() {
        let allowed = found.is_ascii_alphanumeric() || (at > 0 && matches!(found, '_' | '.' | '-'));
        if !allowed {
            return Err(NameError::Forbidden { what, name: text.to_owned(), found, at });
        }
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Parses a name; parsing is the check.
            ///
            /// # Errors
            /// [`NameError`] when the text is outside the grammar of this module.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                check($what, &text)?;
                Ok(Self(text))
            }

            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<std::path::Path> for $name {
            fn as_ref(&self) -> &std::path::Path {
                std::path::Path::new(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// The name of a container, unique within its namespace while the container exists.
    ContainerName, "container name"
);
name_type!(
    /// A namespace: containers of different namespaces may share a name and cannot see each other.
    NamespaceId, "namespace"
);
name_type!(
    /// A network namespace as `ip netns` names it: a file in `/run/netns`.
    NetnsName, "network namespace"
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dots_slashes_and_emptiness_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "-a", "_a", ".a", "a b", "a\0", "é", "a\n"] {
            assert!(ContainerName::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(ContainerName::new("a".repeat(65)).is_err());
    }

    #[test]
    fn the_longest_name_and_every_allowed_character_are_accepted() {
        for good in ["a", "0", "A-b_c.d", "web..1", &"a".repeat(64)] {
            assert_eq!(ContainerName::new(good).expect(good).as_str(), good);
        }
    }

    #[test]
    fn decoding_checks_the_grammar_too() {
        assert!(serde_json::from_str::<NamespaceId>("\"../x\"").is_err());
        assert_eq!(serde_json::from_str::<NamespaceId>("\"a\"").expect("valid").as_str(), "a");
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_one_safe_path_component(text in ".{0,70}") {
            if let Ok(name) = ContainerName::new(text.clone()) {
                let path = std::path::Path::new(name.as_str());
                prop_assert_eq!(path.components().count(), 1);
                prop_assert!(matches!(path.components().next(), Some(std::path::Component::Normal(_))));
                prop_assert!(text.is_ascii());
            }
        }
    }
}
