//! The rooms of `crates/faultless`: who may call whom, who may name atomics, who may be unsafe.
//!
//! Works on tokens, so that macros count and comments do not. What is compiled for tests only is exempt: a test may
//! build a whole machine to try one room.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::Item;

use super::Finding;
use super::source::{Source, is_test_item};

/// Whether a room may contain `unsafe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unsafe {
    No,
    Yes,
    /// Only the promise itself: `unsafe trait`, `unsafe impl`, `unsafe fn` (whose body needs blocks of its own).
    Trait,
}

/// The rooms, lowest first.
type Rooms = Vec<(String, Unsafe)>;

/// The document whose table of rooms is the rule, and the start of the heading above it.
const MAP: &str = "ARCHITECTURE.md";
const HEADING: &str = "## The rooms";

/// Lower rooms that a room may not call all the same: only receipts join tables and TLBs.
const STRANGERS: [(&str, &str); 1] = [("tlb", "table")];

/// The only room that names atomics.
const ATOMICS: &str = "sync";

const PREFIX: &str = "crates/faultless/src/";

/// Checks the crate's files.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    let in_crate = |source: &&Source| source.path.starts_with(PREFIX) && !source.is_test();
    let map = sources.iter().find(|source| source.path == MAP).map(|source| source.text.as_str());
    let rooms = rooms(map.unwrap_or_default());
    if rooms.is_empty() {
        return vec![Finding::new(MAP, 0, format!("there is no table of rooms below `{HEADING}`"))];
    }
    sources.iter().filter(in_crate).flat_map(|source| check_file(source, &rooms)).collect()
}

/// The table of rooms: the room in the first column, whether it may be unsafe in the last.
fn rooms(map: &str) -> Rooms {
    let section = map.lines().skip_while(|line| !line.starts_with(HEADING)).skip(1);
    let rows = section.take_while(|line| !line.starts_with("## ")).filter_map(|line| line.strip_prefix("| `"));
    let room = |row: &str| {
        let (room, rest) = row.split_once('`')?;
        let rule = match rest.trim_end_matches([' ', '|']).rsplit('|').next()?.trim() {
            "no" => Unsafe::No,
            "trait" => Unsafe::Trait,
            // `yes`, or the words for what it is needed for.
            _ => Unsafe::Yes,
        };
        Some((room.to_owned(), rule))
    };
    rows.filter_map(room).collect()
}

fn check_file(source: &Source, rooms: &Rooms) -> Vec<Finding> {
    let (Some(place), Some(file)) = (Place::of(&source.path), &source.syntax) else {
        return Vec::new();
    };
    let Some(rank) = rank(rooms, place.room) else {
        let what = format!("`{}` is no room: it is not in the table of {MAP}", place.room);
        return vec![Finding::new(&source.path, 0, what)];
    };
    let mut tokens = Vec::new();
    for item in file.items.iter().filter(|item| !is_test_item(item)) {
        flatten(item.to_token_stream(), place.depth + usize::from(is_inline(item)), &mut tokens);
    }
    let mut findings = Vec::new();
    let mut add = |line: usize, what: String| findings.push(Finding::new(&source.path, line, what));
    for at in 0..tokens.len() {
        let rest = &tokens[at..];
        for (to, line) in imported(rest) {
            if rank_is_above(rooms, &to, rank) {
                add(line, format!("room `{}` calls up into `{to}`", place.room));
            }
            if STRANGERS.contains(&(place.room, &to)) {
                add(line, format!("room `{}` must not know `{to}`", place.room));
            }
        }
        if place.room != ATOMICS && names_atomics(rest) {
            add(rest[0].line, "atomics are named in the room `sync` only: use `crate::sync`".into());
        }
        if rest[0].text == "unsafe" && !unsafe_allowed(rooms[rank].1, rest) {
            add(rest[0].line, format!("`unsafe` is not allowed in the room `{}`", place.room));
        }
    }
    findings
}

