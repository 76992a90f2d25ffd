//! The program to run, as the archive's `/.faultless/manifest` says it.
//!
//! Called by [`super::init`] and by the host's tests. Records are `key=value`, separated by zero bytes.

use alloc::vec::Vec;

/// What to execute, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// The file to execute.
    pub exec: Vec<u8>,
    /// `argv`, the first included.
    pub args: Vec<Vec<u8>>,
    /// `environ`.
    pub env: Vec<Vec<u8>>,
    /// Working directory; `/` if the manifest names none.
    pub cwd: Vec<u8>,
    /// Whether the report's figures are wanted.
    pub report: bool,
    /// Whether the console is a terminal rather than a stream.
    pub tty: bool,
    /// Whether no input will ever come.
    pub no_input: bool,
}

/// Why a manifest was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadManifest {
    /// A record without `=`, or with a key nobody knows.
    Record {
        /// Its position among the records.
        index: usize,
    },
    /// There is no `exec` record.
    NoProgram,
}

impl Manifest {
    /// Reads the records.
    ///
    /// # Errors
    ///
    /// [`BadManifest`] names the first record that is not understood: a newer writer must not be
    /// obeyed by halves.
    pub fn parse(text: &[u8]) -> Result<Manifest, BadManifest> {
        let mut manifest = Manifest { cwd: b"/".to_vec(), ..Manifest::default() };
        let records = text.split(|&b| b == 0).filter(|r| !r.is_empty());
        for (index, record) in records.enumerate() {
            let bad = BadManifest::Record { index };
            let equals = record.iter().position(|&b| b == b'=').ok_or(bad)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            manifest.take(key, value).ok_or(bad)?;
        }
        if manifest.exec.is_empty() {
            return Err(BadManifest::NoProgram);
        }
        Ok(manifest)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"exec" => self.exec = value.to_vec(),
            b"arg" => self.args.push(value.to_vec()),
            b"env" => self.env.push(value.to_vec()),
            b"cwd" => self.cwd = value.to_vec(),
            b"report" => self.report = flag(value)?,
            b"tty" => self.tty = flag(value)?,
            b"no_input" => self.no_input = flag(value)?,
            _ => return None,
        }
        Some(())
    }
}

fn flag(value: &[u8]) -> Option<bool> {
    match value {
        b"0" => Some(false),
        b"1" => Some(true),
        _ => None,
    }
}
