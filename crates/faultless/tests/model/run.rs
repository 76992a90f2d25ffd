//! Runs a scenario under the model checker, as it is and with each seeded bug that it must catch.
//!
//! Every exploration runs in a child process (the test binary again, one test of it): a seeded bug ends in a panic deep
//! inside a model thread, and a process that ends at its first panic unwinds nothing and confuses nobody. The child's
//! last line is the verdict; the parent prints it.
//!
//! | variable | meaning |
//! |---|---|
//! | `FAULTLESS_MODEL` | `quick` (default) or `full`: which of a scenario's bounds |
//! | `LOOM_MAX_PREEMPTIONS` | overrides the bound on preemptions |
//! | `LOOM_MAX_PERMUTATIONS` | overrides the bound on executions |
//! | `SHUTTLE_SCHEDULES` | overrides the number of schedules |
//! | `SHUTTLE_SEED` | other schedules than those of seed 1 |
//! | `FAULTLESS_MODEL_COUNTS` | a file, to which each verdict is appended |

use faultless::mutant::{self, Mutant};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// A scenario: what runs, and how far it is explored.
pub struct Scenario {
    /// Its module path and name.
    pub name: &'static str,
    /// One execution.
    pub body: fn(),
    /// Preemptions per execution, in quick and in full runs.
    pub preemptions: (usize, usize),
    /// Outcomes that some execution must reach, or the scenario shows nothing.
    pub reaches: &'static [&'static str],
}

/// How an exploration ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// Every execution within the bounds was explored.
    Exhausted,
    /// The bound on executions was met.
    Stopped,
}

const CHILD: &str = "FAULTLESS_MODEL_CHILD";
/// Exit status of a child whose exploration found a failure.
const FOUND: i32 = 101;
/// Exit status of a child whose model checker met a limit of its own.
const GAVE_UP: i32 = 102;
/// Exit status of a child whose exploration found none.
const CLEAN: i32 = 0;
/// The signal that ends a child which follows a pointer out of freed memory: the pattern there is no address. A stack
/// that overflows is no such case; the checker's coroutines have guard pages and say so.
const SIGSEGV: i32 = 11;

static EXECUTIONS: AtomicU64 = AtomicU64::new(0);
static PREEMPTIONS: AtomicU64 = AtomicU64::new(0);
static REACHED: Mutex<BTreeMap<&str, u64>> = Mutex::new(BTreeMap::new());

/// Notes that this execution came to an outcome.
pub fn reach(outcome: &'static str) {
    *REACHED.lock().expect("no panic is survived").entry(outcome).or_default() += 1;
}

/// Does `FAULTLESS_MODEL` ask for long runs?
pub fn is_full() -> bool {
    std::env::var("FAULTLESS_MODEL").is_ok_and(|mode| mode == "full")
}

/// Shows a verdict, and keeps it for who asked for them.
fn note(verdict: &str) {
    println!("{verdict}");
    let Some(path) = std::env::var_os("FAULTLESS_MODEL_COUNTS") else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(format!("{verdict}\n").as_bytes())).expect("a file to append to");
}

/// Did this child follow a pointer out of freed memory?
fn is_poisoned(status: ExitStatus) -> bool {
    cfg!(loom) && status.signal() == Some(SIGSEGV)
}

fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

impl Scenario {
    /// The test that the scenario holds.
    pub fn holds(&self) {
        if std::env::var_os(CHILD).is_some() {
            self.explore("holds", self.bound(), self.most_executions());
        }
        assert_eq!(self.child("holds"), CLEAN, "{} fails", self.name);
    }

    /// The test that the scenario holds with a rule switched off that is not needed for correctness.
    pub fn holds_with(&self, variant: Mutant) {
        let test = format!("holds_with::{variant:?}");
        if std::env::var_os(CHILD).is_some() {
            mutant::set(variant);
            self.explore(&test, self.bound(), self.most_executions());
        }
        assert_eq!(self.child(&test), CLEAN, "{} fails with {variant:?}", self.name);
    }

