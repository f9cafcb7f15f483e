//! The limits of execve(2) on a command and its environment (`bprm_stack_limits` of the kernel).

use crate::spec::{ContainerSpec, Entrypoint, SpecError};

/// The longest argument or `KEY=VALUE`: `MAX_ARG_STRLEN` less the NUL.
pub const MAX_STRING_BYTES: usize = 32 * 4096 - 1;
/// The bounds of the limit on all strings together, for a small and for a large stack: `ARG_MAX`, and three quarters of
/// the default stack.
const LEAST_LIMIT: u64 = 128 * 1024;
const MOST_LIMIT: u64 = 6 * 1024 * 1024;
/// The bytes for strings that are not in a spec: the path of the program (4 KiB at the most), `PATH`, `HOME`.
const RESERVED: u64 = 8 * 1024;
/// The extra bytes of each string: its NUL and a pointer.
const PER_STRING: usize = 1 + size_of::<u64>();

/// Returns how many bytes a command and its environment may take under a stack limit in bytes.
pub fn exec_limit_bytes(stack_limit: u64) -> usize {
    let limit = (stack_limit / 4).clamp(LEAST_LIMIT, MOST_LIMIT) - RESERVED;
    usize::try_from(limit).unwrap_or(usize::MAX)
}

impl ContainerSpec {
    /// Checks each string that the container is executed with.
    pub(crate) fn check_strings(&self) -> Result<(), SpecError> {
        let too_long = |text: &str| text.len() > MAX_STRING_BYTES;
        if let Some(entry) = self.env.iter().find(|entry| too_long(entry)) {
            let key: String = entry.split('=').next().unwrap_or_default().chars().take(80).collect();
            return Err(SpecError::StringTooLong { what: format!("environment variable {key}"), bytes: entry.len() });
        }
        let Some(Entrypoint::Args(args) | Entrypoint::Exact(args)) = &self.entrypoint else { return Ok(()) };
        match args.iter().enumerate().find(|(_, arg)| too_long(arg)) {
            Some((0, program)) => {
                Err(SpecError::StringTooLong { what: "the program".to_owned(), bytes: program.len() })
            }
            Some((number, arg)) => {
                Err(SpecError::StringTooLong { what: format!("argument {number} of the command"), bytes: arg.len() })
            }
            None => Ok(()),
        }
    }

    /// Checks that command and environment fit together; `limit` comes from [`exec_limit_bytes`].
    ///
    /// # Errors
    /// [`SpecError::ExecTooLarge`].
    pub fn check_exec(&self, limit: usize) -> Result<(), SpecError> {
        let of = |texts: &[String]| texts.iter().map(|text| text.len().saturating_add(PER_STRING)).sum::<usize>();
        let command = match &self.entrypoint {
            None => 0,
            Some(Entrypoint::Line(line)) => line.len(),
            Some(Entrypoint::Args(args) | Entrypoint::Exact(args)) => of(args),
        };
        let bytes = command.saturating_add(of(&self.env));
        if bytes > limit { Err(SpecError::ExecTooLarge { bytes, limit }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ContainerName;

    fn spec(env: &[String], args: &[String]) -> ContainerSpec {
        let mut spec = ContainerSpec::new(ContainerName::new("web").expect("valid"), "/x.fl");
        spec.env = env.to_vec();
        spec.entrypoint = Some(Entrypoint::Args([&["sh".to_owned()], args].concat()));
        spec
    }

    #[test]
    fn a_string_that_execve_refuses_is_refused_by_name_and_without_its_value() {
        let fits = format!("KEY={}", "x".repeat(MAX_STRING_BYTES - 4));
        assert_eq!(spec(std::slice::from_ref(&fits), &[]).validate(), Ok(()));
        let error = spec(&[format!("{fits}y")], &[]).validate().expect_err("too long");
        assert!(
            error.to_string().contains("environment variable KEY has 131072 bytes")
                && !error.to_string().contains("xx")
        );
        // Even where the spec as a whole would be too large.
        let error = spec(&[format!("BIG={}", "x".repeat(600_000))], &[]).validate().expect_err("far too long");
        assert!(error.to_string().contains("environment variable BIG"), "{error}");
        let error = spec(&[], &["a".into(), "y".repeat(MAX_STRING_BYTES + 1)]).validate().expect_err("too long");
        assert!(error.to_string().contains("argument 2 of the command"), "{error}");
        assert_eq!(spec(&[], &["y".repeat(MAX_STRING_BYTES)]).validate(), Ok(()));
    }

    #[test]
    fn all_strings_together_fit_into_a_quarter_of_the_stack() {
        let usual = exec_limit_bytes(8 << 20);
        assert_eq!(usual, (2 << 20) - 8192);
        assert_eq!(exec_limit_bytes(0), 120 * 1024);
        assert_eq!(exec_limit_bytes(u64::MAX), (6 << 20) - 8192);
        let empty_args = vec![String::new(); 20_000];
        let sized = spec(&[], &empty_args);
        let bytes = 20_000 * 9 + 11;
        assert_eq!(sized.check_exec(bytes), Ok(()));
        assert_eq!(sized.check_exec(bytes - 1), Err(SpecError::ExecTooLarge { bytes, limit: bytes - 1 }));
        assert_eq!(spec(&["A=1".into()], &[]).check_exec(22), Err(SpecError::ExecTooLarge { bytes: 23, limit: 22 }));
    }
}
