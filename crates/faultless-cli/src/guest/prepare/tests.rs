//! Whole preparations in made-up systems: what a command line brings into the guest.

use super::*;
use crate::guest::elf::tests::Builder;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

struct World {
    dir: tempfile::TempDir,
}

impl World {
    /// A system with a dynamic linker, a C library behind links, a shell and one dynamic program.
    fn new() -> Self {
        let world = World { dir: tempfile::tempdir().expect("temporary directory") };
        let program = Builder::default().interpreter("/lib64/ld.so").needed("libc.so.6");
        fs::create_dir_all(world.at("/usr/lib")).expect("create");
        symlink("usr/lib", world.at("/lib")).expect("link");
        world
            .file("/lib64/ld.so", &Builder::default().build(), 0o755)
            .file("/usr/lib/libc-2.so", &Builder::default().build(), 0o644)
            .file("/usr/bin/prog", &program.build(), 0o755)
            .file("/bin/sh", &Builder::default().build(), 0o755);
        symlink("libc-2.so", world.at("/usr/lib/libc.so.6")).expect("link");
        world
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(&path[1..])
    }

    fn file(&self, path: &str, bytes: &[u8], mode: u32) -> &Self {
        let at = self.at(path);
        fs::create_dir_all(at.parent().expect("a parent")).expect("create");
        fs::write(&at, bytes).expect("write");
        fs::set_permissions(&at, fs::Permissions::from_mode(mode)).expect("mode");
        self
    }

    fn request(&self, program: &str) -> Request {
        Request {
            program: program.into(),
            arguments: vec!["-x".into()],
            source: Source::Needed(Root::at(self.dir.path())),
            extra: Vec::new(),
            environment: vec!["HOME=/".into()],
            here: "/home/me".into(),
            cwd: None,
            search: vec!["/bin".into(), "/usr/bin".into()],
            report: true,
            tty: false,
            no_input: false,
        }
    }
}

fn paths(prepared: &Prepared) -> Vec<String> {
    let path = |(path, _): (&Path, &Node)| path.display().to_string();
    prepared.tree.iter().map(path).collect()
}

use crate::guest::tree::Node;

#[test]
fn a_program_brings_its_linker_libraries_and_links() {
    let world = World::new();
    let prepared = prepare(&world.request("prog")).expect("prepared");
    assert_eq!(
        paths(&prepared),
        [
            "/home",
            "/home/me",
            "/lib",
            "/lib64",
            "/lib64/ld.so",
            "/usr",
            "/usr/bin",
            "/usr/bin/prog",
            "/usr/lib",
            "/usr/lib/libc-2.so",
            "/usr/lib/libc.so.6",
        ]
    );
    assert_eq!(prepared.manifest.exec, "/usr/bin/prog");
    assert_eq!(prepared.manifest.arguments, ["prog", "-x"]);
    assert_eq!(prepared.manifest.cwd, "/home/me");
}

#[test]
fn a_script_is_replaced_by_its_interpreter() {
    let world = World::new();
    world.file("/home/me/inner", b"#!/bin/sh -e -u\n", 0o755).file("/home/me/outer", b"#! inner\n", 0o755);
    let prepared = prepare(&world.request("./outer")).expect("prepared");
    assert_eq!(prepared.manifest.exec, "/bin/sh");
    let expected = ["/bin/sh", "-e -u", "/home/me/inner", "/home/me/outer", "-x"];
    assert_eq!(prepared.manifest.arguments, expected);
    assert!(paths(&prepared).contains(&"/home/me/inner".to_owned()));
    assert!(paths(&prepared).contains(&"/home/me/outer".to_owned()));
}

#[test]
fn a_script_brings_what_env_looks_up() {
    let world = World::new();
    world
        .file("/usr/bin/env", &Builder::default().build(), 0o755)
        .file("/home/me/script", b"#!/usr/bin/env prog\n", 0o755)
        .file("/home/me/lost", b"#!/usr/bin/env nothing\n", 0o755);
    let mut request = world.request("./script");
    request.environment.push("PATH=/usr/local/bin:/usr/bin".into());
    let prepared = prepare(&request).expect("prepared");
    assert_eq!(prepared.manifest.arguments, ["/usr/bin/env", "prog", "/home/me/script", "-x"]);
    for file in ["/usr/bin/env", "/usr/bin/prog", "/usr/lib/libc.so.6", "/lib64/ld.so"] {
        assert!(paths(&prepared).contains(&file.to_owned()), "{file}");
    }
    request.program = "./lost".into();
    assert!(prepare(&request).is_ok(), "env says what it did not find");
}

#[test]
fn scripts_that_run_each_other_end() {
    let world = World::new();
    world.file("/home/me/self", b"#!/home/me/self\n", 0o755);
    let error = prepare(&world.request("./self")).expect_err("endless");
    assert_eq!(error.kind(), "script_too_deep");
    world.file("/home/me/lost", b"#!/usr/bin/perl6\n", 0o755);
    let error = prepare(&world.request("./lost")).expect_err("no interpreter");
    assert_eq!(error.kind(), "script_interpreter_missing");
    assert!(error.to_string().contains("/usr/bin/perl6"));
}

