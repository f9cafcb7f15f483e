//! The defaults of a container image for its containers, stored in the tags of a flist.
//!
//! | tag | what | form |
//! | --- | --- | --- |
//! | `oci.entry` | entrypoint | JSON list |
//! | `oci.cmd` | command: the arguments of the entrypoint, or program and arguments | JSON list |
//! | `oci.env` | environment, each `KEY=VALUE` | JSON list |
//! | `oci.dir` | working directory | text |
//! | `oci.user` | `user[:group]` or `uid[:gid]` | text |
//! | `oci.signal` | the signal that stops it | text |
//! | `oci.ports`, `oci.volume` | exposed ports and volumes, for information | JSON list |
//!
//! The keys have at most the ten characters that the format declares. The prefix separates them from other tags.

use crate::error::FlistErrorKind;

const ENTRYPOINT: &str = "oci.entry";
const CMD: &str = "oci.cmd";
const ENV: &str = "oci.env";
const WORKING_DIR: &str = "oci.dir";
const USER: &str = "oci.user";
const STOP_SIGNAL: &str = "oci.signal";
const PORTS: &str = "oci.ports";
const VOLUMES: &str = "oci.volume";

/// The defaults for containers of an image; options of the caller replace them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageDefaults {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Further arguments, or program and arguments if there is no entrypoint. Arguments of the caller replace them.
    pub cmd: Vec<String>,
    /// Environment, each `KEY=VALUE`.
    pub env: Vec<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// The user and group to run as.
    pub user: Option<String>,
    /// The signal that stops the container.
    pub stop_signal: Option<String>,
    /// Ports, for information.
    pub ports: Vec<String>,
    /// Volumes, for information.
    pub volumes: Vec<String>,
}

/// A tag of the flist could not be decoded.
#[derive(Debug, thiserror::Error)]
#[error("understand tag {key} of the flist")]
pub struct ImageTagError {
    /// The tag.
    pub key: &'static str,
    /// The decoder's error.
    pub source: serde_json::Error,
}

impl ImageTagError {
    /// Returns the next step for the user.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        "the tag must be a JSON list of texts: import the image again"
    }

    /// Returns the category of the error.
    #[must_use]
    pub fn kind(&self) -> FlistErrorKind {
        FlistErrorKind::Corrupt
    }
}

impl ImageDefaults {
    /// Converts the defaults to tags, sorted by key; empty values have no tag.
    #[must_use]
    pub fn to_tags(&self) -> Vec<(String, String)> {
        let list = |key: &str, words: &[String]| {
            (!words.is_empty()).then(|| (key.to_owned(), serde_json::Value::from(words).to_string()))
        };
        let text = |key: &str, text: &Option<String>| text.as_ref().map(|text| (key.to_owned(), text.clone()));
        let tags = [
            list(CMD, &self.cmd),
            text(WORKING_DIR, &self.working_dir),
            list(ENTRYPOINT, &self.entrypoint),
            list(ENV, &self.env),
            list(PORTS, &self.ports),
            text(STOP_SIGNAL, &self.stop_signal),
            text(USER, &self.user),
            list(VOLUMES, &self.volumes),
        ];
        tags.into_iter().flatten().collect()
    }

    /// Reads the defaults from the tags of a flist; all are empty for a flist that was not made from an image.
    ///
    /// # Errors
    /// A tag has an unexpected form.
    pub fn from_tags(tags: &[(String, String)]) -> Result<Self, ImageTagError> {
        let text = |key: &str| tags.iter().find(|(of_it, _)| of_it == key).map(|(_, value)| value.clone());
        let list = |key: &'static str| match text(key) {
            Some(json) => serde_json::from_str(&json).map_err(|source| ImageTagError { key, source }),
            None => Ok(Vec::new()),
        };
        Ok(Self {
            entrypoint: without_cleared(list(ENTRYPOINT)?),
            cmd: list(CMD)?,
            env: list(ENV)?,
            working_dir: text(WORKING_DIR),
            user: text(USER),
            stop_signal: text(STOP_SIGNAL),
            ports: list(PORTS)?,
            volumes: list(VOLUMES)?,
        })
    }
}

/// Maps `ENTRYPOINT [""]`, by which a Dockerfile clears the entrypoint of its base, to an empty entrypoint, as engines do.
#[must_use]
pub fn without_cleared(entrypoint: Vec<String>) -> Vec<String> {
    if entrypoint.iter().all(String::is_empty) && entrypoint.len() == 1 { Vec::new() } else { entrypoint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_tags_are_read_back_and_keys_fit_the_format() {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let defaults = ImageDefaults {
            entrypoint: list(&["/bin/a", "-x \"y\""]),
            cmd: list(&[""]),
            env: list(&["A=1", "B=ü\n"]),
            working_dir: Some("/w".to_owned()),
            user: Some("web:www".to_owned()),
            stop_signal: Some("SIGINT".to_owned()),
            ports: list(&["80/tcp"]),
            volumes: list(&["/data"]),
        };
        let tags = defaults.to_tags();
        assert_eq!(tags.len(), 8);
        assert!(tags.is_sorted() && tags.iter().all(|(key, _)| key.len() <= 10), "{tags:?}");
        assert_eq!(ImageDefaults::from_tags(&tags).unwrap(), defaults);
        assert_eq!(ImageDefaults::default().to_tags(), []);
    }

    #[test]
    fn free_tags_of_others_mean_nothing_here() {
        let tags = [("env", "production"), ("cmd", "x"), ("user", "me")];
        let tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(ImageDefaults::from_tags(&tags).unwrap(), ImageDefaults::default());
        // The form in older flists.
        let cleared = [("oci.entry".to_owned(), "[\"\"]".to_owned())];
        assert_eq!(ImageDefaults::from_tags(&cleared).unwrap(), ImageDefaults::default());
        let bad = [("oci.env".to_owned(), "production".to_owned())];
        assert!(ImageDefaults::from_tags(&bad).is_err());
    }
}