fn rank(rooms: &Rooms, room: &str) -> Option<usize> {
    rooms.iter().position(|known| known.0 == room)
}

fn rank_is_above(rooms: &Rooms, room: &str, rank_of_caller: usize) -> bool {
    rank(rooms, room).is_some_and(|rank| rank > rank_of_caller)
}

/// Where a file is in the module tree.
struct Place<'p> {
    room: &'p str,
    /// How many `super` lead from the file's module to the crate's root.
    depth: usize,
}

impl<'p> Place<'p> {
    /// `None` for `lib.rs`, which belongs to no room.
    fn of(path: &'p str) -> Option<Self> {
        let inner = path.strip_prefix(PREFIX)?.strip_suffix(".rs")?;
        let parts: Vec<&str> = inner.split('/').collect();
        let depth = parts.len() - usize::from(parts.last() == Some(&"mod"));
        (inner != "lib").then(|| Place { room: parts[0], depth })
    }
}

/// One word or punctuation character.
#[derive(Debug, Clone)]
struct Token {
    text: String,
    line: usize,
    /// How many `super` lead from here to the crate's root.
    depth: usize,
}

fn is_inline(item: &Item) -> bool {
    matches!(item, Item::Mod(module) if module.content.is_some())
}

/// Takes groups apart, keeping their brackets, and leaves literals out.
fn flatten(stream: TokenStream, depth: usize, out: &mut Vec<Token>) {
    for token in stream {
        let line = token.span().start().line;
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::None => ("", ""),
                };
                out.push(Token { text: open.into(), line, depth });
                flatten(group.stream(), depth, out);
                out.push(Token { text: close.into(), line, depth });
            }
            TokenTree::Ident(word) => out.push(Token { text: word.to_string(), line, depth }),
            TokenTree::Punct(mark) => out.push(Token { text: mark.to_string(), line, depth }),
            TokenTree::Literal(_) => {}
        }
    }
}

/// Whether the tokens start with these words, separated by `::`.
fn starts_with_path(tokens: &[Token], words: &[&str]) -> bool {
    let wanted = words.iter().enumerate().flat_map(|(index, word)| {
        let colons: &[&str] = if index == 0 { &[] } else { &[":", ":"] };
        colons.iter().chain([word])
    });
    let mut tokens = tokens.iter();
    wanted.into_iter().all(|word| tokens.next().is_some_and(|token| token.text == *word))
}

/// The rooms that a path starting here leads into, with their lines: `crate::room`, `crate::{room, room}`, or as many
/// `super` as lead to the root.
fn imported(tokens: &[Token]) -> Vec<(String, usize)> {
    let after = match tokens[0].text.as_str() {
        "crate" => 1,
        "super" => {
            let supers = (0..).step_by(3).take_while(|&at| tokens.get(at).is_some_and(|token| token.text == "super"));
            match supers.count() {
                count if count == tokens[0].depth => count * 3 - 2,
                _ => return Vec::new(),
            }
        }
        _ => return Vec::new(),
    };
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.text == text);
    if !is(after, ":") || !is(after + 1, ":") {
        return Vec::new();
    }
    let first = after + 2;
    let Some(token) = tokens.get(first) else { return Vec::new() };
    if token.text != "{" {
        return vec![(token.text.clone(), token.line)];
    }
    grouped(&tokens[first + 1..])
}

/// The first words of the members of a `{...}` group whose opening brace was read.
fn grouped(tokens: &[Token]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut depth = 0;
    let mut starts = true;
    for token in tokens {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" if depth == 0 => break,
            "}" => depth -= 1,
            "," if depth == 0 => starts = true,
            word if starts => {
                found.push((word.to_owned(), token.line));
                starts = false;
            }
            _ => {}
        }
    }
    found
}

fn names_atomics(tokens: &[Token]) -> bool {
    let paths: [&[&str]; 4] =
        [&["core", "sync", "atomic"], &["std", "sync", "atomic"], &["loom", "sync"], &["shuttle", "sync"]];
    paths.iter().any(|path| starts_with_path(tokens, path))
}

