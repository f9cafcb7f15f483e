//! Names that a container resolves: hosts of its own, and who is asked for others.

use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{MAX_LIST_LEN, SpecError, is_hostname, shorten};

/// The longest option of a resolver, in bytes.
const MAX_OPTION_BYTES: usize = 64;
/// The domain that stands for no search at all.
const NO_SEARCH: &str = ".";

/// Lines of a container's `/etc/hosts` and `/etc/resolv.conf` beyond the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NameService {
    /// Hosts beside itself.
    pub hosts: Vec<HostEntry>,
    /// The name servers; empty for those of its network.
    pub servers: Vec<IpAddr>,
    /// The domains that short names are looked for in; empty for those of its network, `.` for none.
    pub search: Vec<String>,
    /// Options of the resolver (resolv.conf(5)); empty for those of its network.
    pub options: Vec<String>,
}

/// A host and its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
}

impl NameService {
    /// Tells whether it says anything about whom to ask.
    pub fn has_resolver(&self) -> bool {
        !(self.servers.is_empty() && self.search.is_empty() && self.options.is_empty())
    }

    /// Returns the search domains, without the word for none.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.search.iter().map(String::as_str).filter(|domain| *domain != NO_SEARCH)
    }

    pub(super) fn validate(&self) -> Result<(), SpecError> {
        let lists = [
            ("hosts", self.hosts.len()),
            ("dns servers", self.servers.len()),
            ("dns search domains", self.search.len()),
            ("dns options", self.options.len()),
        ];
        for (field, len) in lists {
            if len > MAX_LIST_LEN {
                return Err(SpecError::TooMany { field, len });
            }
        }
        let domain = |domain: &&String| domain.as_str() != NO_SEARCH && !is_hostname(domain);
        let wrong = self.hosts.iter().map(|host| &host.name).find(|name| !is_hostname(name));
        if let Some(name) = wrong.or_else(|| self.search.iter().find(domain)) {
            return Err(SpecError::BadHostname { given: shorten(name) });
        }
        let is_option = |option: &String| {
            let is_good = |byte: u8| byte.is_ascii_graphic() && byte != b'#' && byte != b';';
            !option.is_empty() && option.len() <= MAX_OPTION_BYTES && option.bytes().all(is_good)
        };
        match self.options.iter().find(|option| !is_option(option)) {
            Some(option) => Err(SpecError::BadDnsOption { given: shorten(option) }),
            None => Ok(()),
        }
    }
}

impl FromStr for HostEntry {
    type Err = SpecError;

    /// Parses `NAME:ADDRESS` or `NAME=ADDRESS`; an address of IPv6 may have brackets.
    fn from_str(text: &str) -> Result<Self, SpecError> {
        let bad = || SpecError::BadHost { given: shorten(text) };
        let (name, address) = text.split_once(['=', ':']).ok_or_else(bad)?;
        let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
        let address = bare.parse().map_err(|_| bad())?;
        if is_hostname(name) { Ok(Self { name: name.to_owned(), address }) } else { Err(bad()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_and_an_address() {
        for (text, name, address) in [
            ("db:192.0.2.1", "db", "192.0.2.1"),
            ("db.example=2001:db8::1", "db.example", "2001:db8::1"),
            ("db:2001:db8::1", "db", "2001:db8::1"),
            ("db:[::1]", "db", "::1"),
        ] {
            let expected = HostEntry { name: name.to_owned(), address: address.parse().expect("an address") };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for bad in ["", "db", "db:", ":192.0.2.1", "d b:192.0.2.1", "db:host-gateway", "db:192.0.2"] {
            assert!(bad.parse::<HostEntry>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn nothing_in_it_can_begin_another_line() {
        let names = |search: &[&str], options: &[&str]| NameService {
            search: search.iter().map(|&text| text.to_owned()).collect(),
            options: options.iter().map(|&text| text.to_owned()).collect(),
            ..NameService::default()
        };
        assert_eq!(names(&["example.com", "."], &["ndots:2", "edns0"]).validate(), Ok(()));
        for (search, options) in
            [(&["a b"][..], &[][..]), (&["a\nnameserver 192.0.2.1"], &[]), (&[], &["a b"]), (&[], &[""])]
        {
            assert!(names(search, options).validate().is_err(), "{search:?} {options:?}");
        }
        assert_eq!(names(&["."], &[]).domains().count(), 0);
        assert!(names(&["."], &[]).has_resolver() && !names(&[], &[]).has_resolver());
    }
}
