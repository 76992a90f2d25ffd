//! Protocol pages and the code that cites them: `P3` in a comment means docs/protocols/P3-name.md, both ways.
//!
//! A page names every scenario that models its protocol and every guard that the protocol relies on; a guard is a
//! variant of `Mutant`, and some scenario must catch it.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::source::Source;

const PAGES: &str = "docs/protocols/";
/// The models, `p1.rs` and so on.
const MODELS: &str = "crates/faultless/tests/protocols/p";
const MUTANTS: &str = "crates/faultless/src/sync/mutant.rs";

/// Where protocols are cited.
const CITING: [&str; 3] = ["crates/faultless/", "crates/faultless-hosted/", "kernel/src/"];

/// Compares pages and citations.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let pages = pages(sources, &mut findings);
    let cited = citations(sources);
    for (number, (path, line)) in &cited {
        if !pages.contains_key(number) {
            let what = format!("P{number} is cited and has no page {PAGES}P{number}-NAME.md");
            findings.push(Finding::new(path, *line, what));
        }
    }
    for (number, path) in &pages {
        if !cited.contains_key(number) {
            findings.push(Finding::new(path, 0, format!("no code cites P{number}")));
        }
    }
    let texts: BTreeMap<u32, &Source> =
        sources.iter().filter_map(|source| Some((number_of(&pages, &source.path)?, source))).collect();
    scenarios_have_a_line(sources, &texts, &mut findings);
    mutants_are_caught(sources, &texts, &mut findings);
    findings
}

fn number_of(pages: &BTreeMap<u32, String>, path: &str) -> Option<u32> {
    pages.iter().find(|(_, page)| *page == path).map(|(number, _)| *number)
}

/// Does the page of each model name its scenarios?
fn scenarios_have_a_line(sources: &[Source], pages: &BTreeMap<u32, &Source>, findings: &mut Vec<Finding>) {
    for model in sources {
        let number = model.path.strip_prefix(MODELS).and_then(|name| name.strip_suffix(".rs")?.parse().ok());
        let Some((number, page)) = number.and_then(|number| Some((number, pages.get(&number)?))) else { continue };
        for scenario in model.text.split("scenario! {").skip(1).filter_map(name) {
            let cell = format!("`p{number}::{scenario}`");
            if !page.text.contains(&cell) {
                findings.push(Finding::new(&page.path, 0, format!("the scenario {cell} is not named")));
            }
        }
    }
}

/// The name of a scenario: the first line that is no comment begins with it.
fn name(scenario: &str) -> Option<&str> {
    let lines = scenario.lines().map(str::trim);
    lines.into_iter().find(|line| !line.is_empty() && !line.starts_with("//"))?.split(' ').next()
}

/// Is each guard caught by a model, and named by the page of the protocol that needs it?
fn mutants_are_caught(sources: &[Source], pages: &BTreeMap<u32, &Source>, findings: &mut Vec<Finding>) {
    let models = sources.iter().filter(|source| source.path.starts_with(MODELS));
    let lists = models.flat_map(|model| model.text.split("catches [").skip(1));
    let caught: BTreeSet<&str> =
        lists.flat_map(|list| list.split(']').next().unwrap_or_default().split(',').map(str::trim)).collect();
    for source in sources.iter().filter(|source| source.path == MUTANTS) {
        for (line, mutant, protocol) in mutants(&source.text) {
            if !caught.contains(mutant) {
                findings.push(Finding::new(
                    &source.path,
                    line,
                    format!("no scenario under {MODELS}* catches {mutant}"),
                ));
            }
            match pages.get(&protocol) {
                Some(page) if page.text.contains(&format!("`{mutant}`")) => {}
                Some(page) => findings.push(Finding::new(&page.path, 0, format!("the mutant {mutant} is not named"))),
                None => findings.push(Finding::new(&source.path, line, format!("{mutant} belongs to no protocol"))),
            }
        }
    }
}

