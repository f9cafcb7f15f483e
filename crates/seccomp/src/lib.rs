//! Compiles the seccomp section of an OCI configuration to BPF with libseccomp, with the same meaning as `runc`.
//!
//! Takes in: the JSON of `linux.seccomp`. Gives out: a classic BPF program in binary-tree form and the flags for
//! loading it. Never does: load it, cache it. It is a program of its own so that no other program links libseccomp.
#![forbid(unsafe_code)]

mod newer;
mod section;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use libseccomp::error::SeccompError as LibraryError;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpFilterContext, ScmpSyscall};

pub use section::{Argument, Section, Syscall};

/// The errno of the action "errno" when the section gives no number, from the specification.
const DEFAULT_ERRNO: u32 = 1;
/// libseccomp's binary tree: a third of the time of a linear filter (docs/architecture.md, facts).
const OPTIMIZE_BINARY_TREE: u32 = 2;
/// The most bytes of a program: the kernel takes 4096 instructions of 8 bytes.
const MAX_PROGRAM_BYTES: u64 = 4096 * 8;

// linux/seccomp.h
const FLAG_TSYNC: u32 = 1;
const FLAG_LOG: u32 = 1 << 1;
const FLAG_SPEC_ALLOW: u32 = 1 << 2;

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// The instructions (`struct sock_filter`), one after the other.
    pub program: Vec<u8>,
}

/// A section cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The text is not a valid section.
    #[error("read the section")]
    Decode {
        /// Why.
        source: serde_json::Error,
    },
    /// The section has an unknown word.
    #[error("linux.seccomp.{field}: {word:?} is not known")]
    Unknown {
        /// The field.
        field: &'static str,
        /// The word.
        word: String,
    },
    /// The section asks for a feature that the launcher does not support.
    #[error("linux.seccomp.{field} is not supported")]
    Unsupported {
        /// The field.
        field: &'static str,
    },
    /// libseccomp returned an error.
    #[error("{what}")]
    Library {
        /// The call that failed.
        what: String,
        /// Why.
        source: LibraryError,
    },
    /// The program could not be written out.
    #[error("export the filter")]
    Export {
        /// Why.
        source: io::Error,
    },
}

/// Compiles a section.
///
/// # Errors
/// [`SeccompError`].
pub fn compile(json: &[u8]) -> Result<Filter, SeccompError> {
    let section: Section = serde_json::from_slice(json).map_err(|source| SeccompError::Decode { source })?;
    if section.listener_path.as_deref().is_some_and(|path| !path.is_empty()) {
        return Err(SeccompError::Unsupported { field: "listenerPath" });
    }
    if section.listener_metadata.as_deref().is_some_and(|text| !text.is_empty()) {
        return Err(SeccompError::Unsupported { field: "listenerMetadata" });
    }
    let flags = flags(&section)?;
    let default = action(&section.default_action, section.default_errno_ret, "defaultAction")?;
    let context = |source| SeccompError::Library { what: "begin a filter".to_owned(), source };
    let mut filter = ScmpFilterContext::new(default).map_err(context)?;
    filter.set_ctl_optimize(OPTIMIZE_BINARY_TREE).map_err(context)?;
    // The launcher decides about no-new-privileges.
    filter.set_ctl_nnp(false).map_err(context)?;
    let mut architectures = vec![ScmpArch::native()];
    for word in &section.architectures {
        let arch = arch(word)?;
        architectures.push(arch);
        let what = || format!("add the architecture {word}");
        filter.add_arch(arch).map_err(|source| SeccompError::Library { what: what(), source })?;
    }
    for syscall in &section.syscalls {
        add(&mut filter, syscall, default)?;
    }
    let mut program = newer::prelude(&section, &architectures, default);
    program.extend(export(&filter)?);
    if u64::try_from(program.len()).unwrap_or(u64::MAX) > MAX_PROGRAM_BYTES {
        let source = io::Error::other("it has more instructions than the kernel takes");
        return Err(SeccompError::Export { source });
    }
    Ok(Filter { flags, program })
}

fn export(filter: &ScmpFilterContext) -> Result<Vec<u8>, SeccompError> {
    let export = || -> io::Result<Vec<u8>> {
        let mut file = scratch()?;
        filter.export_bpf(&file).map_err(io::Error::other)?;
        file.seek(SeekFrom::Start(0))?;
        let mut program = Vec::new();
        file.take(MAX_PROGRAM_BYTES + 1).read_to_end(&mut program)?;
        Ok(program)
    };
    export().map_err(|source| SeccompError::Export { source })
}

