//! Completes a spec by what its flist says: the tags that an image left, and the `.startup.toml` of 0-OS in its root.
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
use contd_rootfs::ImageDefaults;
use contd_types::{ContainerSpec, Entrypoint, ErrorKind, Explain, SignalError, SpecError, UserSpec};
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
    #[error("use how the image of the flist is run")]
    Image { source: SpecError },
    #[error("use the stop signal of the image of the flist")]
    Signal { source: SignalError },
}

impl Explain for StartupError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { source } => source.kind(),
            Self::Decode { .. } | Self::NotText { .. } | Self::Image { .. } | Self::Signal { .. } => ErrorKind::Corrupt,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Read { .. } | Self::Decode { .. } | Self::NotText { .. } => {
                "name a command instead of relying on the flist's own"
            }
            Self::Image { source: source @ SpecError::ExecTooLarge { .. } } => source.hint(),
            Self::Image { .. } => "say it yourself: --user, --workdir, --env, --entrypoint or a command",
            Self::Signal { .. } => "say it yourself: --stop-signal",
        };
        Some(hint.to_owned())
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

/// Fills in what the spec leaves to the flist. Blocks.
///
/// The caller's word comes first, then what the image says whose flist it is, then the `.startup.toml`. Like podman, a
/// caller's command takes the place of the image's command and keeps its entrypoint; everything else of the image holds
/// for any command. A `.startup.toml` is one whole: it only counts where there is no command but its own.
pub(crate) fn complete(
    spec: &ContainerSpec,
    root: &Path,
    image: &ImageDefaults,
) -> Result<ContainerSpec, StartupError> {
    let mut complete = spec.clone();
    let mut env = of_keys(&image.env);
    complete.entrypoint = match &spec.entrypoint {
        Some(Entrypoint::Args(args)) if !image.entrypoint.is_empty() => {
            Some(Entrypoint::Args([image.entrypoint.clone(), args.clone()].concat()))
        }
        Some(given) => Some(given.clone()),
        None if image.entrypoint.is_empty() && image.cmd.is_empty() => {
            let Args { name, dir, args, env: of_file } = startup(root)?.unwrap_or_default();
            if name.is_empty() {
                None
            } else {
                env.extend(of_file.into_iter().map(|(key, value)| format!("{key}={value}")));
                complete.working_dir =
                    complete.working_dir.or(image_dir(image)).or(Some(dir).filter(|dir| !dir.is_empty()));
                Some(Entrypoint::Args([vec![name], args].concat()))
            }
        }
        None => Some(Entrypoint::Args([image.entrypoint.clone(), image.cmd.clone()].concat())),
    };
    // The caller's own come last: they win.
    env.append(&mut complete.env);
    complete.env = env;
    complete.working_dir = complete.working_dir.or(image_dir(image));
    if let (None, Some(user)) = (&complete.user, &image.user) {
        complete.user = Some(UserSpec::new(user).map_err(|source| StartupError::Image { source })?);
    }
    if let (None, Some(signal)) = (complete.stop_signal, &image.stop_signal) {
        complete.stop_signal = Some(signal.parse().map_err(|source| StartupError::Signal { source })?);
    }
    if complete != *spec {
        complete.validate().map_err(|source| StartupError::Image { source })?;
    }
    Ok(complete)
}

/// Checks that what is executed fits, what the flist adds included.
pub(crate) fn check_exec(complete: ContainerSpec, limit: usize) -> Result<ContainerSpec, StartupError> {
    complete.check_exec(limit).map_err(|source| StartupError::Image { source })?;
    Ok(complete)
}

/// Reads the `.startup.toml`, if there is one.
fn startup(root: &Path) -> Result<Option<Args>, StartupError> {
    let found = read_in_root(root, Path::new(STARTUP_FILE), MAX_BYTES);
    let Some(bytes) = found.map_err(|source| StartupError::Read { source })? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|_| StartupError::NotText { root: root.to_owned() })?;
    let Startup { startup } = toml::from_str(&text).map_err(|source| StartupError::Decode { source })?;
    Ok(Some(startup.entry.args))
}

/// The environment of an image without what is none: some have a bare key, which docker passes over too.
fn of_keys(env: &[String]) -> Vec<String> {
    let is_set = |entry: &&String| entry.split_once('=').is_some_and(|(key, _)| !key.is_empty());
    env.iter().filter(is_set).cloned().collect()
}

