//! One mount of a spec: source, target, and options in the words of people and other engines.
//!
//! An unknown option is refused by name: ignoring one could leave a mount writable that was meant to be read-only.
//! [`MountSpec::runtime_options`] returns the options for a runtime:
//!
//! | option | of | means |
//! |---|---|---|
//! | `ro`, `readonly` | all | read-only; of a bind with all that is mounted below its source |
//! | `ro,norecursive` | bind | read-only, but what is mounted below the source stays as it is |
//! | `rw`, `suid`, `dev`, `exec`, `diratime`, `defaults` | all | nothing: it is so, as far as the host's own mount has it |
//! | `bind`, `rbind` | bind | without, or (default) with what is mounted below the source |
//! | `private`, `rslave`, ... | all | how mounts travel; the default of a bind is `rprivate` |
//! | `nosuid`, `nodev`, `noexec`, `noatime`, ... | all | as mount(8); `rnosuid` and the like for all below, too |
//! | `size=`, `mode=`, `uid=`, `nr_inodes=`, ... | tmpfs | as tmpfs(5) |

use serde::{Deserialize, Serialize};

use crate::spec::{MAX_PATH_BYTES, SpecError, check_path, check_text, shorten};

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// The source: an absolute host path for a bind, otherwise the value that the file system type takes (`tmpfs`).
    pub source: String,
    /// The target: an absolute path inside the container.
    pub target: String,
    /// The file system type, or `bind`.
    pub fs_type: String,
    /// The options; see [`crate::mount`].
    pub options: Vec<String>,
}

/// The access options, in upper or lower case: people write `RO`.
const ACCESS: [&str; 4] = ["ro", "readonly", "rro", "rw"];
/// Restricts `ro` to the bind's own mount.
const NOT_BELOW: &str = "norecursive";
/// The options that say whether mounts below the source are bound too.
const REACH: [&str; 2] = ["bind", "rbind"];
/// The propagation options.
const PROPAGATION: [&str; 8] =
    ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"];
/// The restricting options of any mount, with their opposites. An opposite does not lift a restriction of the host's
/// own mount; it only names the default.
const RESTRICTIONS: [(&str, &str); 4] =
    [("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec"), ("nodiratime", "diratime")];
/// The access time options; at most one may be given.
const ATIME: [&str; 3] = ["relatime", "noatime", "strictatime"];
/// The recursive options, which apply to all mounts below a bind too.
const BELOW: [&str; 8] =
    ["rnosuid", "rnodev", "rnoexec", "rnodiratime", "rrelatime", "rnoatime", "rstrictatime", "rnosymfollow"];
/// The options of tmpfs, with the form of their values.
const TMPFS: [(&str, Value); 10] = [
    ("size=", Value::Size),
    ("mode=", Value::Mode),
    ("uid=", Value::Number),
    ("gid=", Value::Number),
    ("nr_inodes=", Value::Size),
    ("nr_blocks=", Value::Size),
    ("huge=", Value::Any),
    ("mpol=", Value::Any),
    ("inode32", Value::None),
    ("inode64", Value::None),
];
/// Options of other engines that contd refuses, with the reason.
const REFUSED: [(&str, &str); 15] = [
    ("remount", "a mount that is there cannot be changed"),
    ("z", "contd sets no SELinux labels: label the source on the host, with chcon or semanage"),
    ("Z", "contd sets no SELinux labels: label the source on the host, with chcon or semanage"),
    ("U", "contd changes no owners: chown the source on the host"),
    ("O", "contd lays no overlay over a source: mount one on the host and bind that"),
    ("idmap", "id-mapped mounts are not supported"),
    ("ridmap", "id-mapped mounts are not supported"),
    ("tmpcopyup", "what a tmpfs covers is not copied into it"),
    ("copy", "contd has no volumes, so nothing is copied into one"),
    ("nocopy", "contd has no volumes, so nothing is copied into one: leave it out"),
    ("volume-nocopy", "contd has no volumes, so nothing is copied into one: leave it out"),
    ("consistent", "it is for Docker Desktop and does nothing on Linux: leave it out"),
    ("cached", "it is for Docker Desktop and does nothing on Linux: leave it out"),
    ("delegated", "it is for Docker Desktop and does nothing on Linux: leave it out"),
    ("upperdir", "contd lays no overlay over a source: mount one on the host and bind that"),
];

