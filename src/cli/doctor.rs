//! `contd doctor`: shows the findings of the checks of this node, and what `--fix` did about them.

use contd_types::{ApiError, ErrorKind};
use serde::Serialize;

use crate::cli::args::Format;
use crate::cli::error::CliError;
use crate::cli::host::Host;
use crate::cli::output::quoted;
use crate::cli::table;
use crate::config;
use crate::config::DaemonArgs;
use contd_doctor::{self as doctor, CHECKS, Finding, Outcome, Report, Severity};

/// The help text that scripts may rely on.
pub(crate) const AFTER_HELP: &str = "The doctor checks this machine's directories, so give it the flags of `contd daemon`. \
    Exit codes: 0 no finding above a note; 1 warnings or problems are left; 125 the checks could not run.";

/// The exit code when a finding above a note is left.
const FOUND: u8 = 1;

/// The flags of `contd doctor`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) dirs: DaemonArgs,
    /// Remove leftovers, where that is safe; containers with a record are never touched
    #[arg(long)]
    fix: bool,
    /// List the checks instead of running them
    #[arg(long, conflicts_with = "fix")]
    list: bool,
    /// Output format: a table, or one JSON object per line
    #[arg(long, default_value = "table")]
    format: Format,
}

/// One line of JSON.
#[derive(Debug, Serialize)]
struct FindingView<'a> {
    check: &'a str,
    severity: String,
    what: &'a str,
    #[serde(rename = "where")]
    place: &'a str,
    why: &'a str,
    remedy: &'a str,
    container: Option<&'a str>,
    fixable: bool,
    /// With `--fix`: whether the finding was fixed.
    fixed: Option<bool>,
    /// The reason why it was not fixed.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct CheckView {
    check: &'static str,
    tells: &'static str,
}

/// Runs the checks, fixes findings on request, and prints the result.
pub(crate) async fn run(host: &Host, args: &DoctorArgs) -> Result<u8, CliError> {
    if args.list {
        return host.output.data(list(args.format)?.as_bytes()).map(|()| 0);
    }
    if args.fix {
        doctor::may_fix().map_err(CliError::Doctor)?;
    }
    let config = config::load(&args.dirs).map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let mut flat = ApiError::new(ErrorKind::InvalidArgument, error.to_string()).with_hint(error.hint());
        flat.causes.extend(cause);
        CliError::Doctor(flat)
    })?;
    let report = doctor::examine(&config).await.map_err(CliError::Doctor)?;
    if args.format == Format::Table {
        let fix = if args.fix { String::new() } else { fix_command(&report.findings, &args.dirs) };
        host.output.data((as_text(&report.findings) + &fix).as_bytes())?;
    }
    let fixed = if args.fix {
        doctor::fix(&config, report.findings.clone()).await.map_err(CliError::Doctor)
    } else {
        Ok(vec![])
    };
    let outcomes = fixed.as_deref().unwrap_or_default();
    match args.format {
        Format::Json => host.output.data(as_json(&report.findings, outcomes)?.as_bytes())?,
        Format::Table => host.output.data(as_report(outcomes).as_bytes())?,
    }
    let code = code(&report, outcomes);
    fixed?;
    match report.failures.into_iter().next() {
        // Report one failure: most often all have the same cause.
        Some(failure) => Err(CliError::Doctor(failure)),
        None => Ok(code),
    }
}

fn code(report: &Report, outcomes: &[Outcome]) -> u8 {
    let is_left = |finding: &&Finding| {
        let is_done = |outcome: &Outcome| outcome.finding == **finding && outcome.failure.is_none();
        finding.severity > Severity::Note && !outcomes.iter().any(is_done)
    };
    if report.findings.iter().any(|finding| is_left(&finding)) { FOUND } else { 0 }
}

fn list(format: Format) -> Result<String, CliError> {
    match format {
        Format::Table => {
            let head = vec!["CHECK".to_owned(), "LOOKS AT".to_owned()];
            let rows = CHECKS.iter().map(|check| vec![check.name.to_owned(), check.tells.to_owned()]);
            Ok(table::render(&std::iter::once(head).chain(rows).collect::<Vec<_>>()))
        }
        Format::Json => lines(CHECKS.iter().map(|check| CheckView { check: check.name, tells: check.tells })),
    }
}

fn lines(views: impl Iterator<Item = impl Serialize>) -> Result<String, CliError> {
    let mut text = String::new();
    for view in views {
        text.push_str(&serde_json::to_string(&view)?);
        text.push('\n');
    }
    Ok(text)
}

fn as_json(findings: &[Finding], outcomes: &[Outcome]) -> Result<String, CliError> {
    lines(findings.iter().map(|finding| {
        let outcome = outcomes.iter().find(|outcome| outcome.finding == *finding);
        FindingView {
            check: finding.check,
            severity: finding.severity.to_string(),
            what: &finding.what,
            place: &finding.place,
            why: &finding.why,
            remedy: &finding.remedy,
            container: finding.container.as_ref().map(contd_types::ContainerId::as_str),
            fixable: finding.fix.is_some(),
            fixed: outcome.map(|outcome| outcome.failure.is_none()),
            error: outcome.and_then(|outcome| outcome.failure.as_ref()).map(ApiError::chain),
        }
    }))
}

