//! `faultless replay`: one scenario file on both sides.
//!
//! Called by the binary. Exit codes as those of `check`.

use std::fs;

use faultless_sim::judge::{Failure, Manner, judge};
use faultless_sim::scenario::Scenario;
use serde_json::json;

use super::check::{EXIT_DIFFERS, difference_value, failed, manner, refuse, tell};
use crate::args::ReplayArgs;
use crate::error::EXIT_OWN_FAILURE;

/// Replays, tells what came out, and returns the exit code.
pub fn run(args: &ReplayArgs) -> u8 {
    let scenario = match read(args) {
        Ok(scenario) => scenario,
        Err(what) => return refuse(&args.manner, &what),
    };
    let (code, value, text) = match judge(&scenario, Manner { others: 1, ..manner(&args.manner, 1) }) {
        Ok(executed) => {
            let executed = executed.operations();
            let value = json!({"verdict": "agree", "operations": executed});
            (0, value, format!("{executed} operations agree with Linux\n"))
        }
        Err(Failure::Differs(difference)) => {
            let step = scenario.steps.get(difference.step).map_or("the end".to_owned(), ToString::to_string);
            let value = json!({"verdict": "differ", "at": step, "difference": difference_value(&difference)});
            (EXIT_DIFFERS, value, format!("differs from Linux at: {step}\n{difference}\n"))
        }
        Err(failure) => (EXIT_OWN_FAILURE, failed(&failure), format!("faultless: {failure}\n")),
    };
    tell(&args.manner, code, &value, &text);
    code
}

fn read(args: &ReplayArgs) -> Result<Scenario, String> {
    let file = args.file.display();
    let text = fs::read_to_string(&args.file).map_err(|error| format!("{file}: {error}"))?;
    Scenario::parse(&text).map_err(|error| format!("{file}: {error}"))
}