    /// The test that the exact compare-exchanges suffice by themselves: no shortcut, and sections without the fence that
    /// would hide a missing acquire or release.
    pub fn holds_bare(&self) {
        if std::env::var_os(CHILD).is_some() {
            mutant::set(Mutant::NeverQuiet);
            mutant::add(Mutant::NoSectionFence);
            self.explore("holds_bare", self.bound(), self.most_executions());
        }
        assert_eq!(self.child("holds_bare"), CLEAN, "{} fails without the fence of sections", self.name);
    }

    /// The test that the scenario fails with a seeded bug.
    pub fn catches(&self, bug: Mutant) {
        let test = format!("catches::{bug:?}");
        if std::env::var_os(CHILD).is_some() {
            mutant::set(bug);
            self.end_at_panic(&test);
            // The shallowest failure is found first.
            for preemptions in self.bound().min(2)..=self.preemptions.1 {
                self.explore_once(preemptions, self.most_executions());
            }
            println!("MODEL {}::{test}: not caught in {} executions", self.name, EXECUTIONS.load(Relaxed));
            std::process::exit(CLEAN);
        }
        assert_eq!(self.child(&test), FOUND, "{} does not catch {bug:?}", self.name);
    }

    fn bound(&self) -> usize {
        let (quick, full) = self.preemptions;
        number("LOOM_MAX_PREEMPTIONS").unwrap_or(if is_full() { full } else { quick })
    }

    fn most_executions(&self) -> usize {
        if cfg!(loom) {
            number("LOOM_MAX_PERMUTATIONS").unwrap_or(if is_full() { 1_000_000 } else { 150_000 })
        } else {
            number("SHUTTLE_SCHEDULES").unwrap_or(if is_full() { 1_000_000 } else { 40_000 })
        }
    }

    /// Runs one test of this binary in a process of its own; returns its exit status.
    fn child(&self, test: &str) -> i32 {
        let path = format!("{}::{test}", self.name.split_once("::").map_or(self.name, |(_, rest)| rest));
        let binary = std::env::current_exe().expect("this binary");
        let output = Command::new(binary)
            .args([&path, "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .output()
            .expect("a child process");
        let text = String::from_utf8_lossy(&output.stdout);
        // The harness of the child has begun its first line.
        let said = text.lines().filter_map(|line| Some(&line[line.find("MODEL ")?..]));
        let mut verdicts: Vec<String> = said.map(String::from).collect();
        if is_poisoned(output.status) {
            verdicts.push(format!("MODEL {}::{test}: a pointer from freed memory was followed", self.name));
        }
        if verdicts.is_empty() {
            println!("{text}{}", String::from_utf8_lossy(&output.stderr));
        }
        verdicts.iter().for_each(|verdict| note(verdict));
        if is_poisoned(output.status) { FOUND } else { output.status.code().unwrap_or(-1) }
    }

    /// Explores, prints the verdict, and ends the process.
    fn explore(&self, test: &str, preemptions: usize, executions: usize) -> ! {
        self.end_at_panic(test);
        let start = Instant::now();
        let verdict = self.explore_once(preemptions, executions);
        let reached = REACHED.lock().expect("no panic is survived").clone();
        println!(
            "MODEL {}::{test}: {} executions, {} preemptions, {verdict:?}, {:.1} s, reached {reached:?}",
            self.name,
            EXECUTIONS.load(Relaxed),
            preemptions,
            start.elapsed().as_secs_f64(),
        );
        let missed: Vec<_> = self.reaches.iter().filter(|outcome| !reached.contains_key(*outcome)).collect();
        if !missed.is_empty() {
            println!("MODEL {}::{test}: no execution reached {missed:?}", self.name);
            std::process::exit(1);
        }
        std::process::exit(CLEAN)
    }

    fn explore_once(&self, preemptions: usize, executions: usize) -> Verdict {
        PREEMPTIONS.store(preemptions as u64, Relaxed);
        let before = EXECUTIONS.load(Relaxed);
        check(self.body, preemptions, executions);
        let done = EXECUTIONS.load(Relaxed) - before;
        // loom looks at its bound before it runs the last one; shuttle never ends by itself.
        if cfg!(loom) && (done as usize) + 1 < executions { Verdict::Exhausted } else { Verdict::Stopped }
    }

    /// Makes the first panic of this process its verdict. Once per process, and before the checker starts: loom's
    /// coroutines wrap the hook that they find, to keep their own panics from it.
    fn end_at_panic(&self, test: &str) {
        let (name, test) = (self.name, test.to_owned());
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.payload_as_str().unwrap_or("a panic without a message").trim_end().replace('\n', "; ");
            let place = panic.location().map_or(String::new(), |at| format!(" ({}:{})", at.file(), at.line()));
            let (count, preemptions) = (EXECUTIONS.load(Relaxed), PREEMPTIONS.load(Relaxed));
            println!("MODEL {name}::{test}: execution {count}, {preemptions} preemptions: {text}{place}");
            let ours = panic.location().is_some_and(|at| at.file().starts_with("crates/"));
            // What the checker says of a bug: threads that wait for ever, data read without synchronisation, and an
            // index or the flag of a borrow read from memory that was freed (0xdd…).
            let bug =
                ["deadlock", "Causality violation", "RefCell already"].iter().any(|start| text.starts_with(start));
            let theirs = bug || text.contains(&u64::from_ne_bytes([0xdd; 8]).to_string());
            std::process::exit(if ours || theirs { FOUND } else { GAVE_UP });
        }));
    }
}

