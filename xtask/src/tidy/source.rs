//! The source files of the tree, read once for all rules.

use std::fs;
use std::io;
use std::path::Path;

use syn::{Attribute, Item};

use crate::workspace;

/// Directories that hold sources.
const ROOTS: [&str; 8] = ["crates", "kernel", "guest", "xtask", "bench", "fuzz", "docs", ".ci"];

/// Directories that hold none.
const SKIPPED: [&str; 3] = ["target", "corpus", "artifacts"];

/// Files that are text in our sense.
const TEXT: [&str; 8] = ["rs", "s", "ld", "toml", "sh", "md", "txt", ""];

/// One text file.
pub struct Source {
    /// The path from the root of the source tree, with slashes.
    pub path: String,
    /// Its text.
    pub text: String,
    /// Its syntax, for Rust files that can be parsed.
    pub syntax: Option<syn::File>,
}

impl Source {
    /// A source from its text.
    pub fn new(path: &str, text: &str) -> Self {
        let syntax = path.ends_with(".rs").then(|| syn::parse_file(text).ok()).flatten();
        Source { path: path.to_owned(), text: text.to_owned(), syntax }
    }

    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether the whole file is tests: a `tests.rs` beside what it tests, or below a `tests` directory.
    pub fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.split('/').any(|part| part == "tests")
    }
}

/// Every text file of the tree, and the Markdown files in its root.
pub fn all() -> io::Result<Vec<Source>> {
    let mut sources = Vec::new();
    for root in ROOTS {
        let dir = workspace::at(root);
        if dir.is_dir() {
            collect(&dir, &mut sources)?;
        }
    }
    for entry in fs::read_dir(workspace::root())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md" || extension == "toml") {
            read(&path, &mut sources);
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn collect(dir: &Path, sources: &mut Vec<Source>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !SKIPPED.contains(&name) {
                collect(&path, sources)?;
            }
            continue;
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if TEXT.contains(&extension) {
            read(&path, sources);
        }
    }
    Ok(())
}

/// Takes a file in, unless it is no UTF-8 text.
fn read(path: &Path, sources: &mut Vec<Source>) {
    if let Ok(text) = fs::read_to_string(path) {
        sources.push(Source::new(&workspace::shown(path), &text));
    }
}

/// Whether an item is compiled for tests only.
pub fn is_test_item(item: &Item) -> bool {
    let attributes: &[Attribute] = match item {
        Item::Mod(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        _ => &[],
    };
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}
