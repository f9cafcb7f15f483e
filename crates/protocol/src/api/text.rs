//! The parts that grow, as JSON in a text: from [`TEXT_VERSION`] on.
//!
//! Callers and the daemon handle one form only, [`Request::Run`] and [`Response::Info`] with their kin. Each puts what it sends into
//! the form of the connection's version, and what it hears back into that one:
//!
//! ```text
//! Request ── for_version ─► wire ─► plain ─► Request          Response ── for_version ─► wire ─► plain ─► Response
//! ```
//!
//! Version 2 cannot say all. A request that it cannot say is refused where it is made; of an answer it says what it can.

use std::marker::PhantomData;

use contd_types::{ContainerSpec, EventKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Item, MakeKind, MakeRequest, Request, Response, RunRequest, v2};
use crate::codec::CodecError;

/// The first version that has texts.
pub const TEXT_VERSION: u16 = 3;
/// The longest text in an answer: what is longer is said as in version 2. Leaves room for the rest of a frame.
const MAX_ANSWER_BYTES: usize = crate::MAX_API_BODY_BYTES - 4096;

/// A value as JSON. Its fields are found by their names, so that it may have more later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text<T> {
    json: String,
    #[serde(skip)]
    kind: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned> Text<T> {
    /// Writes a value down.
    ///
    /// # Errors
    /// [`CodecError::Text`], when JSON has no form for it.
    pub fn new(value: &T) -> Result<Self, CodecError> {
        let json = serde_json::to_string(value).map_err(|source| CodecError::Text { what: name::<T>(), source })?;
        Ok(Self { json, kind: PhantomData })
    }

    /// Reads an answer; fields that are not known are for others.
    ///
    /// # Errors
    /// [`CodecError::Text`].
    pub fn read(&self) -> Result<T, CodecError> {
        serde_json::from_str(&self.json).map_err(|source| CodecError::Text { what: name::<T>(), source })
    }

    /// Reads what is asked for, all of it.
    ///
    /// # Errors
    /// [`CodecError::Text`]; [`CodecError::Unknown`] for fields that this version has not: to pass over one could leave a container
    /// with more rights than were meant for it.
    pub fn read_all(&self) -> Result<T, CodecError> {
        let mut fields = Vec::new();
        let mut reader = serde_json::Deserializer::from_str(&self.json);
        let read = serde_ignored::deserialize(&mut reader, |path| fields.push(path.to_string()));
        let value = read.and_then(|value| reader.end().map(|()| value));
        let value = value.map_err(|source| CodecError::Text { what: name::<T>(), source })?;
        if fields.is_empty() { Ok(value) } else { Err(CodecError::Unknown { what: name::<T>(), fields }) }
    }
}

fn name<T>() -> &'static str {
    std::any::type_name::<T>()
}

impl Request {
    /// Puts it into the form of a version.
    ///
    /// # Errors
    /// [`CodecError::TooNew`] when that version cannot say all of it.
    pub fn for_version(self, version: u16) -> Result<Self, CodecError> {
        let (kind, run) = match self {
            Self::Run(run) => (MakeKind::Run, run),
            Self::Create(run) => (MakeKind::Create, run),
            Self::DryRun(run) => (MakeKind::DryRun, run),
            other if version < TEXT_VERSION && other.came_with_texts() => {
                return Err(CodecError::TooNew { what: name::<Self>(), version });
            }
            other => return Ok(other),
        };
        if version >= TEXT_VERSION {
            let RunRequest { namespace, spec, idempotency_key, is_attached } = *run;
            let spec = Text::new(&spec)?;
            return Ok(Self::Make(Box::new(MakeRequest { kind, namespace, spec, idempotency_key, is_attached })));
        }
        if !v2::can_say(&run.spec) {
            return Err(CodecError::TooNew { what: name::<ContainerSpec>(), version });
        }
        Ok(kind.request(run))
    }