/// The form of an option's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    /// The option has no value.
    None,
    Any,
    Number,
    /// Digits, and a unit or a percent sign.
    Size,
    /// Octal digits.
    Mode,
}

impl Value {
    /// Returns the error in a value, if there is one.
    fn fault(self, text: &str) -> Option<&'static str> {
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match self {
            Self::None | Self::Any => None,
            Self::Number => (!is_digits(text)).then_some("its value is no number"),
            Self::Size => {
                let plain = text.strip_suffix(|last: char| "kmgtpeKMGTPE%".contains(last)).unwrap_or(text);
                (!is_digits(plain)).then_some("its value is no size, such as 64m or 50%")
            }
            Self::Mode => {
                let is_mode = u32::from_str_radix(text, 8).is_ok_and(|mode| mode <= 0o7777) && is_digits(text);
                (!is_mode).then_some("its value is no mode, such as 1777")
            }
        }
    }
}

/// The parsed options of a mount.
#[derive(Debug, Default)]
struct Meaning<'a> {
    /// `Some(true)` is read-only.
    is_read_only: Option<bool>,
    /// Whether `ro` was written as `rro`.
    is_all_below: bool,
    is_not_below: bool,
    reach: Option<&'a str>,
    propagation: Option<&'a str>,
    atime: Option<&'a str>,
    /// The options that are passed to the runtime unchanged, each once.
    kept: Vec<&'a str>,
    /// The opposites of restrictions that were given.
    lifted: Vec<&'a str>,
}

impl MountSpec {
    pub(crate) fn text_bytes(&self) -> usize {
        self.source.len() + self.target.len() + self.fs_type.len() + self.options.iter().map(String::len).sum::<usize>()
    }

    /// Checks one mount without looking at the machine.
    ///
    /// # Errors
    /// [`SpecError`] for relative paths, `..`, empty parts, and options that are not known or contradict each other.
    pub fn validate(&self) -> Result<(), SpecError> {
        check_path("mount target", &self.target)?;
        if self.place() == "/" {
            return Err(SpecError::MountOverRoot);
        }
        if self.fs_type.is_empty() {
            return Err(SpecError::Missing { field: "mount type" });
        }
        if self.is_bind() {
            check_path("mount source", &self.source)?;
        }
        if self.source.len() > MAX_PATH_BYTES || self.source.contains('\0') {
            return Err(SpecError::BadText { field: "mount source", given: shorten(&self.source) });
        }
        check_text("mount type", &self.fs_type, 64)?;
        for option in &self.options {
            check_text("mount option", option, MAX_PATH_BYTES)?;
        }
        self.runtime_options().map(drop)
    }

    /// Returns the target without `.`, doubled and trailing slashes: equal for two mounts on the same target.
    pub fn place(&self) -> String {
        let names = self.target.split('/').filter(|name| !name.is_empty() && *name != ".");
        let place: String = names.flat_map(|name| ["/", name]).collect();
        if place.is_empty() { "/".to_owned() } else { place }
    }

    /// Returns how far below the root the target is: deeper targets are mounted later.
    pub fn depth(&self) -> usize {
        self.place().matches('/').count()
    }

    /// Tells whether it binds a path of the host.
    pub fn is_bind(&self) -> bool {
        self.fs_type == "bind"
    }

