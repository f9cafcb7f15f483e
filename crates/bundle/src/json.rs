//! The configuration as text: the same text for the same configuration.

use contd_types::ContainerName;
use oci_spec::runtime::Spec;
use serde_json::Value;

use crate::error::BundleError;

/// Writes a configuration as indented JSON with a final newline.
pub(crate) fn encode(name: &ContainerName, config: &Spec) -> Result<String, BundleError> {
    let failed = |source| BundleError::Encode { name: name.to_string(), source };
    let mut value = serde_json::to_value(config).map_err(failed)?;
    sort_capabilities(&mut value);
    let mut text = serde_json::to_string_pretty(&value).map_err(failed)?;
    text.push('\n');
    Ok(text)
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