/// Random schedules, and as many of the kind that delays a few threads for long; `depth` is how few.
#[cfg(shuttle)]
fn check(body: fn(), depth: usize, executions: usize) {
    use shuttle::scheduler::{PctScheduler, RandomScheduler};
    let mut config = shuttle::Config::new();
    config.max_steps = shuttle::MaxSteps::FailAfter(1_000_000);
    config.stack_size = 0x4_0000;
    config.failure_persistence = shuttle::FailurePersistence::None;
    let count = move || {
        EXECUTIONS.fetch_add(1, Relaxed);
        body();
    };
    let seed = number("SHUTTLE_SEED").unwrap_or(1) as u64;
    shuttle::Runner::new(RandomScheduler::new_from_seed(seed, executions / 2), config.clone()).run(count);
    shuttle::Runner::new(PctScheduler::new_from_seed(seed, depth, executions / 2), config).run(count);
}

#[cfg(loom)]
fn check(body: fn(), preemptions: usize, executions: usize) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_permutations = Some(executions);
    builder.checkpoint_interval = 100; // loom looks at the bound that often
    builder.max_branches = 50_000;
    builder.check(move || {
        EXECUTIONS.fetch_add(1, Relaxed);
        // loom's first thread has a small stack.
        super::backend::spawn(body).join();
    });
}

/// Declares scenarios and their tests: `holds`, and `catches::X` for each seeded bug.
#[macro_export]
macro_rules! scenario {
    (
        $(#[$doc:meta])*
        $name:ident $preemptions:tt
        $(reaches [$($outcome:literal),* $(,)?])?
        $(holds_with [$($variant:ident),* $(,)?])?
        $(and $bare:ident)?
        $(catches [$($bug:ident),* $(,)?])?
        $body:block
    ) => {
        $(#[$doc])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            const SCENARIO: $crate::model::Scenario = $crate::model::Scenario {
                name: module_path!(),
                body,
                preemptions: $preemptions,
                reaches: &[$($($outcome),*)?],
            };

            fn body() $body

            #[test]
            fn holds() {
                SCENARIO.holds();
            }

            $(#[allow(non_snake_case)]
            mod holds_with {
                $(#[test]
                fn $variant() {
                    super::SCENARIO.holds_with(faultless::mutant::Mutant::$variant);
                })*
            })?

            $(#[test]
            fn $bare() {
                SCENARIO.holds_bare();
            })?

            $(#[allow(non_snake_case)]
            mod catches {
                $(#[test]
                fn $bug() {
                    super::SCENARIO.catches(faultless::mutant::Mutant::$bug);
                })*
            })?
        }
    };
}
