//! A stand-in for QEMU: a shell script that finds its event stream and its archive as QEMU would.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shell words with which the guest says that it is up.
pub const BOOT: &str = r#"echo '{"event":"boot","cpus":1}' > "$events";"#;

/// Shell words with which the guest reports the end of its program.
pub fn exit(status: &str, signal: &str, report: &str) -> String {
    format!("echo '{{\"event\":\"exit\",\"status\":{status},\"signal\":{signal},\"report\":{report}}}' > \"$events\"")
}

const PROLOGUE: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do
  case "$1" in
    file,id=rep,path=*) events="${1#file,id=rep,path=}" ;;
    -initrd) initrd="$2" ;;
  esac
  shift
done
"#;

/// Held while a script is written and while a process is started: a child that was forked in between would keep the
/// script open for writing until it executes, and nobody can execute a file that is open for writing.
static FORK: Mutex<()> = Mutex::new(());

fn no_fork() -> MutexGuard<'static, ()> {
    FORK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a command.
pub fn spawn(command: &mut Command) -> Child {
    let _turn = no_fork();
    command.spawn().expect("started")
}

/// A directory with a stand-in, something that passes for a kernel, and a program.
pub struct Fake {
    dir: tempfile::TempDir,
}

/// A finished command.
pub struct Done {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Done {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Fake {
    /// A guest that does what the shell script says; `$events` and `$initrd` are set.
    pub fn new(script: &str) -> Self {
        let fake = Fake { dir: tempfile::tempdir().expect("temporary directory") };
        fake.executable("qemu", format!("{PROLOGUE}{script}\n").as_bytes());
        fake.executable("program", &program());
        fake.executable("kernel", &kernel());
        fake
    }

    fn executable(&self, name: &str, bytes: &[u8]) {
        let path = self.at(name);
        let _turn = no_fork();
        fs::write(&path, bytes).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
    }

    /// A path in the directory.
    pub fn at(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    pub fn program(&self) -> String {
        self.at("program")
    }

    /// `faultless run` with this guest; later options win over the stand-ins.
    pub fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_faultless"));
        command.env("FAULTLESS_QEMU", self.at("qemu"));
        command.env("FAULTLESS_KERNEL", self.at("kernel"));
        command.arg("run").args(options).arg(self.program()).arg("--flag");
        command
    }

    /// Runs it to its end with `input`.
    pub fn run(&self, options: &[&str], input: &[u8]) -> Done {
        let mut command = self.command(options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(&mut command);
        // A guest that fails early does not take its input.
        let _ = child.stdin.take().expect("piped").write_all(input);
        let output = child.wait_with_output().expect("ended");
        Done {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The smallest file that is an x86-64 program: a header without segments.
fn program() -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    bytes.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    bytes.resize(64, 0);
    bytes[52] = 64;
    bytes
}

/// The smallest file that QEMU would start as a kernel: a header and the note with the entry point.
fn kernel() -> Vec<u8> {
    let mut bytes = program();
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    bytes[54..58].copy_from_slice(&[56, 0, 1, 0]);
    let note = [4u32, 4, 18, u32::from_le_bytes(*b"Xen\0"), 0x10_0000].map(u32::to_le_bytes).concat();
    let size = note.len() as u64;
    let segment = [4 | 4 << 32, 64 + 56, 0, 0, size, size, 4u64].map(u64::to_le_bytes).concat();
    bytes.extend(segment);
    bytes.extend(note);
    bytes
}

/// Name and content of the members of an archive.
pub fn members(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut rest = bytes;
    let mut found = Vec::new();
    loop {
        let mut reader = cpio::newc::Reader::new(rest).expect("a header");
        if reader.entry().is_trailer() {
            return found;
        }
        let name = reader.entry().name().to_owned();
        let mut content = Vec::new();
        reader.read_to_end(&mut content).expect("content");
        rest = reader.finish().expect("padding");
        found.push((name, content));
    }
}

/// Whether a process is there and not merely waiting to be collected.
pub fn alive(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the parenthesised name.
    let state = status.rsplit(") ").next().and_then(|rest| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// A pseudo terminal: what the user types into, and what the program gets.
pub fn terminal() -> (File, File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&keys).expect("granted");
    unlockpt(&keys).expect("unlocked");
    let name = ptsname(&keys, Vec::new()).expect("a name");
    let path = name.to_str().expect("text");
    let screen = File::options().read(true).write(true).open(path).expect("opened");
    (File::from(keys), screen)
}

/// Waits for something that another process does soon. The test harness's own limit is the bound.
pub fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}