fn unsafe_allowed(rule: Unsafe, tokens: &[Token]) -> bool {
    let next = tokens.get(1).map(|token| token.text.as_str());
    match rule {
        Unsafe::Yes => true,
        Unsafe::No => false,
        Unsafe::Trait => matches!(next, Some("trait" | "impl" | "fn")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
## The rooms of the crate
| room | lives there | unsafe |
|---|---|---|
| `addr` | values | no |
| `sync` | atomics | yes |
| `machine` | contract | trait |
| `frame` | `Ctx` | records |
| `table` | walk | no |
| `tlb` | receipts | no |
| `swap` | slots | no |
| `space` | operations | no |
| `engine` | `Vm` | no |
## Next
| `attic` | nothing | yes |
";

    fn findings(file: &str, text: &str) -> Vec<String> {
        let source = Source::new(&format!("{PREFIX}{file}"), text);
        check(&[Source::new(MAP, TABLE), source]).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn calls_go_down() {
        assert!(findings("frame/mod.rs", "use crate::sync::Lock; use crate::addr;").is_empty());
        assert_eq!(findings("frame/mod.rs", "use crate::space::Space;"), ["room `frame` calls up into `space`"]);
        let grouped = "use crate::{addr, frame::{Node, zone}, engine::Vm};";
        assert_eq!(findings("table/walk.rs", grouped), ["room `table` calls up into `engine`"]);
        assert_eq!(findings("table/walk.rs", "m!(crate::swap::Slot);"), ["room `table` calls up into `swap`"]);
        assert_eq!(findings("tlb/mod.rs", "use crate::table::Node;"), ["room `tlb` must not know `table`"]);
    }

    #[test]
    fn the_way_over_super_is_followed() {
        assert_eq!(findings("frame/zone.rs", "use super::super::space;"), ["room `frame` calls up into `space`"]);
        assert_eq!(findings("frame/mod.rs", "use super::space;"), ["room `frame` calls up into `space`"]);
        // A module of the same name inside the room is none of our business.
        assert!(findings("frame/zone.rs", "use super::space;").is_empty());
        assert!(findings("frame/zone.rs", "mod inner { use super::super::space; }").is_empty());
    }

    #[test]
    fn atomics_are_named_in_one_room() {
        let text = "use core::sync::atomic::Ordering;";
        assert_eq!(findings("table/walk.rs", text).len(), 1);
        assert!(findings("sync/mod.rs", text).is_empty());
        assert!(findings("table/walk.rs", "// core::sync::atomic\nuse crate::sync::AtomicU64;").is_empty());
    }

    #[test]
    fn unsafe_stays_in_its_rooms() {
        assert!(findings("frame/mod.rs", "fn f() { unsafe {} }").is_empty());
        assert_eq!(findings("space/mod.rs", "fn f() { unsafe {} }"), ["`unsafe` is not allowed in the room `space`"]);
        assert!(findings("machine/mod.rs", "pub unsafe trait Machine {}").is_empty());
        assert!(findings("machine/mod.rs", "pub const unsafe fn vouch() {}").is_empty());
        assert_eq!(findings("machine/mod.rs", "fn f() { unsafe {} }").len(), 1);
    }

    #[test]
    fn tests_are_exempt_and_unknown_rooms_are_not() {
        assert!(findings("addr.rs", "#[cfg(test)] mod tests { use crate::engine::Vm; }").is_empty());
        assert!(findings("frame/tests.rs", "use crate::engine::Vm;").is_empty());
        assert!(findings("lib.rs", "use crate::engine::Vm;").is_empty());
        assert_eq!(findings("attic.rs", "").len(), 1);
    }

    #[test]
    fn the_table_is_read_from_its_section_only() {
        let rooms = rooms(TABLE);
        assert_eq!(rooms.len(), 9);
        assert_eq!(rooms[3], ("frame".into(), Unsafe::Yes));
        assert_eq!(check(&[]).len(), 1);
    }
}
