//! `faultless check` and `faultless replay` as a user calls them (OT-04).

use std::process::{Command, Output};

fn faultless(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_faultless")).args(arguments).output().expect("the command")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_short_check_agrees_and_says_so_in_json() {
    let output = faultless(&["check", "--seed", "3", "--operations", "300", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(output.status.code(), Some(0), "{value}");
    assert_eq!((&value["verdict"], &value["seed"]), (&"agree".into(), &3.into()));
    assert!(output.stderr.is_empty(), "no progress where nobody watches");
}

#[test]
fn replay_tells_what_differs_or_what_it_cannot_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("scenario.txt");
    let replay = |scenario: &str| {
        std::fs::write(&path, scenario).expect("written");
        faultless(&["replay", path.to_str().expect("a name")])
    };
    let same = replay("p0 mmap +0x0 0x1000 rw- private|fixed|anon none 0\np0 store +0x0 8 5\np0 load +0x1 4\n");
    assert_eq!((same.status.code(), text(&same).as_str()), (Some(0), "3 operations agree with Linux\n"));
    let wrong = replay("p0 jump +0x0\n");
    assert_eq!(wrong.status.code(), Some(125));
    let told = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(told.contains("line 1: `jump` is no call") && wrong.stdout.is_empty(), "{told}");
    let json = faultless(&["replay", "--json", path.to_str().expect("a name")]);
    assert!(text(&json).contains("is no call") && json.stderr.is_empty(), "{}", text(&json));
}

#[test]
fn a_place_for_the_scenario_that_cannot_be_is_told_before_anything_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let save = dir.path().join("none/scenario.txt");
    let output = faultless(&["check", "--operations", "300", "--save", save.to_str().expect("a name")]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(125), true), "{told}");
    assert!(told.contains("scenario.txt cannot be written: there is no such directory"), "{told}");
}
