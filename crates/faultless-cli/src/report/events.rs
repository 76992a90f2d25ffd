//! The kernel's report stream: one JSON object per line, its kind in `event`.
//!
//! Called by `vm::session` as the lines arrive.

use serde_json::Value;

/// How many events of one kind, and how many lines that are no events, are kept: a program may start processes that
/// fault without end, and a kernel gone wild may write without end.
const MAX_KEPT: usize = 64;

/// Everything that was reported in one run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Log {
    /// The kernel is up.
    pub boot: Option<Value>,
    /// The kernel gave up, with its first message.
    pub panic: Option<String>,
    /// The program ended.
    pub exit: Option<Exit>,
    /// Processes that ended by a fault, the first of them.
    pub faults: Vec<Value>,
    /// Lines that are no events, the first of them.
    pub noise: Vec<String>,
}

/// The end of the program.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exit {
    /// Its status, if it ended by itself.
    pub status: u8,
    /// The signal that ended it, if one did.
    pub signal: Option<u8>,
    /// What the kernel counted.
    pub report: Option<Value>,
}

impl Log {
    /// Takes in one line.
    pub fn record(&mut self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        let event: Value = match serde_json::from_str(line) {
            Ok(event) => event,
            Err(_) => return self.record_noise(line),
        };
        match event.get("event").and_then(Value::as_str) {
            Some("boot") => self.boot = Some(event),
            Some("panic") => self.panic = self.panic.take().or_else(|| Some(message(&event))),
            Some("exit") => self.exit = Some(Exit::read(event)),
            Some("fault") if self.faults.len() < MAX_KEPT => self.faults.push(event),
            Some("fault") => {}
            _ => self.record_noise(line),
        }
    }

    fn record_noise(&mut self, line: &str) {
        if self.noise.len() < MAX_KEPT {
            self.noise.push(line.to_owned());
        }
    }
}

/// One line about a process that ended by a fault.
pub fn describe_fault(event: &Value) -> String {
    let number = |key: &str| event.get(key).and_then(Value::as_u64).unwrap_or(0);
    let (pid, signal, rip) = (number("pid"), number("signal"), number("rip"));
    let address = number("address");
    let cause = match signal {
        4 => "illegal instruction".to_owned(),
        5 => "breakpoint or trace".to_owned(),
        8 => "arithmetic error".to_owned(),
        // A page fault; other exceptions of memory have no address.
        7 | 11 if number("code") < FROM_KERNEL => format!("it accessed {address:#x}"),
        7 | 11 => "an access that no page fault reports".to_owned(),
        _ => "an exception".to_owned(),
    };
    format!("process {pid} was ended by signal {signal}: {cause} at instruction {rip:#x}")
}

/// What `si_code` is from for a signal that has no address.
const FROM_KERNEL: u64 = 0x80;

fn message(event: &Value) -> String {
    let text = event.get("message").and_then(Value::as_str);
    text.unwrap_or("without a message").to_owned()
}

impl Exit {
    fn read(mut event: Value) -> Self {
        let number = |key: &str| event.get(key).and_then(Value::as_u64);
        Exit {
            // A status has eight bits, as wait(2) shows it.
            status: number("status").unwrap_or(0) as u8,
            signal: number("signal").map(|signal| signal as u8).filter(|&signal| signal != 0),
            report: event.get_mut("report").map(Value::take).filter(Value::is_object),
        }
    }

    /// The exit code that a shell would show.
    pub fn code(&self) -> u8 {
        match self.signal {
            Some(signal) => 128u8.saturating_add(signal),
            None => self.status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_whole_run_is_understood() {
        let mut log = Log::default();
        log.record(r#"{"event":"boot","cpus":4}"#);
        log.record("");
        log.record(r#"{"event":"exit","status":0,"signal":11,"report":{"forks":2}}"#);
        assert_eq!(log.boot.expect("booted")["cpus"], 4);
        let exit = log.exit.expect("ended");
        assert_eq!((exit.signal, exit.code()), (Some(11), 139));
        assert_eq!(exit.report.expect("a report")["forks"], 2);
        assert_eq!((log.panic, log.noise), (None, vec![]));
    }

    #[test]
    fn the_first_panic_counts_and_noise_is_bounded() {
        let mut log = Log::default();
        log.record(r#"{"event":"panic","message":"first"}"#);
        log.record(r#"{"event":"panic","message":"second"}"#);
        assert_eq!(log.panic.as_deref(), Some("first"));
        for _ in 0..1000 {
            log.record("{ not json");
            log.record(r#"{"event":"unheard of"}"#);
        }
        assert_eq!(log.noise.len(), MAX_KEPT);
    }

    #[test]
    fn faults_are_kept_and_told() {
        let mut log = Log::default();
        log.record(r#"{"event":"fault","pid":7,"signal":11,"code":1,"rip":4198400,"rsp":0,"address":16,"error":4}"#);
        let expected = "process 7 was ended by signal 11: it accessed 0x10 at instruction 0x401000";
        assert_eq!(describe_fault(&log.faults[0]), expected);
        log.record(r#"{"event":"fault","pid":7,"signal":4,"code":2,"rip":4198400,"rsp":0,"address":0,"error":0}"#);
        let expected = "process 7 was ended by signal 4: illegal instruction at instruction 0x401000";
        assert_eq!(describe_fault(&log.faults[1]), expected);
        log.record(r#"{"event":"fault","pid":7,"signal":11,"code":128,"rip":1,"rsp":0,"address":0,"error":0}"#);
        assert!(!describe_fault(&log.faults[2]).contains("accessed"));
        assert!(log.noise.is_empty());
    }

    #[test]
    fn a_status_is_what_wait_shows() {
        let mut log = Log::default();
        log.record(r#"{"event":"exit","status":7,"signal":null}"#);
        assert_eq!(log.exit.as_ref().map(Exit::code), Some(7));
        log.record(r#"{"event":"exit"}"#);
        assert_eq!(log.exit, Some(Exit::default()));
    }
}
