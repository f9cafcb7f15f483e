//! Writes the configuration as JSON; equal configurations give equal texts.

use contd_types::ContainerName;
use oci_spec::runtime::Spec;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::error::BundleError;

/// The path of the seccomp profile in the configuration.
const PROFILE_PATH: [&str; 2] = ["linux", "seccomp"];
/// The indentation of one level.
const INDENT: &str = "  ";

/// Writes a configuration as indented JSON with a final newline, with `profile` in place of its seccomp profile if it has
/// one: see [`encode_profile`].
pub(crate) fn encode(name: &ContainerName, config: &Spec, profile: Option<&RawValue>) -> Result<String, BundleError> {
    let failed = |source| BundleError::Encode { name: name.to_string(), source };
    let mut value = serde_json::to_value(config).map_err(failed)?;
    sort_capabilities(&mut value);
    let mut text = match (&value, profile) {
        (Value::Object(object), Some(text)) => {
            serde_json::to_string_pretty(&Spliced { object, path: &PROFILE_PATH, text }).map_err(failed)?
        }
        (other, _) => serde_json::to_string_pretty(other).map_err(failed)?,
    };
    text.push('\n');
    Ok(text)
}

/// Encodes a profile once for all configurations that use it: it is nine tenths of each.
pub(crate) fn encode_profile(profile: &impl Serialize) -> Result<Box<RawValue>, serde_json::Error> {
    // Going through a `Value` sorts the keys, as in the rest of the text.
    let text = serde_json::to_string_pretty(&serde_json::to_value(profile)?)?;
    let line = format!("\n{}", INDENT.repeat(PROFILE_PATH.len()));
    // A newline can only separate tokens: inside a string it is escaped.
    RawValue::from_string(text.replace('\n', &line))
}

/// An object in which a text replaces the value at `path`.
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

/// Sorts the capability sets: the library keeps them in hash sets, whose order changes from run to run.
fn sort_capabilities(config: &mut Value) {
    let Some(Value::Object(sets)) = config.pointer_mut("/process/capabilities") else { return };
    for set in sets.values_mut() {
        if let Value::Array(names) = set {
            names.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
        }
    }
}
