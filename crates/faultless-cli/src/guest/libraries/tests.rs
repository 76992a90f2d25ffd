//! Library resolution against made-up roots: each test writes a few images and asks for the closure of one.

use super::*;
use crate::guest::elf::tests::Builder;
use std::fs;
use std::os::unix::fs::symlink;

const INTERPRETER: &str = "/lib64/ld-linux-x86-64.so.2";

/// A made-up system.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = World { dir: tempfile::tempdir().expect("temporary directory") };
        world.image(INTERPRETER, &Builder::default().soname("ld-linux-x86-64.so.2"));
        world
    }

    fn image(&self, path: &str, image: &Builder) -> &Self {
        self.bytes(path, &image.build())
    }

    fn bytes(&self, path: &str, bytes: &[u8]) -> &Self {
        let at = self.dir.path().join(&path[1..]);
        fs::create_dir_all(at.parent().expect("a parent")).expect("create");
        fs::write(at, bytes).expect("write");
        self
    }

    fn closure(&self, program: &str, library_path: Option<&str>) -> Closure {
        let root = Root::at(self.dir.path());
        let image = Image::parse(&root.read(Path::new(program)).expect("read")).expect("an image");
        let flavor = Flavor::of(image.interpreter.as_deref());
        Linker::new(&root, flavor, library_path).closure(Path::new(program), &image)
    }

    /// The files of a closure that must be complete.
    fn files(&self, program: &str, library_path: Option<&str>) -> Vec<String> {
        let closure = self.closure(program, library_path);
        assert_eq!(closure.missing, []);
        closure.files.iter().map(|file| file.display().to_string()).collect()
    }
}

fn program() -> Builder {
    Builder::default().interpreter(INTERPRETER)
}

fn library() -> Builder {
    Builder::default()
}

#[test]
fn libraries_are_found_transitively_and_once() {
    let world = World::new();
    world
        .image("/bin/p", &program().needed("liba.so").needed("libc.so.6"))
        .image("/usr/lib/liba.so", &library().needed("libb.so").needed("libc.so.6"))
        .image("/lib/libb.so", &library().needed("liba.so"))
        .image("/lib/x86_64-linux-gnu/libc.so.6", &library().needed("ld-linux-x86-64.so.2"));
    assert_eq!(
        world.files("/bin/p", None),
        [INTERPRETER, "/usr/lib/liba.so", "/lib/x86_64-linux-gnu/libc.so.6", "/lib/libb.so"]
    );
}

#[test]
fn a_static_program_needs_nothing() {
    let world = World::new();
    world.image("/bin/p", &library());
    assert_eq!(world.closure("/bin/p", None), Closure::default());
}

#[test]
fn the_order_is_rpath_then_environment_then_runpath_then_system() {
    let at = ["/rpath", "/env", "/runpath", "/lib"];
    let world = World::new();
    for dir in at {
        world.image(&format!("{dir}/libx.so"), &library());
    }
    let find = |image: Builder, library_path| {
        world.image("/bin/p", &image.needed("libx.so"));
        world.files("/bin/p", library_path)[1].clone()
    };
    assert_eq!(find(program().rpath("/rpath"), Some("/env")), "/rpath/libx.so");
    assert_eq!(find(program().runpath("/runpath"), Some("/env")), "/env/libx.so");
    assert_eq!(find(program().runpath("/runpath"), None), "/runpath/libx.so");
    assert_eq!(find(program(), None), "/lib/libx.so");
    // A runpath, even an empty one, switches the rpath off.
    assert_eq!(find(program().rpath("/rpath").runpath(""), None), "/lib/libx.so");
}

#[test]
fn an_rpath_is_inherited_and_a_runpath_is_not() {
    let world = World::new();
    world
        .image("/opt/liba.so", &library().needed("libb.so"))
        .image("/opt/libb.so", &library())
        .image("/bin/r", &program().rpath("/opt").needed("liba.so"))
        .image("/bin/n", &program().runpath("/opt").needed("liba.so"));
    assert_eq!(world.files("/bin/r", None)[2], "/opt/libb.so");
    let closure = world.closure("/bin/n", None);
    assert_eq!(closure.missing.len(), 1);
    assert_eq!(closure.missing[0].name, "libb.so");
    assert_eq!(closure.missing[0].needed_by, Path::new("/opt/liba.so"));
    assert!(closure.missing[0].searched.contains(&"/usr/lib".into()));
    assert!(!closure.missing[0].searched.contains(&"/opt".into()));
}

#[test]
fn origin_is_where_the_file_really_is() {
    let world = World::new();
    world
        .image("/opt/app/bin/p", &program().runpath("$ORIGIN/../lib").needed("libx.so"))
        .image("/opt/app/lib/libx.so", &library());
    fs::create_dir_all(world.dir.path().join("bin")).expect("create");
    symlink("/opt/app/bin/p", world.dir.path().join("bin/p")).expect("link");
    assert_eq!(world.files("/bin/p", None)[1], "/opt/app/bin/../lib/libx.so");
}

#[test]
fn a_library_for_another_processor_is_passed_over() {
    let world = World::new();
    let mut foreign = library().build();
    foreign[4] = 1;
    world
        .image("/bin/p", &program().rpath("/wrong").needed("libx.so"))
        .bytes("/wrong/libx.so", &foreign)
        .bytes("/lib/x86_64-linux-gnu/libx.so", b"GROUP ( libreal.so )")
        .image("/usr/lib/libx.so", &library());
    assert_eq!(world.files("/bin/p", None)[1], "/usr/lib/libx.so");
}

#[test]
fn a_configured_directory_brings_the_cache() {
    let world = World::new();
    world
        .bytes("/etc/ld.so.conf", b"/usr/local/lib\n")
        .bytes("/etc/ld.so.cache", b"cache")
        .image("/usr/local/lib/libx.so", &library())
        .image("/bin/p", &program().needed("libx.so"));
    assert_eq!(world.files("/bin/p", None), [INTERPRETER, "/usr/local/lib/libx.so", "/etc/ld.so.cache"]);
}

#[test]
fn a_missing_interpreter_is_reported_as_such() {
    let world = World::new();
    world.image("/bin/p", &library().interpreter("/lib/none.so"));
    let missing = world.closure("/bin/p", None).missing;
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0].name, "/lib/none.so");
}

#[test]
fn musl_programs_find_their_libraries_by_musls_rules() {
    let world = World::new();
    world
        .image("/lib/ld-musl-x86_64.so.1", &library())
        .image("/usr/local/lib/libx.so", &library().needed("libc.musl-x86_64.so.1"))
        .image("/bin/p", &library().interpreter("/lib/ld-musl-x86_64.so.1").needed("libx.so").needed("libc.so"));
    let expected = ["/lib/ld-musl-x86_64.so.1", "/usr/local/lib/libx.so"];
    assert_eq!(world.files("/bin/p", None), expected);
    world.bytes("/etc/ld-musl-x86_64.path", b"/only:/here\n").image("/here/libx.so", &library());
    assert_eq!(world.files("/bin/p", None)[1], "/here/libx.so");
    // With a path file the built-in directories no longer count.
    fs::remove_file(world.dir.path().join("here/libx.so")).expect("remove");
    assert_eq!(world.closure("/bin/p", None).missing[0].searched, ["/only", "/here"].map(PathBuf::from));
}