    /// Returns the options for an OCI runtime, with the defaults of a bind.
    ///
    /// # Errors
    /// [`SpecError`] for one that is not known, is not supported, or contradicts another.
    pub fn runtime_options(&self) -> Result<Vec<String>, SpecError> {
        let mut meaning = Meaning::default();
        for option in &self.options {
            self.take(&mut meaning, option)?;
        }
        self.check_reach(&meaning)?;
        let mut options: Vec<&str> = Vec::new();
        if self.is_bind() {
            options.push(meaning.reach.unwrap_or("rbind"));
        }
        if meaning.is_read_only == Some(true) {
            let has_below = self.is_bind() && meaning.reach != Some("bind") && !meaning.is_not_below;
            options.push(if has_below { "rro" } else { "ro" });
        }
        options.append(&mut meaning.kept);
        match (self.is_bind(), meaning.propagation) {
            (true, None) => options.push("rprivate"),
            (_, propagation) => options.extend(propagation),
        }
        Ok(options.into_iter().map(str::to_owned).collect())
    }

    fn take<'a>(&self, meaning: &mut Meaning<'a>, option: &'a str) -> Result<(), SpecError> {
        if let Some(word) = ACCESS.iter().find(|word| option.eq_ignore_ascii_case(word)) {
            let is_read_only = *word != "rw";
            if meaning.is_read_only.replace(is_read_only).is_some_and(|before| before != is_read_only) {
                return Err(self.contradiction("ro", "rw"));
            }
            meaning.is_all_below |= *word == "rro";
            return Ok(());
        }
        if let Some((_, why)) = REFUSED.iter().find(|(word, _)| option.split('=').next() == Some(word)) {
            return Err(self.refusal(option, why));
        }
        if PROPAGATION.contains(&option) {
            return self.only(&mut meaning.propagation, option);
        }
        if ATIME.contains(&option) {
            self.only(&mut meaning.atime, option)?;
            return keep(meaning, option);
        }
        if let Some((not, yes)) = RESTRICTIONS.iter().find(|(not, yes)| option == *not || option == *yes) {
            let (list, others) = if option == *not {
                (&mut meaning.kept, &meaning.lifted)
            } else {
                (&mut meaning.lifted, &meaning.kept)
            };
            if others.iter().any(|other| other == not || other == yes) {
                return Err(self.contradiction(not, yes));
            }
            if !list.contains(&option) {
                list.push(option);
            }
            return Ok(());
        }
        match self.fs_type.as_str() {
            _ if option == "defaults" => Ok(()),
            "bind" if REACH.contains(&option) => self.only(&mut meaning.reach, option),
            "bind" if option == NOT_BELOW => {
                meaning.is_not_below = true;
                Ok(())
            }
            "bind" if BELOW.contains(&option) => keep(meaning, option),
            "bind" => Err(self.unknown(option)),
            "tmpfs" => self.take_tmpfs(meaning, option),
            _ if REACH.contains(&option) || option == NOT_BELOW => Err(self.refusal(option, "it is for type bind")),
            // Only the kernel knows the options of other file systems, and checks them.
            _ => keep(meaning, option),
        }
    }

    fn take_tmpfs<'a>(&self, meaning: &mut Meaning<'a>, option: &'a str) -> Result<(), SpecError> {
        let known = TMPFS.iter().find_map(|(name, value)| match value {
            Value::None => (option == *name).then_some((*value, "")),
            _ => option.strip_prefix(name).map(|text| (*value, text)),
        });
        let Some((value, text)) = known else {
            let is_for_bind = REACH.contains(&option) || BELOW.contains(&option) || option == NOT_BELOW;
            return Err(if is_for_bind { self.refusal(option, "it is for type bind") } else { self.unknown(option) });
        };
        match value.fault(text) {
            Some(why) => Err(self.refusal(option, why)),
            None => keep(meaning, option),
        }
    }

    fn check_reach(&self, meaning: &Meaning<'_>) -> Result<(), SpecError> {
        if meaning.is_not_below && meaning.is_read_only != Some(true) {
            let why = "it says how far `ro` reaches: add ro, or use `bind` to leave out what is mounted below";
            return Err(self.refusal(NOT_BELOW, why));
        }
        if meaning.is_not_below && meaning.is_all_below {
            return Err(self.contradiction("rro", NOT_BELOW));
        }
        Ok(())
    }

    fn only<'a>(&self, slot: &mut Option<&'a str>, option: &'a str) -> Result<(), SpecError> {
        match slot.replace(option) {
            Some(before) if before != option => Err(self.contradiction(before, option)),
            _ => Ok(()),
        }
    }

    fn contradiction(&self, one: &str, other: &str) -> SpecError {
        SpecError::MountContradiction { target: shorten(&self.target), one: one.to_owned(), other: other.to_owned() }
    }

    fn refusal(&self, option: &str, why: &'static str) -> SpecError {
        SpecError::MountOptionRefused { target: shorten(&self.target), option: shorten(option), why }
    }

    fn unknown(&self, option: &str) -> SpecError {
        let nearest = self.nearest(option).map_or_else(String::new, |word| format!("; did you mean {word:?}?"));
        let (target, fs_type) = (shorten(&self.target), self.fs_type.clone());
        SpecError::MountOption { target, fs_type, option: shorten(option), nearest }
    }

    /// Finds the option that was probably meant; half of its letters must be right.
    fn nearest(&self, option: &str) -> Option<&'static str> {
        let name = option.split_inclusive('=').next().unwrap_or(option).to_ascii_lowercase();
        let own: Vec<&'static str> = match self.fs_type.as_str() {
            "tmpfs" => TMPFS.iter().map(|(name, _)| *name).collect(),
            _ => REACH.into_iter().chain(BELOW).chain([NOT_BELOW]).collect(),
        };
        let restrictions = RESTRICTIONS.iter().flat_map(|(not, yes)| [*not, *yes]);
        let known = ACCESS.into_iter().chain(restrictions).chain(ATIME).chain(PROPAGATION).chain(own);
        let distance = |word: &str| strsim::damerau_levenshtein(&name, word);
        let (away, word) = known.map(|word| (distance(word), word)).min_by_key(|(away, _)| *away)?;
        (away <= name.chars().count().div_ceil(2)).then_some(word)
    }
}

