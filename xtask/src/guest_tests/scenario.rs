//! One scenario: a program, how it is run, and what must come out.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde::Deserialize;
use serde_json::Value;

use crate::job::quote;
use crate::step::Tally;
use crate::workspace;

/// How much of a wrong output is shown.
const SHOWN: usize = 2000;

/// The whole table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    scenario: Vec<Scenario>,
}

/// One entry. Lists of CPUs and boards multiply into cases.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// Its name, unique in the table.
    name: String,
    /// A path or a name on the path, or `guest:NAME` for one of our own programs.
    program: String,
    #[serde(default)]
    args: Vec<String>,
    /// Words that go before the arguments, one case for each line of them.
    #[serde(default)]
    each: Vec<String>,
    /// The group it is left out with, unless that is asked for.
    pub group: Option<String>,
    #[serde(default = "one_cpu")]
    cpus: Vec<u32>,
    #[serde(default = "default_memory")]
    memory: String,
    #[serde(default = "default_machine")]
    machine: Vec<String>,
    #[serde(default)]
    icount: bool,
    /// `--file` options.
    #[serde(default)]
    files: Vec<String>,
    /// `--env` options.
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    stdin: String,
    #[serde(default = "default_timeout")]
    timeout: String,
    /// The expected exit code.
    #[serde(default)]
    status: i32,
    /// The whole expected output.
    stdout: Option<String>,
    /// Texts that the output contains, in this order.
    #[serde(default)]
    contains: Vec<String>,
    /// Texts that it does not contain.
    #[serde(default)]
    lacks: Vec<String>,
    /// JSON pointers into the report and the numbers that must be there.
    #[serde(default)]
    report: BTreeMap<String, u64>,
    /// Whether two of a few runs have to come out the same, counters included. For `icount`.
    #[serde(default)]
    pub twice: bool,
    /// Whether it belongs into every change's gate.
    #[serde(default)]
    pub quick: bool,
    /// Whether the program can be judged on the host too. Not if it speaks of what only the guest has.
    #[serde(default = "yes")]
    host: bool,
}

fn one_cpu() -> Vec<u32> {
    vec![1]
}

fn default_memory() -> String {
    "256M".into()
}

fn default_machine() -> Vec<String> {
    vec!["q35".into()]
}

fn default_timeout() -> String {
    "2m".into()
}

fn yes() -> bool {
    true
}

/// One run of a scenario.
#[derive(Debug, Clone)]
pub struct Case {
    /// What is run.
    pub scenario: Scenario,
    cpus: u32,
    machine: String,
    /// One of the scenario's `each`.
    variant: Option<String>,
}

impl Table {
    /// All cases, in the order of the table. On the host neither CPUs nor boards multiply.
    pub fn cases(self, on_host: bool) -> Result<Vec<Case>, String> {
        let mut names = std::collections::BTreeSet::new();
        let mut cases = Vec::new();
        for scenario in self.scenario {
            if !names.insert(scenario.name.clone()) {
                return Err(format!("two scenarios are called {:?}", scenario.name));
            }
            if on_host && !scenario.host {
                continue;
            }
            cases.extend(scenario.cases());
        }
        if on_host {
            cases.dedup_by(|a, b| a.scenario.name == b.scenario.name && a.variant == b.variant);
        }
        Ok(cases)
    }
}

impl Scenario {
    /// Its cases: its lists multiplied.
    fn cases(&self) -> Vec<Case> {
        let variants = match self.each.as_slice() {
            [] => vec![None],
            each => each.iter().cloned().map(Some).collect(),
        };
        let mut cases = Vec::new();
        for variant in &variants {
            for machine in &self.machine {
                for &cpus in &self.cpus {
                    let (machine, variant) = (machine.clone(), variant.clone());
                    cases.push(Case { scenario: self.clone(), cpus, machine, variant });
                }
            }
        }
        cases
    }

    /// Whether the program is one of those in `guest/`.
    pub fn is_ours(&self) -> bool {
        self.program.starts_with("guest:")
    }

    fn program(&self) -> String {
        match self.program.strip_prefix("guest:") {
            Some(name) => workspace::guest_programs().join(name).display().to_string(),
            None => self.program.clone(),
        }
    }
}