#[test]
fn what_cannot_run_says_why() {
    let world = World::new();
    world
        .file("/home/me/data", b"hello", 0o644)
        .file("/home/me/text", b"hello", 0o755)
        .file("/home/me/lonely", &Builder::default().interpreter("/none.so").build(), 0o755)
        .file("/home/me/needy", &Builder::default().needed("libnone.so").build(), 0o755);
    let kind = |program: &str| prepare(&world.request(program)).expect_err(program).kind();
    assert_eq!(kind("./data"), "not_executable");
    assert_eq!(kind("/usr"), "not_executable");
    assert_eq!(kind("./text"), "not_an_x86_64_program");
    assert_eq!(kind("./lonely"), "dynamic_linker_missing");
    assert_eq!(kind("./needy"), "libraries_missing");
    assert_eq!(kind("./none"), "program_not_found");
    assert_eq!(prepare(&world.request("/usr")).expect_err("directory").to_string(), "/usr is a directory");
    let error = prepare(&world.request("text")).expect_err("only here");
    assert_eq!(error.help().expect("help"), "there is one in the current directory: ./text");
}

#[test]
fn a_whole_root_is_packed_and_looked_into() {
    let world = World::new();
    world.file("/etc/motd", b"hi", 0o644);
    let mut request = world.request("prog");
    request.source = Source::Whole(Root::at(world.dir.path()));
    let prepared = prepare(&request).expect("prepared");
    assert!(paths(&prepared).contains(&"/etc/motd".to_owned()));
    assert_eq!(prepared.manifest.exec, "/usr/bin/prog");
    assert_eq!(prepared.manifest.cwd, "/");
    fs::remove_file(world.at("/lib64/ld.so")).expect("remove");
    assert_eq!(prepare(&request).expect_err("no linker").kind(), "dynamic_linker_missing");
}

#[test]
fn an_archive_is_taken_unseen_and_the_manifest_follows_it() {
    let world = World::new();
    let mut archive = Vec::new();
    cpio::newc::trailer(&mut archive).expect("written");
    world.file("/initrd", &archive, 0o644);
    let mut request = world.request("sh");
    request.source = Source::Archive(world.at("/initrd"));
    assert_eq!(prepare(&request).expect_err("a name").kind(), "path_needed");
    request.program = "/bin/sh".into();
    let prepared = prepare(&request).expect("prepared");
    let mut out = tempfile::tempfile().expect("temporary file");
    let size = prepared.write(&mut out).expect("written");
    assert_eq!(size, out.metadata().expect("metadata").len());
    assert!(size > archive.len() as u64);
    world.file("/initrd", &archive[..archive.len() - 12], 0o644);
    let error = prepared.write(&mut out).expect_err("cut").to_string();
    assert!(error.ends_with("/initrd is damaged at offset 0: the archive ends within the header there"), "{error}");
}

#[test]
fn added_files_bring_what_they_need() {
    let world = World::new();
    let host = |path: &str| ExtraFile { host: world.at(path), guest: None };
    let plugin = Builder::default().needed("libdep.so").needed("libnone.so").runpath("$ORIGIN");
    world
        .file("/plugins/a.so", &plugin.build(), 0o644)
        .file("/plugins/libdep.so", &Builder::default().build(), 0o644)
        .file("/plugins/readme", b"text", 0o644)
        .file("/elsewhere/data", b"data", 0o644);
    let mut request = world.request("prog");
    // Extra files come from the host, so the made-up system is the host for this one.
    request.source = Source::Needed(Root::host());
    request.program = std::env::current_exe().expect("this test").display().to_string();
    request.extra =
        vec![host("/plugins"), ExtraFile::parse(&format!("{}:/data/", world.at("/elsewhere/data").display()))];
    let prepared = prepare(&request).expect("prepared");
    let found = paths(&prepared);
    assert!(found.contains(&world.at("/plugins/libdep.so").display().to_string()));
    assert!(found.contains(&world.at("/plugins/readme").display().to_string()));
    assert!(found.contains(&"/data/data".to_owned()));
    assert_eq!(prepared.notices.len(), 1);
    assert!(prepared.notices[0].starts_with("libnone.so was not found"), "{:?}", prepared.notices);
}

#[test]
fn a_file_option_names_host_and_guest() {
    let parse = |text: &str| {
        let file = ExtraFile::parse(text);
        (file.host, file.guest)
    };
    assert_eq!(parse("a/b"), ("a/b".into(), None));
    assert_eq!(parse("a:/b"), ("a".into(), Some("/b".into())));
    assert_eq!(parse("/x/a:/b/"), ("/x/a".into(), Some("/b/a".into())));
    assert_eq!(parse("odd:name"), ("odd:name".into(), None));
}
