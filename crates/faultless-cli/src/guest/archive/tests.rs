//! Archives are read back by the crate's reader and, where it is installed, by the system's cpio.

use super::*;
use crate::guest::root::Root;
use std::process::{Command, Stdio};

/// Name, mode and content of every member of the archives in `bytes`, trailers included as `TRAILER!!!`.
fn members(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
    let mut rest = bytes;
    let mut found = Vec::new();
    while rest.iter().any(|&byte| byte != 0) {
        let mut reader = newc::Reader::new(rest).expect("a header");
        let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
        let mut content = Vec::new();
        reader.read_to_end(&mut content).expect("content");
        rest = reader.finish().expect("padding");
        found.push((name, mode, content));
    }
    found
}

fn sample(dir: &Path) -> Tree {
    std::fs::create_dir_all(dir.join("bin")).expect("create");
    std::fs::write(dir.join("bin/tool"), b"12345").expect("write");
    std::os::unix::fs::symlink("bin/tool", dir.join("alias")).expect("link");
    let mut tree = Tree::new();
    tree.add_whole(&Root::at(dir)).expect("added");
    tree.put(Path::new("/.faultless/manifest"), b"exec=/bin/tool".to_vec(), 0o444);
    tree
}

#[test]
fn members_come_back_as_they_went_in() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut bytes = Vec::new();
    write(&sample(dir.path()), &mut bytes).expect("written");
    let found = members(&bytes);
    let names: Vec<&str> = found.iter().map(|member| member.0.as_str()).collect();
    let expected = [".faultless", ".faultless/manifest", "alias", "bin", "bin/tool", "TRAILER!!!"];
    assert_eq!(names, expected);
    assert_eq!(found[1].1, 0o100_444);
    assert_eq!(found[1].2, b"exec=/bin/tool");
    assert_eq!(found[2].1 & 0o170_000, 0o120_000);
    assert_eq!(found[2].2, b"bin/tool");
    assert_eq!(found[4].2, b"12345");
}

#[test]
fn another_archive_can_follow_an_existing_one() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let first = dir.path().join("first.cpio");
    let mut bytes = Vec::new();
    let mut tree = Tree::new();
    tree.put(Path::new("/one"), vec![1], 0o644);
    write(&tree, &mut bytes).expect("written");
    // Archives are often cut right after the trailer, at no particular alignment.
    let end = bytes.iter().rposition(|&byte| byte != 0).expect("not empty") + 1;
    std::fs::write(&first, &bytes[..end + 1]).expect("write");

    let mut joined = Vec::new();
    copy_existing(&first, &mut joined).expect("copied");
    assert_eq!(joined.len() % 4, 0);
    let mut second = Tree::new();
    second.put(Path::new("/two"), vec![2], 0o644);
    write(&second, &mut joined).expect("written");
    let names: Vec<String> = members(&joined).into_iter().map(|member| member.0).collect();
    assert_eq!(names, ["one", "TRAILER!!!", "two", "TRAILER!!!"]);
}

#[test]
fn a_compressed_archive_is_recognised() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("initrd.gz");
    std::fs::write(&path, [0x1f, 0x8b, 8, 0, 0, 0, 0]).expect("write");
    let error = copy_existing(&path, &mut Vec::new()).expect_err("compressed");
    assert!(error.to_string().ends_with("it is compressed with gzip"), "{error}");
    std::fs::write(&path, b"070").expect("write");
    assert!(matches!(copy_existing(&path, &mut Vec::new()), Err(ArchiveError::NotCpio(..))));
}

#[test]
fn a_file_that_vanished_is_named() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let tree = sample(dir.path());
    std::fs::remove_file(dir.path().join("bin/tool")).expect("remove");
    let error = write(&tree, &mut Vec::new()).expect_err("gone");
    assert!(error.to_string().contains("bin/tool"), "{error}");
}

#[test]
fn the_systems_cpio_reads_it_too() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut bytes = Vec::new();
    write(&sample(dir.path()), &mut bytes).expect("written");
    let spawned = Command::new("cpio").args(["--list", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    // Not installed everywhere; the reader above judges in any case.
    let Ok(mut child) = spawned else { return };
    child.stdin.take().expect("piped").write_all(&bytes).expect("taken");
    let output = child.wait_with_output().expect("ended");
    assert!(output.status.success());
    let listed = String::from_utf8(output.stdout).expect("text");
    assert_eq!(listed.lines().count(), 5);
    assert!(listed.contains("bin/tool"), "{listed}");
}
