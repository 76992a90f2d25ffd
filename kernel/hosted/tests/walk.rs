//! Path walks on a toy tree.
//!
//! ```text
//! /  d/  f            regular
//!        s -> f       l -> ../d     loop -> loop    abs -> /d/f    gone -> nothing
//!    jump => /d (straight to the node)
//! ```

use faultless_kernel_hosted::errno::Errno;
use faultless_kernel_hosted::walk::{Follow, Last, Link, Place, Tree, walk};

/// A node is its path; the tree is the two functions below.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node(String);

fn node(path: &str) -> Node {
    Node(path.to_string())
}

fn link_of(path: &str) -> Option<&'static str> {
    match path {
        "/d/s" => Some("f"),
        "/d/l" => Some("../d"),
        "/d/loop" => Some("loop"),
        "/d/abs" => Some("/d/f"),
        "/d/gone" => Some("nothing"),
        "/d/empty" => Some(""),
        _ => None,
    }
}

impl Tree for Node {
    fn is_directory(&self) -> bool {
        matches!(self.0.as_str(), "/" | "/d")
    }

    fn child(&self, name: &[u8]) -> Result<Node, Errno> {
        let name = String::from_utf8_lossy(name);
        let path = if self.0 == "/" { format!("/{name}") } else { format!("{}/{name}", self.0) };
        let known = ["/d", "/d/f", "/jump"].contains(&path.as_str()) || link_of(&path).is_some();
        known.then_some(Node(path)).ok_or(Errno::ENOENT)
    }

    fn parent(&self) -> Node {
        node("/")
    }

    fn link(&self) -> Result<Option<Link<Node>>, Errno> {
        if self.0 == "/jump" {
            return Ok(Some(Link::Node(node("/d"))));
        }
        Ok(link_of(&self.0).map(|target| Link::Path(target.as_bytes().to_vec())))
    }

    fn is_same(&self, other: &Node) -> bool {
        self == other
    }
}

fn go(path: &str, follow: Follow) -> Result<Place<Node>, Errno> {
    walk(&node("/"), &node("/d"), path.as_bytes(), follow)
}

/// Where following everything leads: the path of the node, or the name of the error.
fn leads(path: &str) -> String {
    match go(path, Follow::Last).and_then(Place::existing) {
        Ok(found) => found.0,
        Err(errno) => format!("{errno:?}"),
    }
}

fn error(errno: Errno) -> String {
    format!("{errno:?}")
}

#[test]
fn names_are_found_from_the_base_and_from_the_root() {
    for path in ["f", "./f", "/d/f", "//d//f", "../d/f", "../../../d/f", "s", "l/f", "abs", "l/l/s", "/jump/f"] {
        assert_eq!(leads(path), "/d/f", "{path}");
    }
    for path in [".", "/d", "/d/", "/d/.", "l", "l/", "/jump", "/jump/"] {
        assert_eq!(leads(path), "/d", "{path}");
    }
    for path in ["/", "///", "..", "/..", "/../.."] {
        assert_eq!(leads(path), "/", "{path}");
    }
}

#[test]
fn errors_are_those_of_the_first_bad_component() {
    for (path, errno) in [
        ("", Errno::ENOENT),
        ("nope", Errno::ENOENT),
        ("nope/f", Errno::ENOENT),
        ("f/x", Errno::ENOTDIR),
        ("f/", Errno::ENOTDIR),
        ("f/.", Errno::ENOTDIR),
        ("f/..", Errno::ENOTDIR),
        ("s/", Errno::ENOTDIR),
        ("loop", Errno::ELOOP),
        ("loop/x", Errno::ELOOP),
        ("gone", Errno::ENOENT),
        ("empty", Errno::ENOENT),
    ] {
        assert_eq!(leads(path), error(errno), "{path}");
    }
    assert_eq!(leads(&"x".repeat(256)), error(Errno::ENAMETOOLONG));
    assert_eq!(leads(&"x".repeat(255)), error(Errno::ENOENT));
}

#[test]
fn the_last_link_is_followed_only_if_wanted_or_if_a_slash_says_so() {
    let found = |path| go(path, Follow::NotLast).and_then(Place::existing).map(|n| n.0);
    assert_eq!(found("s").as_deref(), Ok("/d/s"));
    assert_eq!(found("loop").as_deref(), Ok("/d/loop"));
    assert_eq!(found("l/s").as_deref(), Ok("/d/s"));
    assert_eq!(found("l/").as_deref(), Ok("/d"));
}

#[test]
fn a_missing_last_component_names_the_place_to_create_it() {
    let place = go("l/new", Follow::Last).expect("the directory exists");
    assert_eq!((place.directory, place.last), (node("/d"), Last::Name(b"new".to_vec())));
    assert!(place.found.is_none() && !place.slash);
    let place = go("new//", Follow::Last).expect("the directory exists");
    assert!(place.found.is_none() && place.slash);
    // A dangling link is created where it points to.
    let place = go("gone", Follow::Last).expect("the directory exists");
    assert_eq!(place.last, Last::Name(b"nothing".to_vec()));
}

#[test]
fn special_last_components_are_told_apart() {
    let last = |path| go(path, Follow::NotLast).map(|p| p.last);
    assert_eq!(last("."), Ok(Last::Dot));
    assert_eq!(last("/"), Ok(Last::Dot));
    assert_eq!(last("l/.."), Ok(Last::DotDot));
    assert_eq!(last("f"), Ok(Last::Name(b"f".to_vec())));
    assert_eq!(go("/jump", Follow::Last).map(|p| p.last), Ok(Last::Jump));
}