/// Formats all findings as a table, with explanations below it.
fn as_text(findings: &[Finding]) -> String {
    let head: Vec<String> = ["SEVERITY", "CHECK", "WHAT"].map(str::to_owned).to_vec();
    let row =
        |finding: &Finding| vec![finding.severity.to_string(), finding.check.to_owned(), printable(&finding.what)];
    let mut text = table::render(&std::iter::once(head).chain(findings.iter().map(row)).collect::<Vec<_>>());
    for finding in findings.iter().filter(|finding| finding.severity > Severity::Ok) {
        text.push_str(&format!("\n{} {}: {}\n", finding.severity, finding.check, printable(&finding.what)));
        for (label, value) in [("where", &finding.place), ("why", &finding.why), ("remedy", &finding.remedy)] {
            if !value.is_empty() {
                text.push_str(&format!("  {label:<6}  {}\n", printable(value)));
            }
        }
    }
    text
}

/// Returns the command that fixes the findings, with the same flags: without them it would look at another node.
fn fix_command(findings: &[Finding], dirs: &DaemonArgs) -> String {
    if findings.iter().all(|finding| finding.fix.is_none()) {
        return String::new();
    }
    let flags = [
        ("--config", &dirs.config),
        ("--root", &dirs.root),
        ("--state-dir", &dirs.state_dir),
        ("--run-dir", &dirs.run_dir),
        ("--log-dir", &dirs.log_dir),
        ("--cache-dir", &dirs.cache_dir),
        ("--address", &dirs.address),
    ];
    let given = flags.iter().filter_map(|(flag, path)| Some(format!(" {flag} {}", quoted(path.as_deref()?))));
    format!("\nto remove what can be removed: contd doctor --fix{}\n", given.collect::<String>())
}

fn as_report(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for Outcome { finding, failure } in outcomes {
        let subject = format!("{}: {} ({})", finding.check, printable(&finding.what), printable(&finding.place));
        let deed = finding.fix.as_ref().map(ToString::to_string).unwrap_or_default();
        match failure {
            None => text.push_str(&format!("\nfixed {subject}\n  did     {deed}\n")),
            Some(error) => {
                let hint = error.hint.as_deref().unwrap_or("look at it by hand");
                text.push_str(&format!(
                    "\nnot fixed {subject}\n  why     {}\n  remedy  {hint}\n",
                    printable(&error.chain())
                ));
            }
        }
    }
    text
}

/// Replaces control characters, so that text from file names and other programs stays on one line and cannot control
/// the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        let warning = Finding::warning("a mount\u{1b}[31m").at_text("/x").because("it is there").remedy("unmount it");
        vec![Finding::ok("fine"), Finding { check: "mounts", ..warning }]
    }

    #[test]
    fn people_see_all_in_a_table_and_an_explanation_of_what_is_not_ok() {
        let text = as_text(&findings());
        let table = "SEVERITY   CHECK    WHAT\nok                  fine\nwarning    mounts   a mount [31m\n";
        let rest = "\nwarning mounts: a mount [31m\n  where   /x\n  why     it is there\n  remedy  unmount it\n";
        assert_eq!(text, format!("{table}{rest}"));
    }

    #[test]
    fn the_fix_command_carries_the_flags_that_were_given() {
        let dirs = DaemonArgs { config: Some("/my dir/c".into()), run_dir: Some("/r".into()), ..DaemonArgs::default() };
        assert_eq!(fix_command(&findings(), &dirs), "", "nothing can be fixed");
        let fixable = [Finding::warning("x").fixed_by(doctor::Fix::RemoveFile { path: "/x".into() })];
        let command = "contd doctor --fix --config '/my dir/c' --run-dir /r";
        assert_eq!(fix_command(&fixable, &dirs), format!("\nto remove what can be removed: {command}\n"));
    }

    #[test]
    fn programs_get_a_line_per_finding_with_what_became_of_it() {
        let findings = findings();
        let failure = Some(ApiError::new(ErrorKind::Busy, "unmount /x"));
        let outcomes = [Outcome { finding: findings[1].clone(), failure }];
        let text = as_json(&findings, &outcomes).expect("JSON");
        let values: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!((&values[0]["severity"], &values[0]["fixed"]), (&"ok".into(), &serde_json::Value::Null));
        assert_eq!((&values[1]["where"], &values[1]["fixed"]), (&"/x".into(), &false.into()));
        assert_eq!(values[1]["error"], "unmount /x");
    }

    #[test]
    fn only_what_is_left_above_a_note_is_an_exit_code() {
        let of = |findings: Vec<Finding>, outcomes: &[Outcome]| code(&Report { findings, failures: vec![] }, outcomes);
        assert_eq!(of(vec![Finding::ok("a"), Finding::note("b")], &[]), 0);
        assert_eq!(of(findings(), &[]), 1);
        let outcome = |failure| [Outcome { finding: findings()[1].clone(), failure }];
        assert_eq!(of(findings(), &outcome(None)), 0);
        assert_eq!(of(findings(), &outcome(Some(ApiError::new(ErrorKind::Busy, "x")))), 1);
    }

    #[test]
    fn the_list_of_checks_is_that_of_the_code() {
        let text = list(Format::Json).expect("JSON");
        assert_eq!(text.lines().count(), CHECKS.len());
        assert!(list(Format::Table).expect("text").contains("temp-files"));
    }
}
