//! Words that do not belong into the tree: postponed work, and paths of the machine that somebody works on.

use super::Finding;
use super::source::Source;
use crate::workspace;

/// Marks of postponed work, in two halves so that this file may contain them.
const POSTPONED: [&str; 4] = [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X"), concat!("HA", "CK")];

/// Checks every text file; prose may speak of postponed work, code may not carry it.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    let places = machine_paths();
    sources.iter().flat_map(|source| check_file(source, &places)).collect()
}

fn check_file(source: &Source, places: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let prose = source.path.ends_with(".md");
    for (number, line) in (1..).zip(source.text.lines()) {
        for word in POSTPONED.iter().filter(|word| !prose && contains_word(line, word)) {
            let what = format!("{word}: finish it, or move it to an issue or a decision record");
            findings.push(Finding::new(&source.path, number, what));
        }
        for place in places.iter().filter(|place| line.contains(place.as_str())) {
            findings.push(Finding::new(&source.path, number, format!("{place} is a path of this machine only")));
        }
    }
    findings
}

/// Where this tree and this user's toolchain lie.
fn machine_paths() -> Vec<String> {
    let home = std::env::var("HOME").unwrap_or_default();
    let tools = [".cargo", ".rustup"].map(|name| format!("{home}/{name}"));
    let root = workspace::root().display().to_string();
    // A tree in a directory like /src would be found in every sentence.
    let telling = |path: &String| path.matches('/').count() >= 2;
    tools.into_iter().chain([root]).filter(telling).collect()
}

fn contains_word(line: &str, word: &str) -> bool {
    let boundary = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word)
        .any(|(at, _)| boundary(line[..at].chars().next_back()) && boundary(line[at + word.len()..].chars().next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postponed_work_is_found_in_code_only() {
        let line = format!("// {}: later\n", POSTPONED[1]);
        let code = Source::new("kernel/src/a.s", &line);
        let prose = Source::new("docs/a.md", &line);
        let found = check(&[code, prose]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].path.as_str(), found[0].line), ("kernel/src/a.s", 1));
        assert!(check(&[Source::new("a.rs", "let mktemp = \"/tmp/XXXXXX\";")]).is_empty());
    }

    #[test]
    fn a_path_of_this_machine_is_found_everywhere() {
        let source = Source::new("docs/a.md", "see /build/tree/notes\n");
        assert_eq!(check_file(&source, &["/build/tree".into()]).len(), 1);
    }
}
