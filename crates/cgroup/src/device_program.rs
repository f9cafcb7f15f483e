//! Compiles device rules to BPF for v2, which has no files for them: a program decides each access.
//!
//! The program gets `struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }`, where `access_type` is
//! `(access << 16) | kind`. Rules are tested from the last to the first; the first that matches decides.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::error::CgroupError;
use crate::limits::{Access, DeviceKind, DeviceRule};
use crate::sys;

// enum in linux/bpf.h: BPF_DEVCG_DEV_*, BPF_DEVCG_ACC_*.
const KIND_BLOCK: i32 = 1;
const KIND_CHAR: i32 = 2;
const ACCESS_MAKE: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;

// Opcodes, linux/bpf.h and linux/bpf_common.h: class | operation | source.
const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbc;
const MOVE_NUMBER: u8 = 0xb4;
const AND_NUMBER: u8 = 0x54;
const SHIFT_RIGHT_NUMBER: u8 = 0x74;
const JUMP_UNLESS_EQUAL_NUMBER: u8 = 0x56;
const JUMP_UNLESS_EQUAL_REGISTER: u8 = 0x5e;
const EXIT: u8 = 0x95;

// The registers of the program.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// One condition of a rule; if it does not hold, the rule does not match.
#[derive(Debug, Clone, Copy)]
enum Test {
    Equal {
        register: u8,
        number: i32,
    },
    /// All requested kinds of access are among these.
    Within(i32),
}

/// Attaches the rules to a cgroup.
pub(crate) fn attach(cgroup: BorrowedFd<'_>, path: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let load = || {
        let program = sys::load_device_program(&compile(rules))?;
        sys::attach_device_program(cgroup, program.as_fd())
    };
    load().map_err(|source| CgroupError::File {
        verb: "attach the device rules to",
        path: path.to_owned(),
        field: Some("linux.resources.devices"),
        source,
    })
}

/// Encodes an instruction: `struct bpf_insn`, little-endian.
fn instruction(opcode: u8, target: u8, source: u8, offset: i16, number: i32) -> u64 {
    let [low, high] = offset.to_le_bytes();
    let [a, b, c, d] = number.to_le_bytes();
    u64::from_le_bytes([opcode, (source << 4) | target, low, high, a, b, c, d])
}

fn compile(rules: &[DeviceRule]) -> Vec<u64> {
    let mut program = vec![
        instruction(LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(MOVE_REGISTER, ACCESS, KIND, 0, 0),
        instruction(AND_NUMBER, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT_NUMBER, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(compile_rule(rule));
        if rule.is_for_all() {
            return program;
        }
    }
    // An access that no rule matches is refused.
    program.extend(decide(false));
    program
}

fn decide(is_allowed: bool) -> [u64; 2] {
    [instruction(MOVE_NUMBER, RESULT, 0, 0, i32::from(is_allowed)), instruction(EXIT, 0, 0, 0, 0)]
}

fn compile_rule(rule: &DeviceRule) -> Vec<u64> {
    let mut tests = Vec::new();
    match rule.kind {
        DeviceKind::All => {}
        DeviceKind::Char => tests.push(Test::Equal { register: KIND, number: KIND_CHAR }),
        DeviceKind::Block => tests.push(Test::Equal { register: KIND, number: KIND_BLOCK }),
    }
    if rule.access != Access::ALL {
        let Access { read, write, make } = rule.access;
        let bits = [(read, ACCESS_READ), (write, ACCESS_WRITE), (make, ACCESS_MAKE)];
        tests.push(Test::Within(bits.iter().filter(|(is_set, _)| *is_set).map(|(_, bit)| bit).sum()));
    }
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(number) = number {
            tests.push(Test::Equal { register, number: i32::from_le_bytes(number.to_le_bytes()) });
        }
    }
    let length = |test: &Test| match test {
        Test::Equal { .. } => 1i16,
        Test::Within(_) => 3,
    };
    let decision = decide(rule.is_allowed);
    // The distance, in instructions, from each test to the next rule.
    let mut left: i16 = 2 + tests.iter().map(length).sum::<i16>();
    let mut code = Vec::new();
    for test in &tests {
        left -= length(test);
        match test {
            Test::Equal { register, number } => {
                code.push(instruction(JUMP_UNLESS_EQUAL_NUMBER, *register, 0, left, *number));
            }
            Test::Within(bits) => {
                code.push(instruction(MOVE_REGISTER, SCRATCH, ACCESS, 0, 0));
                code.push(instruction(AND_NUMBER, SCRATCH, 0, 0, *bits));
                code.push(instruction(JUMP_UNLESS_EQUAL_REGISTER, SCRATCH, ACCESS, left, 0));
            }
        }
    }
    code.extend(decision);
    code
}
