//! `--mount` and `-v`, in the syntax of docker and podman.
//!
//! [`contd_types::mount`] defines the options and their meaning; this module only splits the words.

use std::path::{Component, Path, PathBuf};

use contd_types::MountSpec;

use crate::cli::parse;

/// The hint on the accepted forms.
const MOUNT_FORM: &str = "write type=bind,src=/host/dir,dst=/dir,ro or type=tmpfs,dst=/dir,tmpfs-size=64m; more options as \
    options=nosuid:noexec; a part with a comma in it stands in quotes: '\"src=/a,b\",dst=/dir'";
const VOLUME_FORM: &str = "write SRC:DST or SRC:DST:OPTIONS, with the options separated by commas";
/// Mount types of engines with storage of their own, which contd does not have.
const STORED: [&str; 5] = ["volume", "image", "cluster", "npipe", "artifact"];

/// The parts of a mount that were parsed so far.
#[derive(Debug, Default)]
struct Parts {
    fs_type: Option<String>,
    source: Option<String>,
    target: Option<String>,
    options: Vec<String>,
    /// A key that only one type has, and that type.
    only_of: Option<(String, &'static str)>,
}

/// Parses the value of `--mount`: one line of CSV, with the keys of docker. The type is `bind` when left out; a word without
/// `=` is an option.
pub(crate) fn mount(text: &str) -> Result<MountSpec, String> {
    let mut parts = Parts::default();
    for field in &fields(text)? {
        parts.take(field)?;
    }
    let fs_type = parts.fs_type.unwrap_or_else(|| "bind".to_owned());
    if let Some((key, only)) = parts.only_of.filter(|(_, only)| *only != fs_type) {
        return Err(format!("{key}= is for type={only}, and this is type={fs_type}"));
    }
    let target = parts.target.ok_or_else(|| format!("dst= is missing: {MOUNT_FORM}"))?;
    let source = match parts.source {
        Some(source) if fs_type == "bind" => tidy(&source),
        Some(source) => source,
        None if fs_type == "bind" => return Err(format!("src= is missing: {MOUNT_FORM}")),
        // A file system without a device gets its own name as the source, as is usual with mount(8).
        None => fs_type.clone(),
    };
    Ok(MountSpec { source, target: tidy(&target), fs_type, options: parts.options })
}

/// Splits one line of CSV.
fn fields(text: &str) -> Result<csv::StringRecord, String> {
    // The CSV reader accepts an open quote, and a path would silently include the text after it.
    if text.matches('"').count() % 2 == 1 {
        return Err(format!("a quote is open; inside of quotes a quote is written twice: {MOUNT_FORM}"));
    }
    let reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut records = reader.into_records();
    match (records.next(), records.next()) {
        (Some(Ok(record)), None) => Ok(record),
        (Some(Ok(_)), Some(_)) => Err(format!("a line break stands outside of quotes: {MOUNT_FORM}")),
        _ => Err(format!("there is nothing to mount: {MOUNT_FORM}")),
    }
}

impl Parts {
    fn take(&mut self, field: &str) -> Result<(), String> {
        let Some((key, value)) = field.split_once('=') else {
            return match field {
                "" => Err(format!("there is a comma too many: {MOUNT_FORM}")),
                option => {
                    self.options.push(option.to_owned());
                    Ok(())
                }
            };
        };
        match key.to_ascii_lowercase().as_str() {
            "type" if STORED.contains(&value) => Err(format!(
                "type={value} is not supported: contd keeps no volumes and mounts no images; bind a directory of the host"
            )),
            "type" => set(&mut self.fs_type, key, value),
            "src" | "source" => set(&mut self.source, key, value),
            "dst" | "target" | "destination" => set(&mut self.target, key, value),
            "ro" | "readonly" => self.access(key, value, true),
            "rw" => self.access(key, value, false),
            "options" | "option" | "opts" if value.is_empty() => Err(format!("{key}= has no value: {MOUNT_FORM}")),
            "options" | "option" | "opts" => {
                self.options.extend(value.split(':').map(str::to_owned));
                Ok(())
            }
            // The option is refused later, with the reason.
            "consistency" => self.option_of("bind", key, value.to_owned()),
            "bind-propagation" => self.option_of("bind", key, value.to_owned()),
            "bind-nonrecursive" => {
                let reach = if boolean(key, value)? { "bind" } else { "rbind" };
                self.option_of("bind", key, reach.to_owned())
            }
            "bind-recursive" => {
                let option = match value {
                    "enabled" => "rbind",
                    "disabled" => "bind",
                    "writable" => "norecursive",
                    "readonly" => "rro",
                    _ => return Err(format!("{key}={value} is none of enabled, disabled, writable and readonly")),
                };
                self.option_of("bind", key, option.to_owned())
            }
            "tmpfs-size" => {
                let bytes = parse::size(value).map_err(|error| format!("{key}={value} is {error}"))?;
                self.option_of("tmpfs", key, format!("size={bytes}"))
            }
            "tmpfs-mode" => self.option_of("tmpfs", key, format!("mode={value}")),
            key if key.starts_with("volume-") => {
                Err(format!("{key}= is not supported: contd keeps no volumes; bind a directory of the host"))
            }
            _ => Err(format!("{key:?} is not a part of a mount: {MOUNT_FORM}")),
        }
    }

