//! The API socket: whose it is, and who may open it. What they may do then is said by the rules.

use nix::unistd::Group;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// The owner and the group may connect. A socket has no use for any other bit.
const DEFAULT_MODE: u32 = 0o660;
const MODE_BITS: u32 = 0o666;

/// The rights of the API socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Its group; that of the daemon when left out.
    #[serde(deserialize_with = "group")]
    pub group: Option<u32>,
    /// Its mode.
    #[serde(deserialize_with = "mode")]
    pub mode: u32,
}

impl Default for Api {
    fn default() -> Self {
        Self { group: None, mode: DEFAULT_MODE }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u32),
    Text(String),
}

/// Reads a group by name or number.
fn group<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    let name = match NumberOrText::deserialize(from)? {
        NumberOrText::Number(gid) => return Ok(Some(gid)),
        NumberOrText::Text(name) => name,
    };
    match Group::from_name(&name) {
        Ok(Some(group)) => Ok(Some(group.gid.as_raw())),
        // As chown(1) has it: a number is one when no group is called so.
        Ok(None) => name.parse().map(Some).map_err(|_no_number| {
            D::Error::custom(format!("api.group: this node has no group {name:?}: groupadd {name}"))
        }),
        Err(errno) => Err(D::Error::custom(format!("api.group: look up group {name:?}: {errno}"))),
    }
}

/// Reads a mode in octal digits.
fn mode<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let mode = match NumberOrText::deserialize(from)? {
        NumberOrText::Number(number) => Some(number),
        NumberOrText::Text(text) => u32::from_str_radix(&text, 8).ok(),
    };
    // 660 without quotes is decimal, and has other bits.
    let is_plain = |mode: &u32| mode & !MODE_BITS == 0 && mode & 0o600 == 0o600;
    mode.filter(is_plain)
        .ok_or_else(|| D::Error::custom("api.mode: write the mode of a socket as text, such as \"0660\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_names_or_numbers_and_modes_are_octal() {
        let api = |text: &str| toml::from_str::<Api>(text);
        assert_eq!(api("").expect("valid"), Api { group: None, mode: 0o660 });
        assert_eq!(api("group = 'root'\nmode = '0666'").expect("valid"), Api { group: Some(0), mode: 0o666 });
        assert_eq!(api("group = 61000\nmode = 0o600").expect("valid"), Api { group: Some(61_000), mode: 0o600 });
        assert_eq!(api("group = '61000'").expect("valid").group, Some(61_000));
        for bad in
            ["group = 'no such group'", "group = -1", "mode = 660", "mode = '0770'", "mode = '0060'", "mode = 'x'"]
        {
            assert!(api(bad).is_err(), "{bad} was accepted");
        }
    }
}