    /// Tells whether a daemon of version 2 would hang up at it.
    fn came_with_texts(&self) -> bool {
        match self {
            Self::Restart { .. }
            | Self::Pause { .. }
            | Self::Unpause { .. }
            | Self::Stats { .. }
            | Self::ListStats { .. }
            | Self::Processes { .. }
            | Self::Attach { .. }
            | Self::CloseInput { .. }
            | Self::Resize { .. }
            | Self::Change { .. }
            | Self::Make(_) => true,
            Self::Version
            | Self::Run(_)
            | Self::Start { .. }
            | Self::Stop { .. }
            | Self::Kill { .. }
            | Self::Delete { .. }
            | Self::Inspect { .. }
            | Self::List { .. }
            | Self::ListNamespaces
            | Self::Wait { .. }
            | Self::Logs { .. }
            | Self::DryRun(_)
            | Self::Events { .. }
            | Self::Create(_)
            | Self::Update { .. }
            | Self::UpgradeShim { .. }
            | Self::ShutDown { .. }
            | Self::FlistServers
            | Self::CacheUsage
            | Self::Exec(_)
            | Self::WaitExec { .. }
            | Self::KillExec { .. }
            | Self::ListExecs { .. }
            | Self::ExecStream(_)
            | Self::ExecInput { .. }
            | Self::ResizeExec { .. } => false,
        }
    }

    /// Puts it back into the form that does not depend on the version.
    ///
    /// # Errors
    /// Those of [`Text::read_all`].
    pub fn plain(self) -> Result<Self, CodecError> {
        let Self::Make(make) = self else { return Ok(self) };
        let MakeRequest { kind, namespace, spec, idempotency_key, is_attached } = *make;
        Ok(kind.request(Box::new(RunRequest { namespace, spec: spec.read_all()?, idempotency_key, is_attached })))
    }
}

impl MakeKind {
    fn request(self, run: Box<RunRequest>) -> Request {
        match self {
            Self::Run => Request::Run(run),
            Self::Create => Request::Create(run),
            Self::DryRun => Request::DryRun(run),
        }
    }
}

impl Response {
    /// Puts it into the form of a version, as far as that version can say it.
    ///
    /// # Errors
    /// Those of [`Text::new`].
    pub fn for_version(self, version: u16) -> Result<Self, CodecError> {
        if version < TEXT_VERSION {
            return Ok(self);
        }
        Ok(match self {
            Self::Info(info) => {
                let text = Text::new(&*info)?;
                if text.json.len() > MAX_ANSWER_BYTES { Self::Info(info) } else { Self::InfoText(text) }
            }
            Self::Page { containers, has_more } => {
                let text = Text::new(&containers)?;
                if text.json.len() > MAX_ANSWER_BYTES {
                    Self::Page { containers, has_more }
                } else {
                    Self::PageText { containers: text, has_more }
                }
            }
            other => other,
        })
    }

    /// Puts it back into the form that does not depend on the version.
    ///
    /// # Errors
    /// Those of [`Text::read`].
    pub fn plain(self) -> Result<Self, CodecError> {
        Ok(match self {
            Self::InfoText(info) => Self::Info(Box::new(info.read()?)),
            Self::PageText { containers, has_more } => Self::Page { containers: containers.read()?, has_more },
            other => other,
        })
    }
}

impl Item {
    /// Tells whether a version knows it; what it does not know is not sent.
    pub fn is_known(&self, version: u16) -> bool {
        let is_later = match self {
            Self::Event { event, .. } => matches!(event.kind, EventKind::Paused | EventKind::Resumed),
            Self::Follows => true,
            Self::Progress { .. }
            | Self::Started { .. }
            | Self::Log(_)
            | Self::EventGap { .. }
            | Self::Executes { .. } => false,
        };
        version >= TEXT_VERSION || !is_later
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_types::{ContainerId, ContainerInfo, ContainerName, ContainerSummary, NamespaceId, State, Timestamp};

    /// As it was written when texts began: it stays readable, whatever is added.
    const FIRST_SPEC: &str = r#"{"name":"c","flist":"f","tags":[],"env":["A=1"],"network":"Private","mounts":[],
        "entrypoint":{"Args":["a"]},"working_dir":null,"user":null,"memory_bytes":1,"cpu":null,"pids_limit":null,
        "is_read_only":false,"rootfs_size_bytes":null,"upper_dir":null,"restart":"No","stop_signal":null,
        "shutdown_timeout":{"secs":3,"nanos":0},"is_elevated":false,"rootfs_propagation":"Private","labels":{"k":"v"},
        "is_auto_removed":false,"runtime":null,"layer":"disk"}"#;

    fn text<T>(json: &str) -> Text<T> {
        Text { json: json.to_owned(), kind: PhantomData }
    }