    fn access(&mut self, key: &str, value: &str, is_read_only: bool) -> Result<(), String> {
        let option = if boolean(key, value)? == is_read_only { "ro" } else { "rw" };
        self.options.push(option.to_owned());
        Ok(())
    }

    fn option_of(&mut self, only: &'static str, key: &str, option: String) -> Result<(), String> {
        if let Some((other, its)) = self.only_of.as_ref().filter(|(_, its)| *its != only) {
            return Err(format!("{key}= is for type={only}, and {other}= for type={its}"));
        }
        self.only_of = Some((key.to_owned(), only));
        self.options.push(option);
        Ok(())
    }
}

/// Parses a boolean in the forms of docker.
fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "t" | "1" => Ok(true),
        "false" | "f" | "0" => Ok(false),
        _ => Err(format!("{key}={value} is neither true nor false")),
    }
}

fn set(slot: &mut Option<String>, key: &str, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err(format!("{key}= has no value: {MOUNT_FORM}"));
    }
    match slot.replace(value.to_owned()) {
        None => Ok(()),
        Some(_) => Err(format!("{key}= is given twice: {MOUNT_FORM}")),
    }
}

/// Removes `.`, `..` and trailing slashes from an absolute path without asking the file system, as docker and podman
/// do.
fn tidy(path: &str) -> String {
    if !path.starts_with('/') {
        return path.to_owned();
    }
    let mut tidy = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => drop(tidy.pop()),
            Component::Normal(name) => tidy.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    tidy.to_string_lossy().into_owned()
}

