//! A child of its own for groups that lock, seal or limit: what it changes ends with it.
//!
//! Called by those groups. The child writes its lines into a pipe, which this process reads to the end.

use crate::Lines;
use crate::stage::{Stage, number};
use core::fmt::Display;
use faultless_guest::child;
use faultless_guest::sys::{self, PAGE, Result};

/// What the child knows.
pub struct Alone<'a, 'r> {
    /// The stage, as it was when the child was made.
    pub stage: &'a Stage<'r>,
    out: i32,
}

/// Runs `body` in a child and adds the lines that it says.
pub fn alone(stage: &Stage, lines: &mut Lines, body: impl FnOnce(&Alone)) {
    let (from, into) = stage.report.need("pipe", sys::pipe());
    let pid = child::spawn(|| {
        sys::close(from);
        body(&Alone { stage, out: into });
        0
    });
    sys::close(into);
    let (mut text, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = sys::read(from, &mut part) {
        text.extend_from_slice(&part[..count]);
    }
    sys::close(from);
    String::from_utf8_lossy(&text).lines().for_each(|line| lines.add(line));
    let (_, end) = stage.report.need("wait", sys::wait(pid));
    lines.add(format_args!("child: {end:?}"));
}

/// A system call whose pointers lie in the arena or are refused.
pub fn raw(number: i64, args: &[usize]) -> Result {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    // SAFETY: addresses lie in the arena, hold nothing, or are buffers that outlive the call.
    unsafe { sys::call(number, all) }
}

impl Alone<'_, '_> {
    /// Writes one line.
    pub fn line(&self, text: impl Display) {
        sys::print(self.out, &format!("{text}\n"));
    }

    /// Makes a call and writes what it returned, and how much is locked if anything is.
    pub fn call(&self, name: &str, call: i64, args: &[usize]) -> Result {
        let got = raw(call, args);
        let locked = status("VmLck")
            .map_or(String::new(), |kib| if kib == 0 { String::new() } else { format!(", locked {kib} kB") });
        self.line(format_args!("{name} -> {}{locked}", number(got)));
        got
    }

    /// The same for a call whose result is an address.
    pub fn place(&self, name: &str, got: Result) {
        self.line(format_args!("{name} -> {}", self.stage.place(got)));
    }

    /// Address of a page of the arena.
    pub fn at(&self, page: usize) -> usize {
        self.stage.arena.addr(page * PAGE)
    }

    /// Maps pages of the arena anew, untouched.
    pub fn map(&self, page: usize, pages: usize, prot: i32, flags: i32) -> Result {
        // SAFETY: in the arena.
        unsafe { sys::mmap(self.at(page), pages * PAGE, prot, flags | libc::MAP_FIXED, -1, 0) }
    }

    /// Which pages of the arena are there: `#`, `-`, and `.` where nothing is mapped.
    pub fn resident(&self, page: usize, pages: usize) -> String {
        let letter = |page| {
            let mut there = 0_u8;
            match raw(libc::SYS_mincore, &[self.at(page), PAGE, &raw mut there as usize]) {
                Ok(_) if there & 1 == 1 => '#',
                Ok(_) => '-',
                Err(_) => '.',
            }
        };
        (page..page + pages).map(letter).collect()
    }

    /// Sets a soft limit, and the hard one if it is to be lower.
    pub fn limit(&self, resource: u32, soft: u64, hard: u64) -> Result {
        let pair = [soft, hard];
        raw(libc::SYS_setrlimit, &[resource as usize, pair.as_ptr() as usize])
    }

    /// Gives up a capability below 32.
    pub fn drop_capability(&self, number: u32) {
        let header = [0x2008_0522_u32, 0];
        let mut sets = [0_u32; 6];
        let (head, data) = (header.as_ptr() as usize, sets.as_mut_ptr() as usize);
        self.stage.report.need("capget", raw(libc::SYS_capget, &[head, data]));
        // Effective, permitted, inheritable; first those below 32.
        let [effective, ..] = &mut sets;
        *effective &= !(1 << number);
        self.stage.report.need("capset", raw(libc::SYS_capset, &[head, sets.as_ptr() as usize]));
    }
}

/// A figure of /proc/self/status.
pub fn status(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// A number out of a file of /proc.
pub fn figure(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
