//! `linux.devices` and OCI's default devices.

use std::path::Path;

use nix::libc::makedev;

use super::{Table, host_tree};
use crate::config::Device;
use crate::fault::Fault;
use crate::plan::DeviceNode;

/// OCI's default devices: name, major, minor.
const DEFAULTS: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const DEFAULT_MODE: u32 = 0o666;

/// Makes the list, each path once: the bundle's entry replaces a default one.
pub(super) fn devices(
    configs: &[Device],
    is_user_namespaced: bool,
    table: &mut Table,
) -> Result<Vec<DeviceNode>, Fault> {
    let mut nodes: Vec<DeviceNode> = Vec::with_capacity(DEFAULTS.len() + configs.len());
    for (name, major, minor) in DEFAULTS {
        nodes.push(DeviceNode {
            path: format!("/dev/{name}"),
            file_type: libc::S_IFCHR,
            device: makedev(major, minor),
            mode: DEFAULT_MODE,
            uid: 0,
            gid: 0,
            bind: None,
        });
    }
    for (index, config) in configs.iter().enumerate() {
        let node =
            node(config).map_err(|(name, what)| Fault::invalid(format!("linux.devices[{index}].{name}"), what))?;
        nodes.retain(|known| known.path != node.path);
        nodes.push(node);
    }
    if is_user_namespaced {
        for node in &mut nodes {
            let tree = host_tree(Path::new("/"), &node.path, false)
                .map_err(|error| Fault::kernel("linux.devices", format!("open the host's {}", node.path), &error))?;
            node.bind = Some(table.add(tree)?);
        }
    }
    Ok(nodes)
}

fn node(config: &Device) -> Result<DeviceNode, (&'static str, String)> {
    if !config.path.starts_with('/') {
        return Err(("path", format!("{:?} is not absolute", config.path)));
    }
    let file_type = match config.kind.as_str() {
        "c" | "u" => libc::S_IFCHR,
        "b" => libc::S_IFBLK,
        "p" => libc::S_IFIFO,
        other => return Err(("type", format!("{other:?} is no kind of device"))),
    };
    let number = |name: &'static str, number: Option<i64>| {
        let number = u32::try_from(number.unwrap_or_default());
        number.map_err(|_| (name, "it is no device number".to_owned()))
    };
    let device = makedev(number("major", config.major)?, number("minor", config.minor)?);
    Ok(DeviceNode {
        path: config.path.clone(),
        file_type,
        device,
        mode: config.file_mode.unwrap_or(DEFAULT_MODE) & 0o7777,
        uid: config.uid.unwrap_or_default(),
        gid: config.gid.unwrap_or_default(),
        bind: None,
    })
}
