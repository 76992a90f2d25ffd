//! Random operations on a tree of forked spaces, single-threaded, against the oracle (method P of REQUIREMENTS).
//!
//! After each step results, areas and resident pages must agree; at audits and at the end all contents, and every
//! counter against a recount. Three CPUs run spaces in turn and keep their TLBs, so a flush that misses one shows.
//!
//! Rows of REQUIREMENTS: F-09, F-10, AN-01, AN-02, CW-01, CW-05, FK-01, FK-02, SH-02, SH-03, SH-04, SH-11, SH-12, ZP-01,
//! ZP-03, ZP-08, TB-04, VM-01, VM-04, VM-08, AC-01, AC-02, AC-06, TR-01.
//!
//! Environment: `FAULTLESS_SEED` replays one seed, `FAULTLESS_ROUNDS` (default 1) multiplies the rounds.

mod common;

use common::replay::{catch, each_seed, shrink};
use common::script::{Shape, Step, generate};
use common::twin::Twin;
use faultless::Vm;
use faultless_hosted::{Fast, FastConfig, Hostile, HostileConfig, Rng};

const FRAMES: u64 = 16_384;
const CPUS: usize = 3;

fn on_fast(script: &[Step]) -> Result<(), String> {
    catch(|| {
        let machine = Fast::new(FastConfig::new(FRAMES, CPUS)).expect("memory for the arena");
        Twin::new(Vm::new(machine).expect("a machine")).run(script)
    })
}

/// TLBs that forget nothing, and MMUs that walk where nobody asked.
fn on_hostile(script: &[Step]) -> Result<(), String> {
    catch(|| {
        let machine = Hostile::new(HostileConfig::new(FRAMES, CPUS, 1)).expect("memory for the arena");
        Twin::new(Vm::new(machine).expect("a machine")).run(script)
    })
}

/// Runs the script of a seed; if it fails, looks for a short one that fails too.
fn check(seed: u64, shape: Shape, run: fn(&[Step]) -> Result<(), String>) -> Result<(), String> {
    let script = generate(&mut Rng::new(seed), shape);
    let Err(first) = run(&script) else { return Ok(()) };
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let short = shrink(script, |trial| run(trial).is_err());
    std::panic::set_hook(hook);
    let last = run(&short).err().unwrap_or_default();
    let steps: Vec<String> = short.iter().map(|step| format!("  {step:?}")).collect();
    Err(format!("{first}\nshrunk to {} steps: {last}\n{}", short.len(), steps.join("\n")))
}

#[test]
fn small_scripts_agree() {
    let shape = Shape { steps: 60, large: false };
    each_seed("oracle small_scripts_agree", 1, 400, |seed| check(seed, shape, on_fast));
}

#[test]
fn small_scripts_agree_on_the_hostile_machine() {
    let shape = Shape { steps: 60, large: false };
    let test = "oracle small_scripts_agree_on_the_hostile_machine";
    each_seed(test, 100_000, 300, |seed| check(seed, shape, on_hostile));
}

#[test]
fn large_scripts_agree() {
    let shape = Shape { steps: 250, large: true };
    each_seed("oracle large_scripts_agree", 1000, 40, |seed| check(seed, shape, on_fast));
}