/// The working directory of an image; old ones have it relative to the root.
fn image_dir(image: &ImageDefaults) -> Option<String> {
    let dir = image.working_dir.as_ref()?;
    Some(if dir.starts_with('/') { dir.clone() } else { format!("/{dir}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_types::{ContainerName, Signal};

    fn spec() -> ContainerSpec {
        let mut spec = ContainerSpec::new(ContainerName::new("web").unwrap(), "/x.fl");
        spec.env = vec!["KEY=mine".into()];
        spec
    }

    fn image() -> ImageDefaults {
        ImageDefaults {
            entrypoint: list(&["/entry", "-e"]),
            cmd: list(&["one", "two"]),
            env: list(&["KEY=theirs", "PATH=/image", "bare"]),
            working_dir: Some("/w".into()),
            user: Some("web:www".into()),
            stop_signal: Some("SIGINT".into()),
            ..ImageDefaults::default()
        }
    }

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[track_caller]
    fn completed(entrypoint: Option<Entrypoint>, image: &ImageDefaults) -> ContainerSpec {
        let root = tempfile::tempdir().unwrap();
        complete(&ContainerSpec { entrypoint, ..spec() }, root.path(), image).unwrap()
    }

    fn exact(words: &[&str]) -> Option<Entrypoint> {
        Some(Entrypoint::Exact(list(words)))
    }

    fn args(words: &[&str]) -> Option<Entrypoint> {
        Some(Entrypoint::Args(list(words)))
    }

    #[test]
    fn an_image_says_what_the_spec_leaves_out() {
        let got = completed(None, &image());
        assert_eq!(got.entrypoint, args(&["/entry", "-e", "one", "two"]));
        assert_eq!(got.env, ["KEY=theirs", "PATH=/image", "KEY=mine"]);
        assert_eq!((got.working_dir.as_deref(), got.user), (Some("/w"), UserSpec::new("web:www").ok()));
        assert_eq!(got.stop_signal, Signal::new(2).ok());
    }

    #[test]
    fn a_command_takes_the_place_of_the_command_and_an_entrypoint_of_both() {
        let only_cmd = ImageDefaults { entrypoint: Vec::new(), ..image() };
        let only_entry = ImageDefaults { cmd: Vec::new(), ..image() };
        for (given, image, expected) in [
            (args(&["x"]), &image(), args(&["/entry", "-e", "x"])),
            (exact(&["x"]), &image(), exact(&["x"])),
            (Some(Entrypoint::Line("x y".into())), &image(), Some(Entrypoint::Line("x y".into()))),
            (args(&["x"]), &only_cmd, args(&["x"])),
            (None, &only_cmd, args(&["one", "two"])),
            (None, &only_entry, args(&["/entry", "-e"])),
            (args(&["x"]), &only_entry, args(&["/entry", "-e", "x"])),
        ] {
            let got = completed(given.clone(), image);
            assert_eq!(got.entrypoint, expected, "{given:?}");
            // All else of the image holds for any command.
            assert_eq!(got.working_dir.as_deref(), Some("/w"));
        }
    }

    #[test]
    fn what_the_caller_says_comes_first() {
        let root = tempfile::tempdir().unwrap();
        let given = ContainerSpec {
            working_dir: Some("/mine".into()),
            user: UserSpec::new("me").ok(),
            stop_signal: Some(Signal::TERM),
            ..spec()
        };
        // Faults of the image do not matter then.
        let image = ImageDefaults { user: Some("a b".into()), stop_signal: Some("X".into()), ..image() };
        let got = complete(&given, root.path(), &image).unwrap();
        assert_eq!((got.working_dir, got.user, got.stop_signal), (given.working_dir, given.user, given.stop_signal));
    }

    #[test]
    fn the_tags_of_an_image_come_before_its_startup_file() {
        let root = tempfile::tempdir().unwrap();
        let text = "[startup.entry.args]\nname = \"/file\"\ndir = \"/of-file\"\nenv = { KEY = \"file\" }\n";
        std::fs::write(root.path().join(STARTUP_FILE), text).unwrap();
        let got = complete(&spec(), root.path(), &image()).unwrap();
        assert_eq!(got.entrypoint, args(&["/entry", "-e", "one", "two"]));
        let silent = ImageDefaults { entrypoint: Vec::new(), cmd: Vec::new(), ..image() };
        let got = complete(&spec(), root.path(), &silent).unwrap();
        assert_eq!((got.entrypoint, got.working_dir.as_deref()), (args(&["/file"]), Some("/w")));
        assert_eq!(got.env, ["KEY=theirs", "PATH=/image", "KEY=file", "KEY=mine"]);
    }

    #[test]
    fn what_an_image_has_wrong_is_an_error_that_says_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let fails = |image: &ImageDefaults| complete(&spec(), root.path(), image).unwrap_err();
        let error = fails(&ImageDefaults { user: Some("a b".into()), ..image() });
        assert!(
            matches!(error, StartupError::Image { .. }) && error.hint().is_some_and(|hint| hint.contains("--user"))
        );
        let error = fails(&ImageDefaults { working_dir: Some("/a/../..".into()), ..image() });
        assert!(matches!(error, StartupError::Image { .. }), "{error:?}");
        let error = fails(&ImageDefaults { env: vec![format!("A={}", "x".repeat(300_000))], ..image() });
        assert!(matches!(error, StartupError::Image { .. }), "{error:?}");
        let error = fails(&ImageDefaults { stop_signal: Some("X".into()), ..image() });
        assert!(matches!(error, StartupError::Signal { .. }), "{error:?}");
    }

    #[test]
    fn what_the_image_adds_must_fit_with_what_the_caller_says() {
        let root = tempfile::tempdir().unwrap();
        let got = complete(&spec(), root.path(), &image()).unwrap();
        let bytes = match got.check_exec(0) {
            Err(SpecError::ExecTooLarge { bytes, .. }) => bytes,
            other => panic!("got {other:?}"),
        };
        assert!(spec().check_exec(bytes - 1).is_ok(), "the caller's own fits");
        assert_eq!(check_exec(got.clone(), bytes).unwrap(), got);
        let error = check_exec(got, bytes - 1).unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.contains("ulimit -s")), "{error:?}");
        let long = ImageDefaults { env: vec![format!("LONG={}", "x".repeat(140_000))], ..image() };
        let error = complete(&spec(), root.path(), &long).unwrap_err();
        let StartupError::Image { source } = &error else { panic!("got {error:?}") };
        assert!(source.to_string().contains("environment variable LONG"), "{source}");
    }

    #[test]
    fn stop_signals_are_understood_as_images_write_them() {
        let of = |text: &str| {
            let image = ImageDefaults { stop_signal: Some(text.into()), ..image() };
            complete(&spec(), tempfile::tempdir().unwrap().path(), &image).map(|spec| spec.stop_signal)
        };
        for (text, number) in [("SIGTERM", 15), ("quit", 3), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-27", 37)] {
            assert_eq!(of(text).unwrap(), Signal::new(number).ok(), "{text}");
        }
        assert!(matches!(of("SIGRTMIN+31"), Err(StartupError::Signal { .. })));
    }

    #[test]
    fn the_flist_says_what_the_spec_leaves_out() {
        let root = tempfile::tempdir().unwrap();
        let text = "[startup.entry]\nname = \"core.system\"\n[startup.entry.args]\nname = \"/bin/server\"\n\
                    args = [\"--port\", \"80\"]\ndir = \"/data\"\n[startup.entry.args.env]\nKEY = \"theirs\"\n";
        std::fs::write(root.path().join(STARTUP_FILE), text).unwrap();
        let complete = complete(&spec(), root.path(), &ImageDefaults::default()).unwrap();
        let args = ["/bin/server", "--port", "80"].map(str::to_owned).to_vec();
        assert_eq!(complete.entrypoint, Some(Entrypoint::Args(args)));
        assert_eq!(complete.working_dir.as_deref(), Some("/data"));
        assert_eq!(complete.env, ["KEY=theirs", "KEY=mine"]);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_a_missing_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(complete(&spec(), root.path(), &ImageDefaults::default()).unwrap(), spec());
        std::fs::write(root.path().join(STARTUP_FILE), "[startup").unwrap();
        assert!(matches!(complete(&spec(), root.path(), &ImageDefaults::default()), Err(StartupError::Decode { .. })));
    }
}
