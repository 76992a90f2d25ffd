//! Protocol pages and the code that cites them: `P3` in a comment means docs/protocols/P3-name.md, both ways.

use std::collections::BTreeMap;

use super::Finding;
use super::source::Source;

const PAGES: &str = "docs/protocols/";

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
    findings
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
}
