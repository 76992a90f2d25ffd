//! The last line of the report: how the program ended, and what memory did meanwhile.

use alloc::string::String;
use core::fmt::Write;

use faultless::Stats;

use super::line;
use crate::process::{ExitStatus, UsageTotals};
use crate::{arch, clock, heap, machine, syscall};

/// The first process, when it has ended.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// How.
    pub status: ExitStatus,
    /// What it consumed.
    pub usage: UsageTotals,
}

/// Frames before the first process was made, and after the last was gone.
#[derive(Debug, Clone, Copy)]
pub struct Frames {
    /// Free when only the kernel itself was there.
    pub free_at_start: u64,
    /// Free when everything was given back.
    pub free_at_exit: u64,
}

/// A group of counters: its name, and pairs of the name in the report and in [`Stats`].
type Group = (&'static str, &'static [(&'static str, &'static str)]);

const GROUPS: [Group; 5] = [
    (
        "page_faults",
        &[
            ("resolved", "faults"),
            ("zero", "fault_zero"),
            ("anonymous", "fault_anon"),
            ("object", "fault_object"),
            ("object_copied_at_once", "fault_early_copy"),
            ("made_writable_shared", "fault_shared"),
            ("rights_widened", "fault_widen"),
            ("adequate_already", "fault_spurious"),
            ("major", "fault_major"),
            ("errors", "fault_error"),
            ("retries", "fault_retries"),
            ("waits", "fault_waits"),
        ],
    ),
    (
        "copy_on_write",
        &[
            ("copies", "fault_cow"),
            ("zero_copies", "fault_cow_zero"),
            ("reuses", "fault_reuse"),
            ("finished_later", "fault_finish"),
            ("remote_flushes", "cow_remote_flushes"),
        ],
    ),
    (
        "tables",
        &[
            ("allocated", "tables_allocated"),
            ("freed", "tables_freed"),
            ("shared_at_fork", "tables_shared_at_fork"),
            ("unshared_by_copy", "slow_unshare_copy"),
            ("taken_by_last_sharer", "slow_unshare_take"),
        ],
    ),
    ("locks_in_faults", &[("space", "fault_space_locks"), ("table", "fault_table_locks")]),
    (
        "slow_paths",
        &[
            ("stack_growth", "slow_stack_growth"),
            ("frame_cache_refill", "slow_frame_refill"),
            ("fork_section_waits", "fork_section_waits"),
            ("wrap_guard_waits", "wrap_guard_waits"),
        ],
    ),
];

/// Builds a JSON object without ever ending in a comma.
struct Object {
    text: String,
}

impl Object {
    fn new() -> Object {
        Object { text: String::from("{") }
    }

    fn raw(&mut self, name: &str, value: impl core::fmt::Display) {
        let comma = if self.text.ends_with('{') { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{comma}\"{name}\":{value}");
    }

    fn end(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

/// Writes the last line.
pub fn exit(program: &Program, frames: Frames, recount: Option<&str>) {
    let (status, signal) = match program.status {
        ExitStatus::Exited(code) => (i32::from(code), None),
        ExitStatus::Killed(signal) => (0, Some(signal)),
    };
    let stats = machine::vm().stats();
    let mut event = Object::new();
    event.raw("event", "\"exit\"");
    event.raw("status", status);
    match signal {
        Some(signal) => event.raw("signal", signal),
        None => event.raw("signal", "null"),
    }
    event.raw("report", memory_report(program, frames, &stats, recount));
    line(format_args!("{}", event.end()));
}

fn memory_report(program: &Program, frames: Frames, stats: &Stats, recount: Option<&str>) -> String {
    let mut report = Object::new();
    for (name, counters) in GROUPS {
        let mut group = Object::new();
        for (label, counter) in counters {
            group.raw(label, stats.get(counter));
        }
        report.raw(name, group.end());
    }
    report.raw("shootdowns", shootdowns(stats));
    report.raw("forks", stats.get("forks"));
    report.raw("peak_rss_pages", program.usage.peak);
    report.raw("frames", frame_counts(frames, stats));
    // What a recount of all counters found wrong; nothing if it agrees.
    if let Some(text) = recount {
        report.raw("recount", Quoted(text));
    }
    report.raw("syscalls_unknown", unknown_calls());
    report.raw("program", program_counts(program));
    report.raw("kernel", kernel_counts());
    report.end()
}

fn shootdowns(stats: &Stats) -> String {
    let (_, cpus) = arch::tlb::counts();
    let mut group = Object::new();
    group.raw("local", stats.get("flush_local"));
    group.raw("remote", stats.get("flush_remote"));
    group.raw("cpus_interrupted", cpus);
    group.end()
}

fn frame_counts(frames: Frames, stats: &Stats) -> String {
    let mut group = Object::new();
    group.raw("total", stats.total_frames);
    group.raw("free_at_start", frames.free_at_start);
    group.raw("free_at_exit", frames.free_at_exit);
    group.raw("leaked", frames.free_at_start.saturating_sub(frames.free_at_exit));
    group.end()
}

fn unknown_calls() -> String {
    let mut group = Object::new();
    syscall::unknown_counts(|name, count| group.raw(name, count));
    group.end()
}

fn program_counts(program: &Program) -> String {
    let mut group = Object::new();
    group.raw("minor", program.usage.minor);
    group.raw("major", program.usage.major);
    group.raw("peak_rss", program.usage.peak);
    group.raw("user_ns", program.usage.user);
    group.raw("system_ns", program.usage.system);
    group.end()
}

fn kernel_counts() -> String {
    let (heap_bytes, heap_free) = heap::usage();
    let mut group = Object::new();
    group.raw("ns", clock::monotonic());
    group.raw("heap_bytes", heap_bytes);
    group.raw("heap_in_runs", heap_bytes - heap_free);
    group.end()
}

/// A JSON string.
struct Quoted<'t>(&'t str);

impl core::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("\"")?;
        write!(super::Escaped(&mut *f), "{}", self.0)?;
        f.write_str("\"")
    }
}