/// The seeded bugs: line, name, and the protocol that the comment before names.
fn mutants(text: &str) -> Vec<(usize, &str, u32)> {
    let mut found = Vec::new();
    let mut comment = "";
    let body = (1..).zip(text.lines()).skip_while(|(_, line)| !line.starts_with("pub enum Mutant"));
    for (number, line) in body.skip(1).take_while(|(_, line)| *line != "}") {
        match line.trim().strip_suffix(',') {
            Some(name) if !comment.starts_with("/// No bug") && !comment.starts_with("/// Not a bug") => {
                found.push((number, name, numbers(comment).first().copied().unwrap_or_default()));
            }
            _ => {}
        }
        comment = line.trim();
    }
    found
}

/// Protocol numbers and their pages.
fn pages(sources: &[Source], findings: &mut Vec<Finding>) -> BTreeMap<u32, String> {
    let mut pages = BTreeMap::new();
    for source in sources {
        let Some(name) = source.path.strip_prefix(PAGES).and_then(|name| name.strip_prefix('P')) else { continue };
        let number = name.split_once('-').and_then(|(number, _)| number.parse().ok());
        let Some(number) = number else {
            findings.push(Finding::new(&source.path, 0, "a protocol page is named P<number>-<name>.md"));
            continue;
        };
        if let Some(other) = pages.insert(number, source.path.clone()) {
            findings.push(Finding::new(&source.path, 0, format!("{other} has the same number")));
        }
    }
    pages
}

/// Protocol numbers and where each is cited first.
fn citations(sources: &[Source]) -> BTreeMap<u32, (String, usize)> {
    let mut cited = BTreeMap::new();
    let citing = |source: &&Source| source.is_rust() && CITING.iter().any(|prefix| source.path.starts_with(prefix));
    for source in sources.iter().filter(citing) {
        for (number, line) in (1..).zip(source.text.lines()) {
            let comment = line.split_once("//").map_or("", |(_, comment)| comment);
            for protocol in numbers(comment) {
                cited.entry(protocol).or_insert_with(|| (source.path.clone(), number));
            }
        }
    }
    cited
}

/// The protocol numbers in a comment: `P` and digits, alone as a word.
fn numbers(comment: &str) -> Vec<u32> {
    let words = comment.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter_map(|word| word.strip_prefix('P')?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn citations_are_words() {
        assert_eq!(numbers("/ pairs with `publish` (P1), P12; see P3-x"), [1, 12, 3]);
        assert!(numbers(" P, MAP1, P4D, 0P1, P_1").is_empty());
    }

    #[test]
    fn both_directions_are_checked() {
        let found = check(&[
            Source::new("crates/faultless/src/a.rs", "//! P1 and P2\n"),
            Source::new("docs/protocols/P1-sections.md", "# P1"),
            Source::new("docs/protocols/P7-fork.md", "# P7"),
            Source::new("docs/protocols/Plan.md", "# no"),
        ]);
        let whats: Vec<&str> = found.iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(
            whats,
            [
                "a protocol page is named P<number>-<name>.md",
                "P2 is cited and has no page docs/protocols/P2-NAME.md",
                "no code cites P7",
            ]
        );
    }

    #[test]
    fn a_page_names_its_scenarios_and_mutants() {
        let model = "scenario! {\n    /// What.\n    first (2, 3)\n    catches [NoLock]\n    {}\n}\n";
        let second = "scenario! {\n    // Why.\n    /// What.\n    second (2, 3)\n    {}\n}\n";
        let mutants = "/// All (P1).\npub enum Mutant {\n    /// No bug.\n    None = 0,\n    /// No lock (P1).\n    NoLock,\n    \
                       /// No fence (P1).\n    NoFence,\n    /// Neither (P2).\n    NoPage,\n    /// Not a bug (P1).\n    \
                       Never,\n}\n";
        let found = check(&[
            Source::new("crates/faultless/tests/protocols/p1.rs", &format!("//! P1\n{model}{second}")),
            Source::new(MUTANTS, mutants),
            Source::new("docs/protocols/P1-sections.md", "`p1::first`, `NoLock`"),
        ]);
        let whats: Vec<&str> = found.iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(
            whats,
            [
                "P2 is cited and has no page docs/protocols/P2-NAME.md",
                "the scenario `p1::second` is not named",
                "no scenario under crates/faultless/tests/protocols/p* catches NoFence",
                "the mutant NoFence is not named",
                "no scenario under crates/faultless/tests/protocols/p* catches NoPage",
                "NoPage belongs to no protocol",
            ]
        );
    }
}
