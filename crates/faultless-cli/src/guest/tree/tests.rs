//! Tests of the guest's file tree, as text: one line per node.

use super::*;
use std::os::unix::fs::symlink;

/// One line per node: path, and what is there.
fn listing(tree: &Tree) -> Vec<String> {
    let line = |(path, node): (&Path, &Node)| {
        let what = match node {
            Node::Directory(_) => "/".to_owned(),
            Node::Link(_, text) => format!(" -> {}", text.display()),
            Node::File(_, Content::Bytes(bytes)) => format!(" = {} bytes", bytes.len()),
            Node::File(_, Content::Host(_)) => String::new(),
            Node::Special(..) => " special".to_owned(),
        };
        format!("{}{what}", path.display())
    };
    tree.iter().map(line).collect()
}

fn sample() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    let at = |path: &str| dir.path().join(path);
    fs::create_dir_all(at("usr/lib/sub")).expect("create");
    fs::create_dir_all(at("data/deep")).expect("create");
    fs::write(at("usr/lib/lib.so.1.2"), b"so").expect("write");
    fs::write(at("data/deep/file"), b"x").expect("write");
    symlink("usr/lib", at("lib")).expect("link");
    symlink("lib.so.1.2", at("usr/lib/lib.so.1")).expect("link");
    symlink("../outside", at("data/dangling")).expect("link");
    dir
}

#[test]
fn a_path_brings_its_directories_and_links() {
    let dir = sample();
    let mut tree = Tree::new();
    let target = tree.add(&Root::at(dir.path()), Path::new("/lib/lib.so.1")).expect("added");
    assert_eq!(target, Path::new("/usr/lib/lib.so.1.2"));
    assert_eq!(
        listing(&tree),
        ["/lib -> usr/lib", "/usr/", "/usr/lib/", "/usr/lib/lib.so.1 -> lib.so.1.2", "/usr/lib/lib.so.1.2",]
    );
}

#[test]
fn a_directory_brings_all_below_it_with_links_kept() {
    let dir = sample();
    let mut tree = Tree::new();
    tree.add(&Root::at(dir.path()), Path::new("/data")).expect("added");
    assert_eq!(listing(&tree), ["/data/", "/data/dangling -> ../outside", "/data/deep/", "/data/deep/file"]);
}

#[test]
fn a_file_put_below_a_link_lands_behind_it() {
    let dir = sample();
    let mut tree = Tree::new();
    tree.add(&Root::at(dir.path()), Path::new("/lib/lib.so.1")).expect("added");
    tree.add_as(&dir.path().join("data/deep"), Path::new("/lib/../lib/deep")).expect("added");
    tree.put(Path::new("/lib/note"), vec![1, 2, 3], 0o644);
    let lines = listing(&tree);
    assert!(lines.contains(&"/usr/lib/deep/file".to_owned()), "{lines:?}");
    assert!(lines.contains(&"/usr/lib/note = 3 bytes".to_owned()), "{lines:?}");
    assert!(lines.contains(&"/lib -> usr/lib".to_owned()), "{lines:?}");
}

#[test]
fn a_named_file_replaces_and_a_passing_one_does_not() {
    let dir = sample();
    let mut tree = Tree::new();
    tree.put(Path::new("/data/deep/file"), vec![0; 9], 0o600);
    tree.add(&Root::at(dir.path()), Path::new("/data")).expect("added");
    assert!(listing(&tree).contains(&"/data/deep/file = 9 bytes".to_owned()));
    tree.add_as(&dir.path().join("data/deep/file"), Path::new("/data/deep/file")).expect("added");
    assert!(listing(&tree).contains(&"/data/deep/file".to_owned()));
}

#[test]
fn a_loop_of_links_in_the_tree_ends() {
    let dir = tempfile::tempdir().expect("temporary directory");
    symlink("b", dir.path().join("a")).expect("link");
    symlink("a", dir.path().join("b")).expect("link");
    let mut tree = Tree::new();
    tree.add_whole(&Root::at(dir.path())).expect("added");
    tree.put(Path::new("/a/file"), Vec::new(), 0o644);
    assert!(listing(&tree).contains(&"/a/file = 0 bytes".to_owned()));
}

#[test]
fn what_cannot_be_read_is_named() {
    let dir = sample();
    let error = Tree::new().add(&Root::at(dir.path()), Path::new("/data/none")).expect_err("absent");
    assert_eq!(error.path, dir.path().join("data/none"));
    assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
}
