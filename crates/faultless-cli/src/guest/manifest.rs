//! What the kernel is told to run: the archive member `/.faultless/manifest`.
//!
//! Called by `prepare`; read by the kernel at boot. A sequence of `key=value` records separated by NUL bytes, which
//! is the one byte that no argument, variable or path can contain.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Where the kernel looks for it.
pub const PATH: &str = "/.faultless/manifest";

/// One program to run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// The working directory.
    pub cwd: OsString,
    /// The guest path of the file to execute.
    pub exec: OsString,
    /// The argument vector, `argv[0]` first.
    pub arguments: Vec<OsString>,
    /// `NAME=VALUE`, in order.
    pub environment: Vec<OsString>,
    /// Whether the kernel writes the memory report.
    pub report: bool,
    /// Whether standard input is a terminal.
    pub tty: bool,
    /// Whether standard input is at its end from the start: the host, which sends input when it gets round to it, has
    /// then no say in when the guest does what.
    pub no_input: bool,
}

/// A value that contains a NUL byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NulError {
    /// The record that it was meant for.
    pub key: &'static str,
}

impl Manifest {
    /// The records as bytes.
    ///
    /// # Errors
    ///
    /// [`NulError`] if a value contains a NUL byte.
    pub fn encode(&self) -> Result<Vec<u8>, NulError> {
        let on = OsString::from("1");
        let single = [("cwd", &self.cwd), ("exec", &self.exec)];
        let flags = [("report", self.report), ("tty", self.tty), ("no_input", self.no_input)];
        let records = single
            .into_iter()
            .chain(self.arguments.iter().map(|value| ("arg", value)))
            .chain(self.environment.iter().map(|value| ("env", value)))
            .chain(flags.into_iter().filter(|flag| flag.1).map(|flag| (flag.0, &on)));
        let mut bytes = Vec::new();
        for (key, value) in records {
            if value.as_bytes().contains(&0) {
                return Err(NulError { key });
            }
            if !bytes.is_empty() {
                bytes.push(0);
            }
            bytes.extend_from_slice(key.as_bytes());
            bytes.push(b'=');
            bytes.extend_from_slice(value.as_bytes());
        }
        Ok(bytes)
    }

    /// The value of an environment variable, if it is set. The last setting counts.
    pub fn variable(&self, name: &str) -> Option<OsString> {
        self.environment.iter().rev().find_map(|setting| {
            let value = setting.as_bytes().strip_prefix(name.as_bytes())?;
            let value = value.strip_prefix(b"=")?;
            Some(OsString::from_vec(value.to_vec()))
        })
    }
}

impl fmt::Display for NulError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a NUL byte in `{}`", self.key)
    }
}

impl std::error::Error for NulError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        Manifest {
            cwd: "/".into(),
            exec: "/bin/echo".into(),
            arguments: vec!["echo".into(), "a=b c".into(), "".into()],
            environment: vec!["HOME=/".into(), "X=1".into(), "X=2=3".into()],
            report: true,
            tty: false,
            no_input: false,
        }
    }

    #[test]
    fn records_are_separated_by_nul() {
        let bytes = sample().encode().expect("no NUL");
        let text = String::from_utf8(bytes).expect("text");
        assert_eq!(
            text.split('\0').collect::<Vec<_>>(),
            [
                "cwd=/",
                "exec=/bin/echo",
                "arg=echo",
                "arg=a=b c",
                "arg=",
                "env=HOME=/",
                "env=X=1",
                "env=X=2=3",
                "report=1",
            ]
        );
    }

    #[test]
    fn a_nul_inside_a_value_is_refused() {
        let mut manifest = sample();
        manifest.arguments.push(OsString::from_vec(b"a\0exec=/evil".to_vec()));
        assert_eq!(manifest.encode(), Err(NulError { key: "arg" }));
    }

    #[test]
    fn the_last_setting_of_a_variable_counts() {
        assert_eq!(sample().variable("X"), Some("2=3".into()));
        assert_eq!(sample().variable("HOM"), None);
    }
}