fn keep<'a>(meaning: &mut Meaning<'a>, option: &'a str) -> Result<(), SpecError> {
    if !meaning.kept.contains(&option) {
        meaning.kept.push(option);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(fs_type: &str, options: &[&str]) -> MountSpec {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        MountSpec { source: "/a".into(), target: "/b".into(), fs_type: fs_type.into(), options }
    }

    #[track_caller]
    fn made(fs_type: &str, options: &[&str]) -> String {
        mount(fs_type, options).runtime_options().expect("valid").join(",")
    }

    #[track_caller]
    fn refused(fs_type: &str, options: &[&str]) -> String {
        let mount = mount(fs_type, options);
        mount.validate().expect_err(&format!("{options:?} was accepted")).to_string()
    }

    #[test]
    fn every_word_for_read_only_is_read_only_with_all_below() {
        for word in ["ro", "readonly", "RO", "ReadOnly", "rro"] {
            assert_eq!(made("bind", &[word]), "rbind,rro,rprivate", "{word}");
            assert_eq!(made("tmpfs", &[word]), "ro", "{word}");
            assert_eq!(made("ext4", &[word]), "ro", "{word}");
        }
        assert_eq!(made("bind", &["ro", "norecursive"]), "rbind,ro,rprivate");
        assert_eq!(made("bind", &["bind", "ro"]), "bind,ro,rprivate");
    }

    #[test]
    fn what_is_the_case_anyway_is_accepted_and_lifts_nothing_of_the_hosts() {
        assert_eq!(made("bind", &["rw", "exec", "suid", "dev", "defaults", "RW"]), "rbind,rprivate");
        assert_eq!(
            made("bind", &["noexec", "nosuid", "nosuid", "rnodev", "rslave"]),
            "rbind,noexec,nosuid,rnodev,rslave"
        );
        assert_eq!(made("tmpfs", &["size=64m", "mode=1777", "noexec"]), "size=64m,mode=1777,noexec");
    }

    #[test]
    fn an_unknown_option_is_refused_by_name_with_the_nearest() {
        for (option, nearest) in
            [("r0", "ro"), ("rdonly", "readonly"), ("wr", "rw"), ("nosiud", "nosuid"), ("Bind", "bind")]
        {
            let words = refused("bind", &[option]);
            assert!(
                words.contains(&format!("{option:?}")) && words.contains(&format!("did you mean {nearest:?}")),
                "{words}"
            );
        }
        assert!(refused("tmpfs", &["sise=1m"]).contains("did you mean \"size=\""));
        let far = refused("bind", &["quux-frobnicate"]);
        assert!(far.contains("quux") && !far.contains("did you mean"), "{far}");
        for option in ["", "size=1m", "tmpfs", "sync", "ro=true", "rro "] {
            refused("bind", &[option]);
        }
    }

    #[test]
    fn what_other_engines_know_and_contd_does_not_do_is_refused_with_the_reason() {
        for (option, reason) in [
            ("z", "SELinux"),
            ("Z", "SELinux"),
            ("U", "chown"),
            ("O", "overlay"),
            ("idmap=uids=0-1-2", "id-mapped"),
            ("cached", "Docker Desktop"),
            ("nocopy", "volumes"),
            ("remount", "changed"),
        ] {
            for fs_type in ["bind", "tmpfs", "ext4"] {
                let words = refused(fs_type, &[option]);
                assert!(words.contains(reason), "{fs_type}: {words}");
            }
        }
        for option in ["bind", "rbind", "norecursive"] {
            assert!(refused("tmpfs", &[option]).contains("type bind"));
            assert!(refused("ext4", &[option]).contains("type bind"));
        }
        assert!(refused("tmpfs", &["size=big"]).contains("64m"));
        assert!(refused("tmpfs", &["mode=99"]).contains("1777"));
    }

    #[test]
    fn contradictions_are_refused_with_both() {
        for pair in [
            ["ro", "rw"],
            ["RW", "readonly"],
            ["bind", "rbind"],
            ["nosuid", "suid"],
            ["exec", "noexec"],
            ["private", "rshared"],
            ["noatime", "relatime"],
            ["rro", "norecursive"],
        ] {
            let words = refused("bind", &pair);
            assert!(words.contains("contradict"), "{words}");
        }
        assert!(refused("bind", &["norecursive"]).contains("add ro"));
    }

    #[test]
    fn any_path_that_a_file_can_have_is_a_path() {
        for path in ["/sp ace", "/ü/日本", "/a:b,c", "/q\"'x", "/b\\s", "/new\nline", "/tab\there", "//a//b/", "/./a"]
        {
            let mount = MountSpec { source: path.into(), target: path.into(), ..mount("bind", &[]) };
            assert_eq!(mount.validate(), Ok(()), "{path:?}");
        }
        for bad in ["", "rel", "/a/../b", "/nul\0", "/..", "/", "//", "/."] {
            let mount = MountSpec { target: bad.into(), ..mount("bind", &[]) };
            assert!(mount.validate().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_place_is_named_in_one_way() {
        for (target, place, depth) in [("/a", "/a", 1), ("/a/", "/a", 1), ("//a/./b//", "/a/b", 2), ("/", "/", 1)] {
            let mount = MountSpec { target: target.into(), ..mount("bind", &[]) };
            assert_eq!((mount.place().as_str(), mount.depth()), (place, depth));
        }
    }
}
