//! The users other than root that may use the API, and the parts of the host that each may use. A rule gives only what it names.

use std::path::{Component, Path, PathBuf};

use contd_flist::UrlPrefix;
use contd_types::{NamespaceId, NetnsName};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use contd_types::amount::{cpus, size as parse_size};

/// A right to use the API. Root and the daemon's own user may do everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// How the rule is called in audits and refusals; its number otherwise.
    pub name: Option<String>,
    /// The peer's user.
    pub uid: Option<u32>,
    /// One of the peer's groups, primary or supplementary.
    pub gid: Option<u32>,
    /// The namespaces it may use; empty means all.
    pub namespaces: Vec<NamespaceId>,
    /// Whether it may only look.
    pub read_only: bool,
    /// The directories that its containers may bind.
    pub binds: Vec<BindRule>,
    /// Directories at or below which its containers may have their writable layer.
    pub uppers: Vec<AllowedPath>,
    /// The flists and directories that its containers may have as root.
    pub flists: Vec<FlistRule>,
    /// The named network namespaces that its containers may join.
    pub networks: Vec<NetnsName>,
    /// Whether its containers may be elevated: those can become root on the host.
    pub elevated: bool,
    /// The runtimes that its containers may ask for by name.
    pub runtimes: Vec<String>,
    /// The most containers of one user, over all namespaces.
    pub max_containers: Option<usize>,
    /// The most memory of one container; the node's default when left out, 0 for no bound.
    #[serde(deserialize_with = "size")]
    pub max_memory: Option<u64>,
    /// The most CPU of one container, in thousandths; the node's default when left out.
    #[serde(deserialize_with = "cpu_millis")]
    pub max_cpus: Option<u32>,
    /// The most processes of one container; the node's default when left out, 0 for no bound.
    pub max_pids: Option<u32>,
    /// The largest writable layer of one container; the node's default when left out.
    #[serde(deserialize_with = "size")]
    pub max_rootfs_size: Option<u64>,
    /// Connections of one user, instead of `limits.connections_per_user`.
    pub max_connections: Option<usize>,
    /// Followers of one user, instead of `limits.followers_per_user`.
    pub max_followers: Option<usize>,
}

impl Access {
    /// Names the rule, for audits and refusals.
    pub fn label(&self, position: usize) -> String {
        self.name.clone().unwrap_or_else(|| format!("access #{}", position + 1))
    }
}

/// An absolute path without `..`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AllowedPath(PathBuf);

impl AllowedPath {
    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl TryFrom<String> for AllowedPath {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let path = PathBuf::from(&text);
        let is_plain = path.is_absolute() && path.components().all(|part| part != Component::ParentDir);
        if is_plain { Ok(Self(path)) } else { Err(format!("{text:?} is not an absolute path without `..`")) }
    }
}

/// A place that may be bound: `/path`, or `/path:ro` to be read only.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct BindRule {
    /// At or below it.
    pub base: AllowedPath,
    /// Whether only read-only mounts may be made of it.
    pub is_read_only: bool,
}

impl TryFrom<String> for BindRule {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let (path, is_read_only) = match (text.strip_suffix(":ro"), text.strip_suffix(":rw")) {
            (Some(path), _) => (path, true),
            (None, Some(path)) => (path, false),
            (None, None) => (text.as_str(), false),
        };
        Ok(Self { base: AllowedPath::try_from(path.to_owned())?, is_read_only })
    }
}

/// A root that is allowed: `/path` for flists, `dir:/path` for plain directories, or a URL.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum FlistRule {
    /// Flists at or below it, and stores of their blocks.
    Files(AllowedPath),
    /// Plain directories at or below it.
    Directories(AllowedPath),
    /// Flists at or below it; of `zdb`, `s3` and `s3s` only stores of their blocks.
    Url(UrlPrefix),
}

impl TryFrom<String> for FlistRule {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("file://") {
            return AllowedPath::try_from(path.to_owned()).map(Self::Files);
        }
        if text.contains("://") {
            return UrlPrefix::parse(&text).map(Self::Url).map_err(|fault| format!("{text:?} {fault}"));
        }
        match text.strip_prefix("dir:") {
            Some(path) => AllowedPath::try_from(path.to_owned()).map(Self::Directories),
            None => AllowedPath::try_from(text).map(Self::Files),
        }
    }
}

/// A value that people write as a number or as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Amount {
    Whole(u64),
    Fraction(f64),
    Text(String),
}

impl Amount {
    fn deserialize_text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
        Ok(match Self::deserialize(from)? {
            Self::Whole(number) => number.to_string(),
            Self::Fraction(number) => number.to_string(),
            Self::Text(text) => text,
        })
    }
}

fn size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    parse_size(&Amount::deserialize_text(from)?).map(Some).map_err(D::Error::custom)
}

fn cpu_millis<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    let limit = cpus(&Amount::deserialize_text(from)?).map_err(D::Error::custom)?;
    Ok(Some(limit.millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Result<Access, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn a_rule_says_what_it_gives_and_nothing_else_is_given() {
        let all = rule(
            "name = 'alice'\nuid = 1000\nnamespaces = ['a']\nbinds = ['/srv/a', '/srv/ro:ro', '/srv/rw:rw']\nuppers = ['/u']\n\
             flists = ['/f', 'file:///g', 'dir:/d', 'https://hub.example/x', 'zdb://h']\nnetworks = ['n']\nelevated = true\n\
             runtimes = ['runc']\nmax_containers = 3\nmax_memory = '64m'\nmax_cpus = 1.5\nmax_pids = 9\nmax_rootfs_size = 1048576",
        )
        .expect("valid");
        let read_only: Vec<bool> = all.binds.iter().map(|bind| bind.is_read_only).collect();
        assert_eq!(read_only, [false, true, false]);
        assert_eq!(all.binds[1].base.path(), Path::new("/srv/ro"));
        assert!(matches!(
            all.flists.as_slice(),
            [FlistRule::Files(_), FlistRule::Files(_), FlistRule::Directories(_), FlistRule::Url(_), FlistRule::Url(_)]
        ));
        assert_eq!((all.max_memory, all.max_cpus, all.max_rootfs_size), (Some(64 << 20), Some(1500), Some(1 << 20)));
        assert_eq!(rule("uid = 1").expect("valid"), Access { uid: Some(1), ..Access::default() });
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for bad in [
            "binds = ['rel']",
            "binds = ['/a/../b']",
            "uppers = ['~/x']",
            "flists = ['https://a:b@h/']",
            "flists = ['https://h/?q=1']",
            "flists = ['ftp://h/']",
            "flists = ['dir:x']",
            "networks = ['../x']",
            "max_memory = 'much'",
            "max_cpus = 0",
            "bind = ['/a']",
        ] {
            assert!(rule(bad).is_err(), "{bad} was accepted");
        }
    }
}
