//! Reads an image's configuration: the defaults that become tags, and the `.startup.toml` that 0-OS reads.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::platform::Platform;
use contd_flist::image::{self, ImageDefaults};

/// The file in which 0-OS looks for the command of a flist.
pub(super) const STARTUP_FILE: &[u8] = b".startup.toml";

/// The fields of the configuration document that are used.
#[derive(Debug, Deserialize)]
pub(super) struct ImageConfig {
    architecture: Option<String>,
    os: Option<String>,
    variant: Option<String>,
    config: Option<RunConfig>,
    rootfs: Option<RootFs>,
}

/// The defaults for containers of the image. Tools write `null` for an empty field.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RunConfig {
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, IgnoredAny>>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    volumes: Option<BTreeMap<String, IgnoredAny>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<String>>,
}

impl ImageConfig {
    /// Returns the platform that the image runs on.
    pub(super) fn platform(&self) -> Platform {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Platform { os: text(&self.os), arch: text(&self.architecture), variant: self.variant.clone() }
    }

    /// Returns the digests of the layers' uncompressed tars.
    pub(super) fn diff_ids(&self) -> &[String] {
        self.rootfs.as_ref().and_then(|rootfs| rootfs.diff_ids.as_deref()).unwrap_or_default()
    }

    /// Returns the defaults for containers of this image.
    pub(super) fn defaults(&self) -> ImageDefaults {
        let config = self.config.clone().unwrap_or_default();
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        let keys = |map: Option<BTreeMap<String, IgnoredAny>>| map.unwrap_or_default().into_keys().collect();
        ImageDefaults {
            entrypoint: image::without_cleared(config.entrypoint.unwrap_or_default()),
            cmd: config.cmd.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            working_dir: some(config.working_dir),
            user: some(config.user),
            stop_signal: some(config.stop_signal),
            ports: keys(config.exposed_ports),
            volumes: keys(config.volumes),
        }
    }
}

/// Writes the `.startup.toml` that 0-OS starts a flist with, as `rfs docker` does; `None` if the image has no command.
pub(super) fn startup_toml(defaults: &ImageDefaults) -> Option<String> {
    let command = defaults.entrypoint.iter().chain(&defaults.cmd).collect::<Vec<_>>();
    let (program, args) = command.split_first()?;
    let args = args.iter().map(|arg| quoted(arg)).collect::<Vec<_>>().join(", ");
    let mut text = format!(
        "[startup.entry]\nname = \"core.system\"\n\n[startup.entry.args]\nname = {}\nargs = [{args}]\n",
        quoted(program)
    );
    if let Some(dir) = &defaults.working_dir {
        let _infallible = writeln!(text, "dir = {}", quoted(dir));
    }
    // A TOML table may hold a key only once; for a variable that is given twice, the later value counts.
    let env = defaults.env.iter().filter_map(|entry| entry.split_once('=')).collect::<BTreeMap<_, _>>();
    if !env.is_empty() {
        text.push_str("\n[startup.entry.args.env]\n");
    }
    for (key, value) in env {
        let _infallible = writeln!(text, "{} = {}", quoted(key), quoted(value));
    }
    Some(text)
}

/// Writes a basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            char if char.is_control() => {
                let _infallible = write!(quoted, "\\u{:04X}", u32::from(char));
            }
            char => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_missing_are_empty() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":null,"User":"","Volumes":null}}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.defaults(), ImageDefaults::default());
        assert_eq!(config.platform().to_string(), "linux/amd64");
        let nulls = r#"{"architecture":null,"os":null,"variant":null,"config":null,"rootfs":{"diff_ids":null}}"#;
        let config: ImageConfig = serde_json::from_str(nulls).unwrap();
        assert_eq!((config.defaults(), config.diff_ids().len()), (ImageDefaults::default(), 0));
        let config: ImageConfig = serde_json::from_str("{}").unwrap();
        assert_eq!((config.defaults(), config.diff_ids().len()), (ImageDefaults::default(), 0));
    }

    #[test]
    fn an_entrypoint_of_one_empty_text_is_none() {
        let entrypoint = |list: &str| {
            let text = format!(r#"{{"config":{{"Entrypoint":{list},"Cmd":["sh"]}}}}"#);
            serde_json::from_str::<ImageConfig>(&text).unwrap().defaults().entrypoint
        };
        assert!(entrypoint(r#"[""]"#).is_empty() && entrypoint("[]").is_empty() && entrypoint("null").is_empty());
        assert_eq!(entrypoint(r#"["",""]"#), ["", ""]);
        assert_eq!(entrypoint(r#"["/a"]"#), ["/a"]);
    }

    #[test]
    fn the_start_for_0_os_has_entrypoint_and_command_in_one() {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let defaults = ImageDefaults {
            entrypoint: list(&["/start"]),
            cmd: list(&["one", "two \"q\" \\ \n"]),
            env: list(&["B=2", "A=1=x", "B=3", "odd"]),
            working_dir: Some("/data".to_owned()),
            ..ImageDefaults::default()
        };
        let text = startup_toml(&defaults).unwrap();
        assert_eq!(
            text,
            "[startup.entry]\nname = \"core.system\"\n\n[startup.entry.args]\nname = \"/start\"\n\
             args = [\"one\", \"two \\\"q\\\" \\\\ \\u000A\"]\ndir = \"/data\"\n\n\
             [startup.entry.args.env]\n\"A\" = \"1=x\"\n\"B\" = \"3\"\n"
        );
        assert_eq!(startup_toml(&ImageDefaults::default()), None);
    }
}
