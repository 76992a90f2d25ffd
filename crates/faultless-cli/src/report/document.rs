//! One run as one JSON document, for `--json` and `--report`.
//!
//! Called by `commands`. The same shape whether the run succeeded or not: `exit_code` is always there, `error` only
//! after a failure, `report` only if the kernel made one.

use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::report::events::{Exit, Log};
use crate::vm::qemu::Machine;

/// A document under construction.
#[derive(Debug, Clone)]
pub struct Document {
    fields: Map<String, Value>,
}

impl Document {
    /// A document about one command line.
    pub fn new(program: &[String]) -> Self {
        let mut document = Document { fields: Map::new() };
        document.set("faultless", json!(env!("CARGO_PKG_VERSION")));
        document.set("program", json!(program));
        document
    }

    /// Adds the machine that it ran on.
    pub fn machine(&mut self, machine: &Machine) {
        let value = json!({
            "accelerator": machine.accelerator.name(),
            "board": machine.board.name(),
            "cpus": machine.cpus,
            "memory_bytes": machine.memory.bytes(),
        });
        self.set("machine", value);
    }

    /// Adds what is worth knowing about the preparation.
    pub fn notices(&mut self, notices: &[String]) {
        if !notices.is_empty() {
            self.set("notices", json!(notices));
        }
    }

    /// Adds what the guest reported, whether or not it came to its end.
    pub fn log(&mut self, log: &Log) {
        if let Some(boot) = &log.boot {
            self.set("boot", without_kind(boot));
        }
        if !log.faults.is_empty() {
            self.set("faults", log.faults.iter().map(without_kind).collect());
        }
        if !log.noise.is_empty() {
            self.set("unreadable_events", json!(log.noise));
        }
    }

    /// Adds the program's end.
    pub fn exit(&mut self, exit: &Exit) {
        self.set("exit_code", json!(exit.code()));
        self.set("status", json!(exit.status));
        self.set("signal", json!(exit.signal));
        if let Some(report) = &exit.report {
            self.set("report", report.clone());
        }
    }

    /// Adds a failure.
    pub fn error(&mut self, error: &Error) {
        self.set("exit_code", json!(error.exit_code()));
        let value = json!({
            "kind": error.kind(),
            "message": error.to_string(),
            "help": error.help(),
        });
        self.set("error", value);
    }

    fn set(&mut self, key: &str, value: Value) {
        self.fields.insert(key.to_owned(), value);
    }
}

/// An event's fields without the one that says which event it is.
fn without_kind(event: &Value) -> Value {
    let mut event = event.clone();
    if let Some(fields) = event.as_object_mut() {
        fields.shift_remove("event");
    }
    event
}

impl std::fmt::Display for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Indented: one document per run is for reading as much as for parsing.
        write!(f, "{:#}", Value::Object(self.fields.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::ending::GuestError;

    fn fields(document: &Document) -> Value {
        serde_json::from_str(&document.to_string()).expect("JSON")
    }

    #[test]
    fn an_end_and_a_failure_have_the_same_shape() {
        let mut log = Log::default();
        log.record(r#"{"event":"boot","cpus":2}"#);
        log.record(r#"{"event":"exit","status":1,"signal":null,"report":{"forks":9}}"#);
        let mut document = Document::new(&["prog".into(), "-x".into()]);
        document.log(&log);
        document.exit(log.exit.as_ref().expect("an end"));
        let value = fields(&document);
        assert_eq!(value["program"], json!(["prog", "-x"]));
        assert_eq!(value["boot"], json!({"cpus": 2}));
        assert_eq!((&value["exit_code"], &value["report"]["forks"]), (&json!(1), &json!(9)));

        let mut document = Document::new(&["prog".into()]);
        document.error(&GuestError::Panic("why".into()).into());
        let value = fields(&document);
        assert_eq!((&value["exit_code"], &value["error"]["kind"]), (&json!(125), &json!("panic")));
    }
}