impl Case {
    /// Its name with what tells it from the scenario's other cases.
    pub fn name(&self) -> String {
        let variant = self.variant.as_deref().map_or(String::new(), |variant| format!(" {variant}"));
        format!("{}{variant} (cpus {}, {})", self.scenario.name, self.cpus, self.machine)
    }

    /// The program's arguments.
    fn args(&self) -> Vec<String> {
        let variant = self.variant.as_deref().unwrap_or("").split_whitespace();
        variant.map(str::to_owned).chain(self.scenario.args.clone()).collect()
    }

    /// The options of `faultless run`, program and arguments included.
    fn words(&self) -> Vec<String> {
        let scenario = &self.scenario;
        let mut words = vec!["run".to_owned()];
        let mut option = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
        option("--cpus", &self.cpus.to_string());
        option("--memory", &scenario.memory);
        option("--machine", &self.machine);
        option("--timeout", &scenario.timeout);
        scenario.files.iter().for_each(|file| option("--file", file));
        scenario.env.iter().for_each(|setting| option("--env", setting));
        words.extend(scenario.icount.then(|| "--icount".to_owned()));
        words.push(scenario.program());
        words.extend(self.args());
        words
    }

    /// The command that repeats it, for a shell in the root of the source tree.
    pub fn line(&self, on_host: bool) -> String {
        let quoted = |words: &[String]| words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
        let input = match self.scenario.stdin.as_str() {
            "" => "< /dev/null".to_owned(),
            text => format!("<<< {}", quote(text)),
        };
        let line = if on_host {
            let program = std::iter::once(self.scenario.program()).chain(self.args());
            quoted(&program.collect::<Vec<_>>())
        } else {
            format!("cargo run -q -p faultless-cli -- {}", quoted(&self.words()))
        };
        format!("{line} {input}")
    }

    /// Runs it in the guest; the report goes to `report`.
    pub fn run_in_guest(&self, command: &Path, report: &Path) -> Result<Output, String> {
        let mut words = self.words();
        words.splice(1..1, ["--report".to_owned(), report.display().to_string()]);
        let mut command = Command::new(command);
        command.args(words);
        self.feed(command)
    }

    /// Runs it on the host and judges it.
    pub fn run_on_host(&self) -> Result<Tally, String> {
        let mut command = Command::new(self.scenario.program());
        command.args(self.args());
        let settings = self.scenario.env.iter().filter_map(|setting| setting.split_once('='));
        command.envs(settings);
        let output = self.feed(command)?;
        self.judge(&output)?;
        Ok(Tally::ONE)
    }

    fn feed(&self, mut command: Command) -> Result<Output, String> {
        command.current_dir(workspace::root());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read its input is as good as one that does. What is fed is below a pipe's size.
            let _ = stdin.write_all(self.scenario.stdin.as_bytes());
        }
        child.wait_with_output().map_err(|error| error.to_string())
    }

    /// Judges status and output.
    pub fn judge(&self, output: &Output) -> Result<(), String> {
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let wrong = |what: String| {
            let (stdout, stderr) = (shortened(&stdout), shortened(&stderr));
            Err(format!("{what}\n  output:\n{stdout}\n  errors:\n{stderr}"))
        };
        if shell_code(output) != Some(self.scenario.status) {
            return wrong(format!("it ended with {} instead of {}", output.status, self.scenario.status));
        }
        if let Some(expected) = &self.scenario.stdout
            && *expected != stdout
        {
            return wrong(format!("the output should be {expected:?}"));
        }
        let mut rest = &*stdout;
        for text in &self.scenario.contains {
            match rest.split_once(text.as_str()) {
                Some((_, after)) => rest = after,
                None => return wrong(format!("the output lacks {text:?}, or has it too early")),
            }
        }
        match self.scenario.lacks.iter().find(|text| stdout.contains(text.as_str())) {
            Some(text) => wrong(format!("the output contains {text:?}")),
            None => Ok(()),
        }
    }

    /// Judges the kernel's counters: no leaked frame, a recount that agrees, and what the scenario asks for.
    pub fn judge_report(&self, document: &Value) -> Result<(), String> {
        let report = document.get("report").ok_or("the kernel made no report")?;
        if let Some(wrong) = report.get("recount") {
            return Err(format!("the recount of all counters found: {wrong}"));
        }
        let leaked = ("/frames/leaked".to_owned(), 0);
        for (pointer, expected) in self.scenario.report.clone().into_iter().chain([leaked]) {
            let found = report.pointer(&pointer).and_then(Value::as_u64);
            if found != Some(expected) {
                let found = found.map_or("absent".to_owned(), |number| number.to_string());
                return Err(format!("report{pointer} is {found} instead of {expected}"));
            }
        }
        Ok(())
    }
}

