//! `linux.sysctl`: accepts only sysctls of namespaces that the container has for itself.

use std::collections::BTreeMap;

use contd_types::spec::IPC_SYSCTLS;

use super::namespaces::{NEW_IPC, NEW_NET, NEW_UTS, Namespaces};
use crate::fault::Fault;

/// Checks the list; a key may be written with dots or slashes.
pub(super) fn sysctls(
    config: Option<&BTreeMap<String, String>>,
    namespaces: &Namespaces,
) -> Result<Vec<(String, String)>, Fault> {
    let mut found = Vec::new();
    for (name, value) in config.into_iter().flatten() {
        let key = name.replace('/', ".");
        let invalid = |what: &str| Fault::invalid(format!("linux.sysctl.{name}"), what);
        if key.split('.').any(str::is_empty) {
            return Err(invalid("it is no sysctl"));
        }
        let (flag, namespace) = if IPC_SYSCTLS.contains(&key.as_str()) || key.starts_with("fs.mqueue.") {
            (NEW_IPC, "an IPC")
        } else if key.starts_with("net.") {
            (NEW_NET, "a network")
        } else if key == "kernel.domainname" {
            (NEW_UTS, "a UTS")
        } else if key == "kernel.hostname" {
            return Err(invalid("use the field hostname"));
        } else {
            return Err(invalid("it belongs to the whole node, not to a namespace"));
        };
        if !namespaces.has(flag) {
            return Err(invalid(&format!("it wants {namespace} namespace of its own")));
        }
        found.push((key, value.clone()));
    }
    Ok(found)
}
