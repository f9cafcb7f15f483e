//! Answers ENOSYS to system calls that are newer than all that a profile names.
//!
//! A C library tries a new call first, and uses the old one only when the kernel says that the new one does not exist.
//! EPERM, the usual default of a profile, would break programs that are newer than their profile. So a few instructions
//! run before libseccomp's: on each architecture a call with a number above the highest that the profile names gets
//! ENOSYS, as with `runc`; every other call continues into the filter. No call is allowed that the filter would not
//! allow.

use std::collections::BTreeMap;

use libseccomp::{ScmpAction, ScmpArch, ScmpSyscall};

use crate::section::Section;

/// The errno of a call that the kernel does not have.
const ENOSYS: i32 = 38;

/// Bit of the numbers of the x32 ABI, which shares its architecture token with x86_64 (asm/unistd.h).
const X32_BIT: u32 = 0x4000_0000;

// linux/audit.h
const AUDIT_X86: u32 = 0x4000_0003;
const AUDIT_X86_64: u32 = 0xC000_003E;
const AUDIT_ARM: u32 = 0x4000_0028;
const AUDIT_AARCH64: u32 = 0xC000_00B7;
const AUDIT_RISCV64: u32 = 0xC000_00F3;

// linux/bpf_common.h; offsets are those of struct seccomp_data.
const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_GREATER: u16 = 0x25;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
const NUMBER_OFFSET: u32 = 0;
const ARCH_OFFSET: u32 = 4;
/// linux/seccomp.h; the errno is in the lower half.
const RETURN_ERRNO: u32 = 0x0005_0000;

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

impl Instruction {
    fn new(code: u16, value: u32) -> Self {
        Self { code, if_true: 0, if_false: 0, value }
    }

    fn jump(code: u16, value: u32, if_true: u8, if_false: u8) -> Self {
        Self { code, if_true, if_false, value }
    }

    fn bytes(self) -> [u8; 8] {
        let ([c0, c1], [v0, v1, v2, v3]) = (self.code.to_ne_bytes(), self.value.to_ne_bytes());
        [c0, c1, self.if_true, self.if_false, v0, v1, v2, v3]
    }
}

/// The highest number that the profile names, for each ABI.
#[derive(Debug, Default, Clone, Copy)]
struct Highest {
    own: u32,
    /// The highest number of x32, when the profile includes that ABI.
    x32: Option<u32>,
}

/// Returns the instructions before the filter; empty where the default action lets calls through or is ENOSYS itself.
pub(crate) fn prelude(section: &Section, architectures: &[ScmpArch], default: ScmpAction) -> Vec<u8> {
    match default {
        ScmpAction::Allow | ScmpAction::Log | ScmpAction::Trace(_) | ScmpAction::Errno(ENOSYS) => return Vec::new(),
        _ => {}
    }
    let mut highest: BTreeMap<u32, Highest> = BTreeMap::new();
    for arch in architectures {
        let Some(number) = highest_named(section, *arch) else { continue };
        match arch {
            ScmpArch::X32 => highest.entry(AUDIT_X86_64).or_default().x32 = Some(number),
            arch => {
                if let Some(token) = token(*arch) {
                    highest.entry(token).or_default().own = number;
                }
            }
        }
    }
    if highest.is_empty() {
        return Vec::new();
    }
    let blocks: Vec<Vec<Instruction>> = highest.iter().map(|(token, highest)| block(*token, *highest)).collect();
    let mut left: usize = blocks.iter().map(|block| block.len() + 1).sum();
    let mut program = vec![Instruction::new(LOAD_WORD, ARCH_OFFSET)];
    for block in blocks {
        left -= block.len() + 1;
        program.extend(block);
        // Jump over the remaining blocks into the filter.
        program.push(Instruction::new(JUMP, u32::try_from(left).unwrap_or_default()));
    }
    program.into_iter().flat_map(Instruction::bytes).collect()
}

/// Returns the instructions for one architecture; the one after them leads into the filter.
fn block(token: u32, highest: Highest) -> Vec<Instruction> {
    let no_such_call = Instruction::new(RETURN, RETURN_ERRNO | ENOSYS.unsigned_abs());
    let number = Instruction::new(LOAD_WORD, NUMBER_OFFSET);
    match highest.x32 {
        None => vec![
            Instruction::jump(JUMP_IF_EQUAL, token, 0, 4),
            number,
            Instruction::jump(JUMP_IF_GREATER, highest.own, 0, 1),
            no_such_call,
        ],
        Some(x32) => vec![
            Instruction::jump(JUMP_IF_EQUAL, token, 0, 6),
            number,
            Instruction::jump(JUMP_IF_AT_LEAST, X32_BIT, 1, 0),
            Instruction::jump(JUMP_IF_GREATER, highest.own, 1, 2),
            Instruction::jump(JUMP_IF_GREATER, x32, 0, 1),
            no_such_call,
        ],
    }
}

fn highest_named(section: &Section, arch: ScmpArch) -> Option<u32> {
    let names = section.syscalls.iter().flat_map(|rule| &rule.names);
    let numbers = names.filter_map(|name| ScmpSyscall::from_name_by_arch(name, arch).ok());
    // libseccomp gives calls that an architecture lacks a negative number.
    numbers.filter_map(|call| u32::try_from(call.as_raw_syscall()).ok()).max()
}

/// Returns the kernel's token of an architecture; `None` leaves calls of that architecture to the profile's default.
fn token(arch: ScmpArch) -> Option<u32> {
    match arch {
        ScmpArch::X86 => Some(AUDIT_X86),
        ScmpArch::X8664 => Some(AUDIT_X86_64),
        ScmpArch::Arm => Some(AUDIT_ARM),
        ScmpArch::Aarch64 => Some(AUDIT_AARCH64),
        ScmpArch::Riscv64 => Some(AUDIT_RISCV64),
        _ => None,
    }
}
