//! Mount options, with the meaning that mount(8) and the OCI runtimes give them.

use crate::plan::PropagationPlan;

/// The parsed options of a mount.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) set: u64,
    pub(super) clear: u64,
    pub(super) recursive_set: u64,
    pub(super) recursive_clear: u64,
    pub(super) propagation: Vec<PropagationPlan>,
    /// `bind` or `rbind`; true when all mounts below are included.
    pub(super) bind: Option<bool>,
    /// The parameters of the superblock.
    pub(super) parameters: Vec<(String, Option<String>)>,
    /// The first option that cannot be honoured.
    pub(super) refused: Option<String>,
}

const ATIME: u64 = libc::MOUNT_ATTR__ATIME;

/// Options that set or clear an attribute of the mount: name, set, clear. An `r` before them means the whole tree.
const ATTRIBUTES: [(&str, u64, u64); 18] = [
    ("ro", libc::MOUNT_ATTR_RDONLY, 0),
    ("rw", 0, libc::MOUNT_ATTR_RDONLY),
    ("nosuid", libc::MOUNT_ATTR_NOSUID, 0),
    ("suid", 0, libc::MOUNT_ATTR_NOSUID),
    ("nodev", libc::MOUNT_ATTR_NODEV, 0),
    ("dev", 0, libc::MOUNT_ATTR_NODEV),
    ("noexec", libc::MOUNT_ATTR_NOEXEC, 0),
    ("exec", 0, libc::MOUNT_ATTR_NOEXEC),
    ("nodiratime", libc::MOUNT_ATTR_NODIRATIME, 0),
    ("diratime", 0, libc::MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
    ("symfollow", 0, libc::MOUNT_ATTR_NOSYMFOLLOW),
    ("relatime", libc::MOUNT_ATTR_RELATIME, ATIME),
    ("noatime", libc::MOUNT_ATTR_NOATIME, ATIME),
    ("strictatime", libc::MOUNT_ATTR_STRICTATIME, ATIME),
    ("norelatime", 0, 0),
    ("atime", 0, 0),
    ("nostrictatime", 0, 0),
];

/// Flags of the superblock, which are bits in mount(2) and words in fsconfig(2).
const SUPERBLOCK_FLAGS: [&str; 6] = ["sync", "dirsync", "mand", "lazytime", "silent", "iversion"];
/// Options that name the default.
const DEFAULTS: [&str; 8] = ["defaults", "async", "nomand", "nolazytime", "loud", "noiversion", "", "acl"];

/// Parses a propagation option such as `rprivate`.
pub(super) fn propagation(word: &str) -> Option<PropagationPlan> {
    let (plain, is_recursive) = match word.strip_prefix('r') {
        Some(plain) => (plain, true),
        None => (word, false),
    };
    let flag = match plain {
        "private" => libc::MS_PRIVATE,
        "slave" => libc::MS_SLAVE,
        "shared" => libc::MS_SHARED,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return None,
    };
    Some(PropagationPlan { flag, is_recursive })
}

/// Parses all options of a mount.
pub(super) fn parse(words: &[String]) -> Options {
    let mut options = Options::default();
    for word in words {
        options.take(word);
    }
    options
}

impl Options {
    /// Returns an option that has no meaning for a bind, which has no superblock of its own. A mistyped restriction
    /// must not be dropped.
    pub(super) fn unknown_of_bind(&self) -> Option<&str> {
        self.parameters.iter().map(|(key, _)| key.as_str()).find(|key| !SUPERBLOCK_FLAGS.contains(key))
    }

    fn take(&mut self, word: &str) {
        let find = |name: &str| ATTRIBUTES.iter().find(|(known, _, _)| *known == name);
        if let Some((_, set, clear)) = find(word) {
            change(&mut self.set, &mut self.clear, *set, *clear);
        } else if let Some((_, set, clear)) = word.strip_prefix('r').and_then(find) {
            change(&mut self.recursive_set, &mut self.recursive_clear, *set, *clear);
        } else if let Some(propagation) = propagation(word) {
            self.propagation.push(propagation);
        } else if word == "bind" || word == "rbind" {
            self.bind = Some(word == "rbind" || self.bind == Some(true));
        } else if ["remount", "tmpcopyup", "idmap", "ridmap"].contains(&word) {
            self.refused.get_or_insert_with(|| word.to_owned());
        } else if SUPERBLOCK_FLAGS.contains(&word) {
            self.parameters.push((word.to_owned(), None));
        } else if !DEFAULTS.contains(&word) {
            let parameter = match word.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (word.to_owned(), None),
            };
            self.parameters.push(parameter);
        }
    }
}

/// Records a change of an attribute; the last option about it decides. An attribute that is both cleared and set is
/// set.
fn change(set: &mut u64, clear: &mut u64, add: u64, remove: u64) {
    *set &= !remove;
    *set |= add;
    // The atime modes are one field: the kernel requires clearing all of it whenever one is set.
    *clear &= !(add & !ATIME);
    *clear |= remove;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Options {
        parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn attributes_parameters_and_propagation_are_told_apart() {
        let options = parsed(&["nosuid", "strictatime", "mode=755", "size=65536k", "rprivate", "sync"]);
        assert_eq!(options.set, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_STRICTATIME);
        assert_eq!(options.clear, ATIME);
        let expected = [("mode", Some("755")), ("size", Some("65536k")), ("sync", None)];
        let found: Vec<_> = options.parameters.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        assert_eq!(found, expected);
        assert_eq!(options.propagation, [PropagationPlan { flag: libc::MS_PRIVATE, is_recursive: true }]);
    }

    #[test]
    fn the_last_word_about_an_attribute_counts() {
        let options = parsed(&["ro", "rw", "nodev", "rro"]);
        assert_eq!((options.set, options.clear), (libc::MOUNT_ATTR_NODEV, libc::MOUNT_ATTR_RDONLY));
        assert_eq!(options.recursive_set, libc::MOUNT_ATTR_RDONLY);
    }

    #[test]
    fn a_bind_is_recursive_when_one_word_says_so() {
        assert_eq!(parsed(&["rbind", "bind"]).bind, Some(true));
        assert_eq!(parsed(&["bind"]).bind, Some(false));
        assert_eq!(parsed(&["ro"]).bind, None);
        assert_eq!(parsed(&["bind", "tmpcopyup"]).refused.as_deref(), Some("tmpcopyup"));
    }

    #[test]
    fn a_word_that_means_nothing_for_a_bind_is_named() {
        assert_eq!(parsed(&["rbind", "rro", "nosuid", "defaults", "sync", "rslave"]).unknown_of_bind(), None);
        for word in ["r0", "RO", "z", "size=1m"] {
            let name = word.split('=').next();
            assert_eq!(parsed(&["rbind", word]).unknown_of_bind(), name, "{word}");
        }
    }
}
