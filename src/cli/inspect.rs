//! `contd inspect`: shows everything about containers, each as one JSON object, or some of their fields.

use std::time::Duration;

use contd_client::{Client, Deadline};
use contd_protocol::api::Target;
use contd_types::ContainerRef;
use serde_json::Value;

use crate::cli::args::Containers;
use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::view::InspectView;

/// A shim that stands still does not keep anybody from the rest.
const SHIM_SAYS: Deadline = Deadline::After(Duration::from_secs(1));
/// The field whose own fields are the caller's.
const LABELS: &str = "labels";

/// The flags of `contd inspect`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct InspectArgs {
    /// Print only these fields of the JSON, one line for each container: status, or exit.code,mounts.0.source,labels.tier
    #[arg(short, long, value_name = "FIELD[,FIELD...]|json", value_parser = format)]
    format: Option<Form>,
    #[command(flatten)]
    which: Containers,
}

/// The form of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// The whole object.
    Json,
    /// Some fields, by their paths.
    Fields(Vec<String>),
}

fn format(text: &str) -> Result<Form, String> {
    match text {
        "json" => Ok(Form::Json),
        template if template.contains("{{") => Err("contd has no templates: name fields of its JSON, for example \
            status,exit.code; jq does more with the whole of it"
            .to_owned()),
        fields => {
            let fields: Vec<String> = fields.split(',').map(|field| field.trim_start_matches('.').to_owned()).collect();
            if fields.iter().any(String::is_empty) {
                return Err("name fields of its JSON, for example status,exit.code".to_owned());
            }
            Ok(Form::Fields(fields))
        }
    }
}

/// Shows the containers.
pub(crate) async fn run(session: &Session<'_>, args: InspectArgs) -> Result<u8, CliError> {
    let form = args.format.unwrap_or(Form::Json);
    session.each(args.which.containers, async |client, target| look(&client, target, &form).await.map(Some)).await
}

async fn look(client: &Client, target: Target, form: &Form) -> Result<String, CliError> {
    let info = client.inspect(target.clone(), Deadline::Usual).await?;
    // Those of the container that was shown: its name may be another's by now.
    let target = Target { container: ContainerRef::from(&info.id), ..target };
    let execs = if info.state.pid().is_some() { client.execs(target, SHIM_SAYS).await.ok() } else { Some(Vec::new()) };
    let view = InspectView::of(&info, execs.as_deref());
    match form {
        Form::Json => Ok(serde_json::to_string_pretty(&view)?),
        Form::Fields(paths) => {
            let object = serde_json::to_value(&view)?;
            let fields: Result<Vec<String>, CliError> = paths.iter().map(|path| field(&object, path)).collect();
            Ok(fields?.join("\t"))
        }
    }
}

/// Returns a field as text: a text as it is, anything else as JSON.
fn field(object: &Value, path: &str) -> Result<String, CliError> {
    let steps: Vec<&str> = path.split('.').collect();
    Ok(match find(object, &steps, "a container", path)? {
        // On one line, and apart from its neighbours.
        Value::String(text) if !text.contains(char::is_control) => text.clone(),
        other => serde_json::to_string(other)?,
    })
}

fn find<'a>(value: &'a Value, steps: &[&str], parent: &str, path: &str) -> Result<&'a Value, CliError> {
    let Some((first, rest)) = steps.split_first() else { return Ok(value) };
    let no_such =
        |fields: Vec<String>| CliError::NoSuchField { path: path.to_owned(), parent: parent.to_owned(), fields };
    match value {
        Value::Null => Ok(&Value::Null),
        Value::Array(list) => match first.parse::<usize>() {
            Ok(index) => list.get(index).map_or(Ok(&Value::Null), |value| find(value, rest, first, path)),
            Err(_) => Err(no_such(vec!["0".to_owned(), "1".to_owned(), "and so on".to_owned()])),
        },
        // A label's own name may have dots.
        Value::Object(labels) if parent == LABELS => Ok(labels.get(&steps.join(".")).unwrap_or(&Value::Null)),
        Value::Object(fields) => match fields.get(*first) {
            Some(value) => find(value, rest, first, path),
            None => Err(no_such(fields.keys().cloned().collect())),
        },
        _ => Err(no_such(vec!["no fields".to_owned()])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_leads_to_a_field_whatever_it_is() {
        let object = json!({
            "status": "running", "exit": null, "pid": 7, "forged": "a\tb", "tags": ["x", "y"],
            "labels": { "io.x.y": "dots", "tier": "front" }, "mounts": [{ "source": "/a" }],
        });
        for (path, text) in [
            ("status", "running"),
            ("pid", "7"),
            ("exit.code", "null"),
            ("forged", r#""a\tb""#),
            ("tags.1", "y"),
            ("tags.7", "null"),
            ("tags", r#"["x","y"]"#),
            ("labels.io.x.y", "dots"),
            ("labels.none", "null"),
            ("mounts.0.source", "/a"),
        ] {
            assert_eq!(field(&object, path).expect(path), text, "{path}");
        }
        for bad in ["stat", "mounts.0.sources", "mounts.first", "pid.x"] {
            assert!(matches!(field(&object, bad), Err(CliError::NoSuchField { .. })), "{bad}");
        }
    }

    #[test]
    fn templates_are_refused_with_what_there_is() {
        assert_eq!(format("json"), Ok(Form::Json));
        assert_eq!(format(".status,exit.code"), Ok(Form::Fields(vec!["status".into(), "exit.code".into()])));
        assert!(format("{{.State.Status}}").expect_err("refused").contains("no templates"));
        assert!(format("").is_err() && format("a,,b").is_err());
    }
}