/// Parses the value of `-v`.
pub(crate) fn volume(text: &str) -> Result<MountSpec, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [source, target] => (*source, *target, None),
        [source, target, options] => (*source, *target, Some(*options)),
        [_] => return Err(format!("contd keeps no volumes of its own: {VOLUME_FORM}")),
        _ => {
            let way = "a path with a colon in it is named with --mount src=SRC,dst=DST";
            return Err(format!("there are too many colons: {VOLUME_FORM}; {way}"));
        }
    };
    if source.is_empty() || target.is_empty() || options == Some("") {
        return Err(VOLUME_FORM.to_owned());
    }
    Ok(MountSpec {
        source: tidy(source),
        target: tidy(target),
        fs_type: "bind".to_owned(),
        options: options.into_iter().flat_map(|options| options.split(',')).map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(fs_type: &str, source: &str, target: &str, options: &[&str]) -> MountSpec {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        MountSpec { source: source.into(), target: target.into(), fs_type: fs_type.into(), options }
    }

    #[test]
    fn options_are_separated_by_colons_or_stand_alone() {
        let wanted = spec("bind", "/a", "/b", &["ro", "nosuid"]);
        assert_eq!(mount("type=bind,src=/a,dst=/b,options=ro:nosuid"), Ok(wanted.clone()));
        assert_eq!(mount("source=/a,destination=/b,options=ro,options=nosuid"), Ok(wanted.clone()));
        assert_eq!(mount("src=/a,target=/b,ro,nosuid"), Ok(wanted));
    }

    #[test]
    fn a_tmpfs_needs_no_source_and_keeps_options_with_an_equals_sign() {
        let wanted = spec("tmpfs", "tmpfs", "/t", &["size=64m", "mode=1777"]);
        assert_eq!(mount("type=tmpfs,dst=/t,options=size=64m:mode=1777"), Ok(wanted));
    }

    #[test]
    fn the_keys_of_docker_mean_what_they_mean_there() {
        for (given, options) in [
            ("readonly", &["readonly"][..]),
            ("ro=true", &["ro"]),
            ("READONLY=1", &["ro"]),
            ("ro=false", &["rw"]),
            ("rw=false", &["ro"]),
            ("rw=true", &["rw"]),
            ("bind-propagation=rslave", &["rslave"]),
            ("bind-nonrecursive=true", &["bind"]),
            ("bind-nonrecursive=false", &["rbind"]),
            ("ro,bind-recursive=writable", &["ro", "norecursive"]),
            ("bind-recursive=readonly", &["rro"]),
            ("bind-recursive=disabled", &["bind"]),
        ] {
            assert_eq!(mount(&format!("src=/a,dst=/b,{given}")), Ok(spec("bind", "/a", "/b", options)), "{given}");
        }
        let tmpfs = mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770");
        assert_eq!(tmpfs, Ok(spec("tmpfs", "tmpfs", "/t", &["size=1048576", "mode=1770"])));
    }

    #[test]
    fn a_line_of_csv_has_quotes_around_commas_and_breaks() {
        for (given, source, target) in [
            ("type=bind,\"src=/a,b\",\"dst=/c,d\"", "/a,b", "/c,d"),
            ("src=/a:b,dst=/c d", "/a:b", "/c d"),
            ("\"src=/q\"\"x\",dst=/ü", "/q\"x", "/ü"),
            ("\"src=/new\nline\",dst=/d=e", "/new\nline", "/d=e"),
            ("src=/q'x,dst=/b\\s", "/q'x", "/b\\s"),
        ] {
            assert_eq!(mount(given), Ok(spec("bind", source, target, &[])), "{given}");
        }
    }

    #[test]
    fn a_mount_without_its_parts_is_refused() {
        for bad in [
            "",
            "dst=/b",
            "src=/a",
            "src=/a,dst=",
            "src=/a,src=/c,dst=/b",
            "src=/a,dst=/b,size=3",
            "src=/a,dst=/b,",
            "src=/a,dst=/b,ro=maybe",
            "src=/a,dst=/b,ro=",
            "src=/a,dst=/b,options=",
            "src=/a,dst=/b\nro",
            "\"src=/a,dst=/b",
            "type=volume,src=v,dst=/b",
            "src=/a,dst=/b,volume-opt=x",
            "src=/a,dst=/b,tmpfs-size=1m",
            "src=/a,dst=/b,bind-recursive=yes",
            "type=tmpfs,dst=/b,bind-propagation=rslave",
            "type=tmpfs,dst=/b,tmpfs-size=big",
            "bind-propagation=rslave,tmpfs-mode=7,src=/a,dst=/b",
        ] {
            assert!(mount(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn what_is_typed_and_makes_no_sense_is_refused_by_the_spec() {
        for bad in [
            "r0",
            "readnly",
            "options=rdonly",
            "options=ro::nosuid",
            "consistency=cached",
            "bind-propagation=sideways",
            "ro,rw",
        ] {
            let mount = mount(&format!("src=/a,dst=/b,{bad}")).expect("split");
            assert!(mount.validate().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn volumes_have_two_or_three_parts() {
        assert_eq!(volume("/a:/b"), Ok(spec("bind", "/a", "/b", &[])));
        assert_eq!(volume("/a:/b:ro,noexec"), Ok(spec("bind", "/a", "/b", &["ro", "noexec"])));
        assert_eq!(volume("/a b\"',ü:/b\\s"), Ok(spec("bind", "/a b\"',ü", "/b\\s", &[])));
        for bad in ["", "/a", ":/b", "/a:", "/a:/b:", "/a:/b:ro:x"] {
            assert!(volume(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(volume("/a:b:/c:d").is_err_and(|error| error.contains("--mount")));
    }

    #[test]
    fn paths_are_tidied_as_a_shell_would() {
        assert_eq!(volume("/a/../b/./c/:/x//y/../z/"), Ok(spec("bind", "/b/c", "/x/z", &[])));
        assert_eq!(volume("../a:/b/"), Ok(spec("bind", "../a", "/b", &[])));
        assert_eq!(mount("src=/a/,dst=/../b"), Ok(spec("bind", "/a", "/b", &[])));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "[a-z=:,/\"\n-]{0,40}") {
            let _ = (mount(&text), volume(&text));
        }
    }
}
