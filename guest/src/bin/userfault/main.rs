//! `userfault`: memory whose faults this program answers itself, in another thread.
//!
//! The handler thread and the faulting ones need each other, so a lost wake-up
//! ends in a time-out.

mod errors;
mod events;
mod scenes;
mod uffd;

use faultless_guest::args::{Args, opt};
use faultless_guest::probe;
use faultless_guest::report::Report;

type Scene = (&'static str, fn(&Report));

const SCENES: &[Scene] = &[
    ("missing", scenes::missing),
    ("kernel", scenes::kernel),
    ("stores", scenes::stores),
    ("minor", scenes::minor),
    ("move", scenes::moved),
    ("poison", scenes::poison),
    ("close", scenes::close),
    ("unmap", scenes::unmap),
    ("family", scenes::family),
    ("signal", scenes::signal),
    ("shared", events::shared),
    ("absent", events::absent),
    ("told", events::told),
    ("ranges", events::ranges),
    ("forks", events::forks),
    ("errors", errors::errors),
];

fn main() {
    let only = "scenes: missing,kernel,stores,minor,move,poison,close,unmap,family,signal,shared,absent,told,\
                ranges,forks,errors";
    let options = [opt("rounds", "3", "rounds of all scenes"), opt("only", "all", only)];
    let args = Args::parse("userfault", "memory whose faults are answered by the program", &options);
    let names: Vec<&str> = SCENES.iter().map(|(name, _)| *name).collect();
    args.known_parts(&names);
    let report = Report::new(&args);
    probe::catch();
    for _ in 0..args.count("rounds") {
        for (name, scene) in SCENES.iter().filter(|(name, _)| args.wants(name)) {
            scene(&report);
            report.say(name);
        }
    }
    report.finish();
}
