//! The one build: every library, binary, test, example and bench of the workspace, with the same features throughout.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

/// A binary of libtest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestBinary {
    /// The package, and the target if that is a file in `tests/`: `contd e2e`.
    pub(crate) name: String,
    /// The arguments of cargo that run just this one: `-p contd --test e2e`.
    pub(crate) selection: Vec<String>,
    /// The binary.
    pub(crate) program: PathBuf,
    /// Where cargo runs it: the directory of the package.
    pub(crate) dir: PathBuf,
}

/// All that was built and can be run.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) tests: Vec<TestBinary>,
    /// Programs and examples.
    pub(crate) programs: Vec<PathBuf>,
}

/// Builds everything, for another architecture if that is named.
///
/// # Errors
/// When cargo cannot be run, fails, or has built no test.
pub(crate) fn build(target: Option<&str>) -> Result<Built, String> {
    let begin = Instant::now();
    let output = Command::new(cargo())
        .args(["build", "--locked", "--workspace", "--all-targets", "--message-format=json-render-diagnostics"])
        .args(target.iter().flat_map(|target| ["--target", target]))
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("run cargo build: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo build: {}", output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let tests: Vec<TestBinary> = messages.iter().filter_map(test_binary).collect();
    let programs = messages.iter().filter_map(program).collect();
    if tests.is_empty() {
        return Err("cargo build: it named no test binary".to_owned());
    }
    println!("built {} test binaries in {:.0} s", tests.len(), begin.elapsed().as_secs_f32());
    Ok(Built { tests, programs })
}

/// The cargo that runs us, or the one in the path.
pub(crate) fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Reads one message of cargo; `None` if it is not about a binary of libtest. Benches have no libtest.
fn test_binary(message: &Value) -> Option<TestBinary> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let program = PathBuf::from(message["executable"].as_str()?);
    let dir = Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    let package = package_name(message["package_id"].as_str()?)?;
    let target = message["target"]["name"].as_str()?;
    let (name, flags) = match message["target"]["kind"][0].as_str()? {
        "test" => (format!("{package} {target}"), vec!["--test", target]),
        "bin" => (format!("{package} bin {target}"), vec!["--bin", target]),
        "lib" => (package.to_owned(), vec!["--lib"]),
        _ => return None,
    };
    let selection = ["-p", package].into_iter().chain(flags).map(str::to_owned).collect();
    Some(TestBinary { name, selection, program, dir })
}

/// Reads one message of cargo; `None` if it is not about a program or an example.
fn program(message: &Value) -> Option<PathBuf> {
    let is_program = ["bin", "example"].iter().any(|kind| message["target"]["kind"][0] == *kind);
    let is_built = message["reason"] == "compiler-artifact" && message["profile"]["test"] == false;
    if is_program && is_built { Some(PathBuf::from(message["executable"].as_str()?)) } else { None }
}

/// The name in a package id, which is `path+file:///dir#name@version`, or without the name if that is the directory's.
fn package_name(id: &str) -> Option<&str> {
    let (path, fragment) = id.rsplit_once('#')?;
    match fragment.split_once('@') {
        Some((name, _version)) => Some(name),
        None => path.rsplit('/').next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(kind: &str, id: &str, is_test: bool) -> Value {
        serde_json::json!({
            "reason": "compiler-artifact", "package_id": id, "manifest_path": "/src/contd/Cargo.toml",
            "target": {"kind": [kind], "name": "e2e"}, "profile": {"test": is_test}, "executable": "/t/deps/e2e-1",
        })
    }

    #[test]
    fn a_test_binary_is_named_as_cargo_is_told() {
        let found = test_binary(&artifact("test", "path+file:///src/wt#contd@0.1.0", true)).expect("a test");
        assert_eq!(found.name, "contd e2e");
        assert_eq!(found.selection, ["-p", "contd", "--test", "e2e"]);
        assert_eq!(found.dir, Path::new("/src/contd"));
        let unit = test_binary(&artifact("lib", "path+file:///src/contd#0.1.0", true)).expect("a test");
        assert_eq!((unit.name.as_str(), unit.selection.join(" ")), ("contd", "-p contd --lib".to_owned()));
    }

    #[test]
    fn programs_and_benches_are_no_tests() {
        assert_eq!(test_binary(&artifact("bin", "path+file:///src/contd#0.1.0", false)), None);
        assert_eq!(test_binary(&artifact("bench", "path+file:///src/contd#0.1.0", true)), None);
    }
}
