//! The types of `linux.resources`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The limits of the container's cgroup.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Resources {
    #[serde(default)]
    pub(crate) devices: Option<Vec<DeviceRule>>,
    pub(crate) memory: Option<Memory>,
    pub(crate) cpu: Option<Cpu>,
    pub(crate) pids: Option<Pids>,
    #[serde(rename = "blockIO")]
    pub(crate) block_io: Option<BlockIo>,
    pub(crate) hugepage_limits: Option<Value>,
    pub(crate) network: Option<Value>,
    pub(crate) rdma: Option<Value>,
    #[serde(default)]
    pub(crate) unified: Option<BTreeMap<String, String>>,
}

/// One of `devices`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceRule {
    pub(crate) allow: bool,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) major: Option<i64>,
    pub(crate) minor: Option<i64>,
    pub(crate) access: Option<String>,
}

/// `memory`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Memory {
    pub(crate) limit: Option<i64>,
    pub(crate) reservation: Option<i64>,
    pub(crate) swap: Option<i64>,
    pub(crate) kernel: Option<i64>,
    #[serde(rename = "kernelTCP")]
    pub(crate) kernel_tcp: Option<i64>,
    pub(crate) swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller")]
    pub(crate) disable_oom_killer: Option<bool>,
    pub(crate) use_hierarchy: Option<bool>,
    pub(crate) check_before_update: Option<bool>,
}

/// `cpu`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Cpu {
    pub(crate) shares: Option<u64>,
    pub(crate) quota: Option<i64>,
    pub(crate) burst: Option<u64>,
    pub(crate) period: Option<u64>,
    pub(crate) realtime_runtime: Option<i64>,
    pub(crate) realtime_period: Option<u64>,
    pub(crate) cpus: Option<String>,
    pub(crate) mems: Option<String>,
    pub(crate) idle: Option<i64>,
}

/// `blockIO`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct BlockIo {
    pub(crate) weight: Option<u16>,
    pub(crate) leaf_weight: Option<Value>,
    pub(crate) weight_device: Option<Value>,
    pub(crate) throttle_read_bps_device: Option<Value>,
    pub(crate) throttle_write_bps_device: Option<Value>,
    #[serde(rename = "throttleReadIOPSDevice")]
    pub(crate) throttle_read_iops_device: Option<Value>,
    #[serde(rename = "throttleWriteIOPSDevice")]
    pub(crate) throttle_write_iops_device: Option<Value>,
}

/// `pids`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pids {
    pub(crate) limit: Option<i64>,
}