/// The status as a shell shows it: the code, or 128 and the signal.
fn shell_code(output: &Output) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt;
    output.status.code().or_else(|| Some(128 + output.status.signal()?))
}

/// The end of a text, which is where things went wrong.
fn shortened(text: &str) -> String {
    let skip = text.char_indices().rev().nth(SHOWN).map_or(0, |(at, _)| at);
    let mark = if skip > 0 { "..." } else { "" };
    format!("{mark}{}", text[skip..].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn cases(text: &str) -> Vec<Case> {
        let table: Table = toml::from_str(text).expect("a table");
        table.cases(false).expect("cases")
    }

    const TWO: &str = r#"
        [[scenario]]
        name = "echo"
        program = "/bin/echo"
        args = ["a b"]
        cpus = [1, 4]
        status = 3
        contains = ["one", "two"]
        report = { "/forks" = 2 }
    "#;

    fn output(code: i32, text: &str) -> Output {
        Output { status: ExitStatus::from_raw(code << 8), stdout: text.into(), stderr: Vec::new() }
    }

    #[test]
    fn lists_multiply_into_cases_with_a_command_each() {
        let cases = cases(TWO);
        assert_eq!(cases.len(), 2);
        assert_eq!(cases[1].name(), "echo (cpus 4, q35)");
        assert_eq!(
            cases[1].line(false),
            "cargo run -q -p faultless-cli -- run --cpus 4 --memory 256M --machine q35 --timeout 2m /bin/echo 'a b' \
             < /dev/null"
        );
        assert_eq!(cases[0].line(true), "/bin/echo 'a b' < /dev/null");
    }

    #[test]
    fn a_line_of_words_makes_a_case() {
        let cases = cases(&TWO.replace("cpus = [1, 4]", "cpus = [1]\ngroup = \"long\"\neach = [\"x\", \"y --z 1\"]"));
        assert_eq!(cases.len(), 2);
        assert_eq!(
            (cases[1].name(), cases[1].scenario.group.as_deref()),
            ("echo y --z 1 (cpus 1, q35)".into(), Some("long"))
        );
        assert_eq!(cases[1].line(true), "/bin/echo y --z 1 'a b' < /dev/null");
    }

    #[test]
    fn status_and_output_are_judged_in_order() {
        let case = &cases(TWO)[0];
        assert_eq!(case.judge(&output(3, "one two")), Ok(()));
        assert!(case.judge(&output(0, "one two")).is_err());
        assert!(case.judge(&output(3, "two one")).expect_err("order").contains("lacks \"two\""));
    }

    #[test]
    fn a_leaked_frame_fails_any_scenario() {
        let case = &cases(TWO)[0];
        let report = |leaked: u64, forks: u64| {
            let text = format!(r#"{{"report":{{"forks":{forks},"frames":{{"leaked":{leaked}}}}}}}"#);
            case.judge_report(&serde_json::from_str(&text).expect("JSON"))
        };
        assert_eq!(report(0, 2), Ok(()));
        assert_eq!(report(1, 2), Err("report/frames/leaked is 1 instead of 0".into()));
        assert!(report(0, 1).is_err());
        let wrong = r#"{"report":{"forks":2,"frames":{"leaked":0},"recount":"an area too many"}}"#;
        assert!(case.judge_report(&serde_json::from_str(wrong).expect("JSON")).is_err());
        assert!(case.judge_report(&serde_json::json!({})).is_err());
    }

    #[test]
    fn the_table_in_the_tree_can_be_read() {
        let text = std::fs::read_to_string(workspace::at("xtask/guest-tests.toml")).expect("a file");
        assert!(!cases(&text).is_empty());
    }
}
