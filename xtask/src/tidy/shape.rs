//! How long functions and files are, and how files open.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Block, File, Item, Signature};

use super::Finding;
use super::source::{Source, is_test_item};

/// The most lines of a function, signature and braces included.
const FUNCTION: usize = 70;

/// The most lines of a file, without its tests.
const FILE: usize = 600;

/// Checks every Rust file.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    sources.iter().filter(|source| source.is_rust()).flat_map(check_file).collect()
}

fn check_file(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !opens_with_docs(&source.text) {
        findings.push(Finding::new(&source.path, 1, "the file does not open with `//!`: say what it is for"));
    }
    let Some(file) = &source.syntax else {
        findings.push(Finding::new(&source.path, 0, "the file cannot be parsed"));
        return findings;
    };
    let mut functions = Functions { source, findings };
    functions.visit_file(file);
    let mut findings = functions.findings;
    let lines = source.text.lines().count() - test_lines(file);
    if !source.is_test() && lines > FILE {
        let what = format!("{lines} lines without tests, of {FILE}: give each operation its own file");
        findings.push(Finding::new(&source.path, 0, what));
    }
    findings
}

/// Inner attributes may stand before the header, as in `#![no_std]`.
fn opens_with_docs(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("#!["));
    lines.next().is_some_and(|line| line.starts_with("//!"))
}

/// Lines of test modules inside the file.
fn test_lines(file: &File) -> usize {
    let inline = |item: &&Item| matches!(item, Item::Mod(module) if module.content.is_some());
    let tests = file.items.iter().filter(|item| is_test_item(item)).filter(inline);
    tests.map(|item| lines(item.span().start().line, item.span().end().line)).sum()
}

fn lines(first: usize, last: usize) -> usize {
    last - first + 1
}

/// Collects functions that are too long.
struct Functions<'s> {
    source: &'s Source,
    findings: Vec<Finding>,
}

impl Functions<'_> {
    fn judge(&mut self, signature: &Signature, block: &Block) {
        let first = signature.span().start().line;
        let count = lines(first, block.span().end().line);
        if count > FUNCTION {
            let what = format!("fn {} has {count} lines, of {FUNCTION}", signature.ident);
            self.findings.push(Finding::new(&self.source.path, first, what));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.judge(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.judge(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.judge(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        let source = Source::new("crates/x/src/lib.rs", text);
        check(&[source]).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_long_function_is_found_wherever_it_is() {
        let body = "    let _ = 1;\n".repeat(69);
        let text = format!("//! Docs.\nstruct S;\nimpl S {{\nfn long() {{\n{body}}}\n}}\n");
        assert_eq!(findings(&text), ["crates/x/src/lib.rs:4: fn long has 71 lines, of 70"]);
        let body = "    let _ = 1;\n".repeat(68);
        assert!(findings(&format!("//! Docs.\nfn short() {{\n{body}}}\n")).is_empty());
    }

    #[test]
    fn tests_do_not_count_as_length() {
        let filler = "const _: () = ();\n".repeat(590);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "const _: () = ();\n".repeat(100));
        assert!(findings(&format!("//! Docs.\n{filler}{tests}")).is_empty());
        let found = findings(&format!("//! Docs.\n{filler}{filler}{tests}"));
        assert_eq!(found, ["crates/x/src/lib.rs: 1181 lines without tests, of 600: give each operation its own file"]);
    }

    #[test]
    fn a_file_opens_with_its_purpose() {
        assert!(findings("#![no_std]\n\n//! Docs.\n").is_empty());
        assert_eq!(findings("use std::fmt;\n").len(), 1);
        assert_eq!(findings("// A comment.\n").len(), 1);
    }
}
