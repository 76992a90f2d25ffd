//! The boot archive: cpio members and the manifest.

use faultless_kernel_hosted::cpio::{Entries, Malformed};
use faultless_kernel_hosted::manifest::{BadManifest, Manifest};

/// A member as `cpio -H newc` writes it.
fn member(name: &str, mode: u32, links: u32, inode: u32, data: &[u8]) -> Vec<u8> {
    let fields = [inode, mode, 0, 0, links, 7, data.len() as u32, 0, 0, 5, 1, name.len() as u32 + 1, 0];
    let mut bytes = b"070701".to_vec();
    for field in fields {
        bytes.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn trailer() -> Vec<u8> {
    member("TRAILER!!!", 0, 1, 0, b"")
}

fn names(archive: &[u8]) -> Vec<String> {
    Entries::new(archive).map(|e| String::from_utf8_lossy(e.expect("well formed").name).into_owned()).collect()
}

#[test]
fn members_come_in_order_with_their_contents() {
    let archive = [member("bin", 0o40755, 2, 1, b""), member("bin/x", 0o100755, 1, 2, b"hello"), trailer()].concat();
    let entries: Vec<_> = Entries::new(&archive).map(|e| e.expect("well formed")).collect();
    assert_eq!(entries.len(), 2);
    assert_eq!((entries[0].name, entries[0].mode), (&b"bin"[..], 0o40755));
    assert_eq!((entries[1].data, entries[1].mtime, entries[1].device), (&b"hello"[..], 7, (5, 1)));
}

#[test]
fn archives_may_follow_each_other_with_padding_between() {
    let archive =
        [member("a", 0o100644, 1, 1, b"1"), trailer(), vec![0; 512], member("b", 0o100644, 1, 2, b""), trailer()];
    assert_eq!(names(&archive.concat()), ["a", "b"]);
}

#[test]
fn links_share_an_identity() {
    let archive = [member("a", 0o100644, 2, 9, b""), member("b", 0o100644, 2, 9, b"both"), trailer()].concat();
    let entries: Vec<_> = Entries::new(&archive).map(|e| e.expect("well formed")).collect();
    assert_eq!(entries[0].identity, entries[1].identity);
}

#[test]
fn damage_is_reported_once_with_its_place() {
    let good = member("a", 0o100644, 1, 1, b"1");
    let cases = [
        ([good.clone(), b"garbage".to_vec()].concat(), good.len()),
        (good[..60].to_vec(), 0),
        (member("a", 0, 1, 1, &[1; 100])[..150].to_vec(), 0),
        ([&b"070701"[..], &[b'z'; 104]].concat(), 0),
    ];
    for (archive, offset) in cases {
        let errors: Vec<_> = Entries::new(&archive).filter_map(Result::err).collect();
        assert_eq!(errors, [Malformed { offset }]);
    }
}

#[test]
fn sizes_that_overflow_are_damage() {
    let mut huge = member("a", 0, 1, 1, b"");
    huge[54..62].copy_from_slice(b"ffffffff");
    assert!(Entries::new(&huge).next().is_some_and(|e| e.is_err()));
}

#[test]
fn an_empty_archive_has_no_members() {
    assert!(names(b"").is_empty());
    assert!(names(&[0; 64]).is_empty());
}

#[test]
fn a_manifest_says_what_to_run() {
    let text = b"cwd=/w\0arg=sh\0arg=-c\0arg=a=b\0exec=/bin/sh\0env=A=1\0report=1\0tty=1\0";
    let manifest = Manifest::parse(text).expect("well formed");
    assert_eq!(manifest.exec, b"/bin/sh");
    assert_eq!(manifest.args, [&b"sh"[..], b"-c", b"a=b"]);
    assert_eq!(manifest.env, [&b"A=1"[..]]);
    assert_eq!((manifest.cwd.as_slice(), manifest.report, manifest.tty), (&b"/w"[..], true, true));
}

#[test]
fn a_manifest_has_defaults() {
    let manifest = Manifest::parse(b"exec=/x").expect("well formed");
    assert_eq!((manifest.cwd.as_slice(), manifest.report, manifest.tty), (&b"/"[..], false, false));
}

#[test]
fn manifests_that_are_not_understood_are_refused() {
    assert_eq!(Manifest::parse(b""), Err(BadManifest::NoProgram));
    assert_eq!(Manifest::parse(b"exec=/x\0nonsense\0"), Err(BadManifest::Record { index: 1 }));
    assert_eq!(Manifest::parse(b"colour=red\0"), Err(BadManifest::Record { index: 0 }));
    assert_eq!(Manifest::parse(b"tty=yes\0"), Err(BadManifest::Record { index: 0 }));
}
