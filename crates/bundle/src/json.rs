//! The configuration as text: the same text for the same configuration.

use contd_types::ContainerName;
use oci_spec::runtime::Spec;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::error::BundleError;

/// Where the seccomp profile stands.
const PROFILE_PATH: [&str; 2] = ["linux", "seccomp"];
/// How far each level of a text is indented.
const INDENT: &str = "  ";

/// Writes a configuration as indented JSON with a final newline, with `profile` in place of its seccomp profile: see
/// [`encode_profile`].
pub(crate) fn encode(name: &ContainerName, config: &Spec, profile: &RawValue) -> Result<String, BundleError> {
    let failed = |source| BundleError::Encode { name: name.to_string(), source };
    let mut value = serde_json::to_value(config).map_err(failed)?;
    sort_capabilities(&mut value);
    let mut text = match &value {
        Value::Object(object) => {
            serde_json::to_string_pretty(&Spliced { object, path: &PROFILE_PATH, text: profile }).map_err(failed)?
        }
        other => serde_json::to_string_pretty(other).map_err(failed)?,
    };
    text.push('\n');
    Ok(text)
}

/// Writes a profile once for all configurations that it will stand in: it is nine tenths of each of them.
pub(crate) fn encode_profile(profile: &impl Serialize) -> Result<Box<RawValue>, serde_json::Error> {
    // By way of a value, which puts the keys in order, as everywhere else.
    let text = serde_json::to_string_pretty(&serde_json::to_value(profile)?)?;
    let line = format!("\n{}", INDENT.repeat(PROFILE_PATH.len()));
    // A line can only end between two tokens: inside a string it is written as an escape.
    RawValue::from_string(text.replace('\n', &line))
}

/// An object with a text in place of what stands at `path`.
struct Spliced<'a> {
    object: &'a Map<String, Value>,
    path: &'a [&'a str],
    text: &'a RawValue,
}

impl Serialize for Spliced<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries = serializer.serialize_map(Some(self.object.len()))?;
        for (key, value) in self.object {
            match (self.path, value) {
                ([last], _) if key == last => entries.serialize_entry(key, self.text)?,
                ([first, path @ ..], Value::Object(object)) if key == first => {
                    entries.serialize_entry(key, &Spliced { object, path, text: self.text })?;
                }
                _ => entries.serialize_entry(key, value)?,
            }
        }
        entries.end()
    }
}

/// Puts the capability sets in order: the library keeps them in hash sets, which come out differently each time.
fn sort_capabilities(config: &mut Value) {
    let Some(Value::Object(sets)) = config.pointer_mut("/process/capabilities") else { return };
    for set in sets.values_mut() {
        if let Value::Array(names) = set {
            names.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
        }
    }
}
