//! What a flist says about how it is started: the `.startup.toml` of 0-OS, in the root of the flist.
//!
//! ```toml
//! [startup.entry]
//! name = "core.system"
//! [startup.entry.args]
//! name = "/bin/server"
//! args = ["--port", "80"]
//! dir = "/data"
//! [startup.entry.args.env]
//! KEY = "value"
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use contd_bundle::root_file::{RootFileError, read_in_root};
use contd_types::{ContainerSpec, Entrypoint, ErrorKind, Explain};
use serde::Deserialize;

/// Where it lies.
const STARTUP_FILE: &str = ".startup.toml";
/// Far above any real one.
const MAX_BYTES: u64 = 64 * 1024;

/// Why a flist's own start could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartupError {
    #[error("read {STARTUP_FILE} of the flist")]
    Read { source: RootFileError },
    #[error("understand {STARTUP_FILE} of the flist")]
    Decode { source: toml::de::Error },
    #[error("understand {STARTUP_FILE} of the flist: it is not UTF-8")]
    NotText { root: PathBuf },
}

impl Explain for StartupError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { source } => source.kind(),
            Self::Decode { .. } | Self::NotText { .. } => ErrorKind::Corrupt,
        }
    }

    fn hint(&self) -> Option<String> {
        Some("name a command instead of relying on the flist's own".to_owned())
    }
}

#[derive(Debug, Deserialize)]
struct Startup {
    startup: Sections,
}

#[derive(Debug, Deserialize)]
struct Sections {
    entry: Section,
}

#[derive(Debug, Deserialize)]
struct Section {
    #[serde(default)]
    args: Args,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Args {
    name: String,
    dir: String,
    args: Vec<String>,
    env: BTreeMap<String, String>,
}

/// Fills in what the spec leaves to the flist. Blocks. A flist without the file leaves the spec as it is.
pub(crate) fn complete(spec: &ContainerSpec, root: &Path) -> Result<ContainerSpec, StartupError> {
    let mut complete = spec.clone();
    if spec.entrypoint.is_some() {
        return Ok(complete);
    }
    let found = read_in_root(root, Path::new(STARTUP_FILE), MAX_BYTES);
    let Some(bytes) = found.map_err(|source| StartupError::Read { source })? else { return Ok(complete) };
    let text = String::from_utf8(bytes).map_err(|_| StartupError::NotText { root: root.to_owned() })?;
    let Startup { startup } = toml::from_str(&text).map_err(|source| StartupError::Decode { source })?;
    let Args { name, dir, args, env } = startup.entry.args;
    if name.is_empty() {
        return Ok(complete);
    }
    complete.entrypoint = Some(Entrypoint::Args([vec![name], args].concat()));
    if complete.working_dir.is_none() && !dir.is_empty() {
        complete.working_dir = Some(dir);
    }
    // The caller's own come last: they win.
    let own = std::mem::take(&mut complete.env);
    complete.env = env.into_iter().map(|(key, value)| format!("{key}={value}")).chain(own).collect();
    Ok(complete)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_types::ContainerName;

    fn spec() -> ContainerSpec {
        let mut spec = ContainerSpec::new(ContainerName::new("web").unwrap(), "/x.fl");
        spec.env = vec!["KEY=mine".into()];
        spec
    }

    #[test]
    fn the_flist_says_what_the_spec_leaves_out() {
        let root = tempfile::tempdir().unwrap();
        let text = "[startup.entry]\nname = \"core.system\"\n[startup.entry.args]\nname = \"/bin/server\"\n\
                    args = [\"--port\", \"80\"]\ndir = \"/data\"\n[startup.entry.args.env]\nKEY = \"theirs\"\n";
        std::fs::write(root.path().join(STARTUP_FILE), text).unwrap();
        let complete = complete(&spec(), root.path()).unwrap();
        let args = ["/bin/server", "--port", "80"].map(str::to_owned).to_vec();
        assert_eq!(complete.entrypoint, Some(Entrypoint::Args(args)));
        assert_eq!(complete.working_dir.as_deref(), Some("/data"));
        assert_eq!(complete.env, ["KEY=theirs", "KEY=mine"]);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_a_missing_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(complete(&spec(), root.path()).unwrap(), spec());
        std::fs::write(root.path().join(STARTUP_FILE), "[startup").unwrap();
        assert!(matches!(complete(&spec(), root.path()), Err(StartupError::Decode { .. })));
    }
}