    fn info(label: &str) -> ContainerInfo {
        let mut spec = text::<ContainerSpec>(FIRST_SPEC).read().expect("its own");
        spec.labels.insert("long".to_owned(), label.to_owned());
        let namespace = NamespaceId::new("n").expect("valid");
        ContainerInfo::new(ContainerId::from_random([1; 16]), namespace, spec, State::Creating, Timestamp(1))
    }

    #[test]
    fn a_spec_of_the_first_version_with_texts_is_read() {
        let spec = text::<ContainerSpec>(FIRST_SPEC).read_all().expect("all of it is known");
        assert_eq!((spec.name, spec.memory_bytes), (ContainerName::new("c").expect("valid"), Some(1)));
        assert_eq!(spec.shutdown_timeout, Some(std::time::Duration::from_secs(3)));
    }

    #[test]
    fn a_request_comes_back_from_the_form_of_any_version() {
        let run = RunRequest::new(NamespaceId::new("n").expect("valid"), info("x").spec);
        for request in [
            Request::Run(Box::new(run.clone())),
            Request::Create(Box::new(run.clone())),
            Request::DryRun(Box::new(run)),
        ] {
            assert_eq!(request.clone().for_version(2).expect("all of it"), request);
            let made = request.clone().for_version(TEXT_VERSION).expect("JSON");
            assert!(matches!(made, Request::Make(_)), "{made:?}");
            assert_eq!(made.plain().expect("its own"), request);
        }
    }

    #[test]
    fn what_an_older_daemon_does_not_know_is_refused_before_it_is_sent() {
        let mut spec = info("x").spec;
        spec.has_terminal = true;
        let namespace = NamespaceId::new("n").expect("valid");
        let run = Request::Run(Box::new(RunRequest::new(namespace.clone(), spec)));
        let container = contd_types::ContainerRef::new("c").expect("valid");
        let pause = Request::Pause { target: super::super::Target { namespace, container } };
        for request in [run, pause] {
            let refused = request.clone().for_version(2);
            assert!(matches!(refused, Err(CodecError::TooNew { version: 2, .. })), "{refused:?}");
            assert!(request.for_version(TEXT_VERSION).is_ok());
        }
    }

    #[test]
    fn fields_that_are_not_known_are_refused_by_name_in_what_is_asked_for_and_passed_over_in_what_is_told() {
        let newer = FIRST_SPEC.replace(r#""layer""#, r#""later":{"deep":1},"layer""#);
        let read = text::<ContainerSpec>(&newer).read_all();
        assert!(matches!(&read, Err(CodecError::Unknown { fields, .. }) if fields == &["later"]), "{read:?}");
        assert!(text::<ContainerSpec>(&newer).read().is_ok());
        assert!(matches!(text::<ContainerSpec>("{}").read_all(), Err(CodecError::Text { .. })));
        let trailing = format!("{FIRST_SPEC} 1");
        assert!(matches!(text::<ContainerSpec>(&trailing).read_all(), Err(CodecError::Text { .. })));
    }

    #[test]
    fn an_answer_comes_back_too_and_one_too_long_for_a_text_is_said_in_the_older_form() {
        let page =
            |info: &ContainerInfo| Response::Page { containers: vec![ContainerSummary::from(info)], has_more: true };
        let control = "\u{1}".repeat(200 << 10);
        for (label, is_text) in [("x", true), (control.as_str(), false)] {
            let info = info(label);
            for response in [page(&info), Response::Info(Box::new(info))] {
                assert_eq!(response.clone().for_version(2).expect("as it is"), response);
                let said = response.clone().for_version(TEXT_VERSION).expect("JSON");
                assert_eq!(said != response, is_text);
                assert_eq!(said.plain().expect("its own"), response);
            }
        }
    }

    #[test]
    fn an_event_that_a_version_does_not_know_is_not_for_it() {
        let event = |kind| {
            let (namespace, name) = (NamespaceId::new("n").expect("valid"), ContainerName::new("c").expect("valid"));
            let event = contd_types::ContainerEvent {
                namespace,
                id: ContainerId::from_random([1; 16]),
                name,
                at: Timestamp(1),
                kind,
            };
            Item::Event { seq: 1, event }
        };
        let known = |kind, version| event(kind).is_known(version);
        assert!(
            known(EventKind::Recovered, 2) && known(EventKind::Paused, TEXT_VERSION) && !known(EventKind::Resumed, 2)
        );
    }
}
