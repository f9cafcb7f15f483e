//! The types of `linux.seccomp`.

use libseccomp::{ScmpArgCompare, ScmpCompareOp};
use serde::Deserialize;

use crate::SeccompError;

/// The whole section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Section {
    pub(crate) default_action: String,
    pub(crate) default_errno_ret: Option<u32>,
    #[serde(default)]
    pub(crate) architectures: Vec<String>,
    #[serde(default)]
    pub(crate) flags: Vec<String>,
    pub(crate) listener_path: Option<String>,
    pub(crate) listener_metadata: Option<String>,
    #[serde(default)]
    pub(crate) syscalls: Vec<Syscall>,
}

/// One entry of `syscalls`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Syscall {
    pub(crate) names: Vec<String>,
    pub(crate) action: String,
    pub(crate) errno_ret: Option<u32>,
    #[serde(default)]
    pub(crate) args: Vec<Argument>,
}

/// A condition on an argument.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Argument {
    pub(crate) index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

impl Argument {
    pub(crate) fn compare(&self) -> Result<ScmpArgCompare, SeccompError> {
        let (operator, datum) = match self.op.as_str() {
            "SCMP_CMP_NE" => (ScmpCompareOp::NotEqual, self.value),
            "SCMP_CMP_LT" => (ScmpCompareOp::Less, self.value),
            "SCMP_CMP_LE" => (ScmpCompareOp::LessOrEqual, self.value),
            "SCMP_CMP_EQ" => (ScmpCompareOp::Equal, self.value),
            "SCMP_CMP_GE" => (ScmpCompareOp::GreaterEqual, self.value),
            "SCMP_CMP_GT" => (ScmpCompareOp::Greater, self.value),
            // The first value is the mask; the masked argument is compared with the second value.
            "SCMP_CMP_MASKED_EQ" => (ScmpCompareOp::MaskedEqual(self.value), self.value_two),
            other => return Err(SeccompError::Unknown { field: "syscalls[].args[].op", word: other.to_owned() }),
        };
        Ok(ScmpArgCompare::new(self.index, operator, datum))
    }
}