/// Makes a file without a name: libseccomp writes to descriptors only.
fn scratch() -> io::Result<File> {
    let fd = nix::sys::memfd::memfd_create(c"filter", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    Ok(File::from(fd))
}

fn flags(section: &Section) -> Result<u32, SeccompError> {
    section.flags.iter().try_fold(0, |flags, word| match word.as_str() {
        "SECCOMP_FILTER_FLAG_TSYNC" => Ok(flags | FLAG_TSYNC),
        "SECCOMP_FILTER_FLAG_LOG" => Ok(flags | FLAG_LOG),
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Ok(flags | FLAG_SPEC_ALLOW),
        _ => Err(SeccompError::Unknown { field: "flags", word: word.clone() }),
    })
}

fn action(word: &str, errno: Option<u32>, field: &'static str) -> Result<ScmpAction, SeccompError> {
    let number = || i32::try_from(errno.unwrap_or(DEFAULT_ERRNO)).unwrap_or(i32::MAX);
    Ok(match word {
        // The specification's oldest word, KILL, means the thread.
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => ScmpAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => ScmpAction::KillProcess,
        "SCMP_ACT_TRAP" => ScmpAction::Trap,
        "SCMP_ACT_ERRNO" => ScmpAction::Errno(number()),
        "SCMP_ACT_TRACE" => ScmpAction::Trace(u16::try_from(number()).unwrap_or(u16::MAX)),
        "SCMP_ACT_ALLOW" => ScmpAction::Allow,
        "SCMP_ACT_LOG" => ScmpAction::Log,
        "SCMP_ACT_NOTIFY" => return Err(SeccompError::Unsupported { field: "syscalls[].action SCMP_ACT_NOTIFY" }),
        _ => return Err(SeccompError::Unknown { field, word: word.to_owned() }),
    })
}

fn arch(word: &str) -> Result<ScmpArch, SeccompError> {
    Ok(match word {
        "SCMP_ARCH_X86" => ScmpArch::X86,
        "SCMP_ARCH_X86_64" => ScmpArch::X8664,
        "SCMP_ARCH_X32" => ScmpArch::X32,
        "SCMP_ARCH_ARM" => ScmpArch::Arm,
        "SCMP_ARCH_AARCH64" => ScmpArch::Aarch64,
        "SCMP_ARCH_MIPS" => ScmpArch::Mips,
        "SCMP_ARCH_MIPS64" => ScmpArch::Mips64,
        "SCMP_ARCH_MIPS64N32" => ScmpArch::Mips64N32,
        "SCMP_ARCH_MIPSEL" => ScmpArch::Mipsel,
        "SCMP_ARCH_MIPSEL64" => ScmpArch::Mipsel64,
        "SCMP_ARCH_MIPSEL64N32" => ScmpArch::Mipsel64N32,
        "SCMP_ARCH_PPC" => ScmpArch::Ppc,
        "SCMP_ARCH_PPC64" => ScmpArch::Ppc64,
        "SCMP_ARCH_PPC64LE" => ScmpArch::Ppc64Le,
        "SCMP_ARCH_S390" => ScmpArch::S390,
        "SCMP_ARCH_S390X" => ScmpArch::S390X,
        "SCMP_ARCH_RISCV64" => ScmpArch::Riscv64,
        _ => return Err(SeccompError::Unknown { field: "architectures", word: word.to_owned() }),
    })
}

fn add(filter: &mut ScmpFilterContext, rule: &Syscall, default: ScmpAction) -> Result<(), SeccompError> {
    let action = action(&rule.action, rule.errno_ret, "syscalls[].action")?;
    // libseccomp refuses to add a rule with the default action.
    if action == default {
        return Ok(());
    }
    for name in &rule.names {
        // Names of newer kernels or of other machines are skipped, as with the other runtimes.
        let Ok(syscall) = ScmpSyscall::from_name(name) else { continue };
        let refused = |source| SeccompError::Library { what: format!("add the rule for {name}"), source };
        if rule.args.is_empty() {
            filter.add_rule(action, syscall).map_err(refused)?;
            continue;
        }
        let compares = rule.args.iter().map(Argument::compare).collect::<Result<Vec<ScmpArgCompare>, _>>()?;
        // libseccomp accepts each argument once in a rule; if one occurs twice, each condition becomes a rule of its
        // own.
        let mut indexes: Vec<u32> = rule.args.iter().map(|argument| argument.index).collect();
        indexes.sort_unstable();
        if indexes.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
            for compare in compares {
                filter.add_rule_conditional(action, syscall, &[compare]).map_err(refused)?;
            }
        } else {
            filter.add_rule_conditional(action, syscall, &compares).map_err(refused)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_becomes_a_program() {
        let json = br#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],
            "syscalls":[{"names":["read","write","no_such_call"],"action":"SCMP_ACT_ALLOW"},
            {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,
            "op":"SCMP_CMP_MASKED_EQ"}]}],"flags":["SECCOMP_FILTER_FLAG_LOG"]}"#;
        let filter = compile(json).expect("compiles");
        assert_eq!((filter.flags, filter.program.len() % 8), (2, 0));
        assert!(filter.program.len() > 5 * 8, "{}", filter.program.len());
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        let refused = |json: &str| compile(json.as_bytes()).expect_err("refused").to_string();
        let notify = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_NOTIFY"}]}"#;
        assert!(refused(notify).contains("SCMP_ACT_NOTIFY"));
        assert!(refused(r#"{"defaultAction":"SCMP_ACT_DANCE"}"#).contains("SCMP_ACT_DANCE"));
        assert!(refused(r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]}"#).contains("flags"));
        assert!(refused(r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#).contains("listenerPath"));
    }
}
