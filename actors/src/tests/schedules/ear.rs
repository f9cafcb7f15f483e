//! Hears what no test may ignore: an error that the code calls a bug, and a panic that nobody planted.

use std::cell::RefCell;
use std::fmt::Write;
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

thread_local! {
    static HEARD: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Runs something and returns what was heard meanwhile on this thread.
pub(super) fn listen(work: impl FnOnce()) -> Vec<String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(hear_panics);
    HEARD.set(Some(Vec::new()));
    tracing::subscriber::with_default(Ear, work);
    HEARD.take().unwrap_or_default()
}

fn hear(what: String) -> bool {
    HEARD.with_borrow_mut(|heard| heard.as_mut().map(|heard| heard.push(what)).is_some())
}

fn hear_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.payload_as_str().unwrap_or_default();
        let is_listening = HEARD.with_borrow(Option::is_some);
        let is_planted = text == "planted" || text.starts_with("the script of the fake");
        // A panic of a dead process on its way out of memory is nobody's business.
        if is_listening && (is_planted || super::replay::is_halted()) {
            return;
        }
        hear(format!("a panic: {info}"));
        usual(info);
    }));
}

/// Hears the errors that say that the code itself is wrong.
struct Ear;

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        if text.0.contains("lifecycle refused") {
            hear(text.0);
        }
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// All fields of an event in one line.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}
