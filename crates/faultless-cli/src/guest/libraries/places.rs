//! The places that a system's dynamic linker knows by itself: configured and built-in directories.
//!
//! Called by `libraries` only.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::guest::root::Root;

/// Whose dynamic linker a program asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// The GNU C library's, and whatever imitates it.
    Glibc,
    /// musl's.
    Musl,
}

/// Built into glibc by the distributions: Debian's multiarch directories, then those of everybody else.
const GLIBC_DEFAULTS: [&str; 6] =
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];

const MUSL_DEFAULTS: [&str; 3] = ["/lib", "/usr/local/lib", "/usr/lib"];

const GLIBC_CONFIG: &str = "/etc/ld.so.conf";
const GLIBC_CACHE: &str = "/etc/ld.so.cache";
const MUSL_PATH: &str = "/etc/ld-musl-x86_64.path";

/// What `$LIB` may stand for; the linker knows which, from outside one has to try.
const LIB_NAMES: [&str; 3] = ["lib/x86_64-linux-gnu", "lib64", "lib"];

impl Flavor {
    /// The flavor by the interpreter's file name.
    pub fn of(interpreter: Option<&str>) -> Self {
        let name = interpreter.and_then(|path| path.rsplit('/').next());
        match name {
            Some(name) if name.starts_with("ld-musl-") => Flavor::Musl,
            _ => Flavor::Glibc,
        }
    }

    /// Whether a needed name means the linker itself, which in musl is the C library under all its old names.
    pub fn is_linker_itself(self, name: &str) -> bool {
        const PARTS: [&str; 7] = ["libc.", "libpthread.", "librt.", "libm.", "libdl.", "libutil.", "libxnet."];
        self == Flavor::Musl && PARTS.iter().any(|part| name.starts_with(part))
    }
}

/// The directories of one system.
#[derive(Debug)]
pub struct System {
    configured: Vec<PathBuf>,
    defaults: Vec<PathBuf>,
    /// The file without which the guest's linker does not know the configured directories.
    cache: Option<PathBuf>,
}

impl System {
    /// Reads the system's configuration under `root`; what is absent counts as empty.
    pub fn read(root: &Root, flavor: Flavor) -> Self {
        let paths = |dirs: &[&str]| dirs.iter().map(PathBuf::from).collect();
        let existing = |file: &str| Some(PathBuf::from(file)).filter(|file| root.is_file(file));
        match flavor {
            Flavor::Glibc => System {
                configured: glibc_config(root),
                defaults: paths(&GLIBC_DEFAULTS),
                cache: existing(GLIBC_CACHE),
            },
            Flavor::Musl => match existing(MUSL_PATH) {
                None => System { configured: Vec::new(), defaults: paths(&MUSL_DEFAULTS), cache: None },
                file => System { configured: musl_config(root), defaults: Vec::new(), cache: file },
            },
        }
    }

    /// All directories, in the linker's order.
    pub fn directories(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.configured.iter().chain(&self.defaults).cloned()
    }

    /// Whether a library in `dir` is found only through the configuration.
    pub fn needs_cache(&self, dir: &Path) -> bool {
        let is = |known: &PathBuf| known == dir;
        self.configured.iter().any(is) && !self.defaults.iter().any(is)
    }

    /// The file that carries the configuration, if the system has one.
    pub fn cache(&self) -> Option<&Path> {
        self.cache.as_deref()
    }
}

/// Replaces `$ORIGIN`, `$LIB` and `$PLATFORM`, with or without braces.
pub fn expand(dir: &str, origin: &Path) -> Vec<PathBuf> {
    let token = |text: &str, name: &str, value: &str| {
        text.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value)
    };
    let dir = token(dir, "ORIGIN", &origin.to_string_lossy());
    let dir = token(&dir, "PLATFORM", "x86_64");
    if !dir.contains("$LIB") && !dir.contains("${LIB}") {
        return vec![PathBuf::from(dir)];
    }
    LIB_NAMES.iter().map(|lib| PathBuf::from(token(&dir, "LIB", lib))).collect()
}

fn musl_config(root: &Root) -> Vec<PathBuf> {
    let text = root.read(Path::new(MUSL_PATH)).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .split(['\n', ':'])
        .map(str::trim)
        .filter(|dir| dir.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

fn glibc_config(root: &Root) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    read_config(root, Path::new(GLIBC_CONFIG), &mut HashSet::new(), &mut dirs);
    let mut seen = HashSet::new();
    dirs.retain(|dir| seen.insert(dir.clone()));
    dirs
}

/// Reads one configuration file and those it includes, each once, so that a circle ends.
fn read_config(root: &Root, file: &Path, read: &mut HashSet<PathBuf>, dirs: &mut Vec<PathBuf>) {
    if !read.insert(file.to_owned()) {
        return;
    }
    let text = root.read(file).unwrap_or_default();
    for line in String::from_utf8_lossy(&text).lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        match line.split_once([' ', '\t']) {
            Some(("include", pattern)) => {
                for file in matching(root, file, pattern.trim()) {
                    read_config(root, &file, read, dirs);
                }
            }
            Some(("hwcap", _)) => {}
            // An entry may be `directory=type`, from the time of several C libraries.
            _ => dirs.extend(line.split('=').next().filter(|dir| dir.starts_with('/')).map(PathBuf::from)),
        }
    }
}

/// The files that an include pattern names, sorted; wildcards count in the last component.
fn matching(root: &Root, includer: &Path, pattern: &str) -> Vec<PathBuf> {
    let base = includer.parent().unwrap_or(Path::new("/"));
    let pattern = base.join(pattern);
    let (Some(dir), Some(name)) = (pattern.parent(), pattern.file_name()) else {
        return Vec::new();
    };
    let entries = root.find(dir).and_then(|found| fs::read_dir(root.on_host(&found.target)));
    let mut files: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| wildcard(name.as_encoded_bytes(), entry.file_name().as_encoded_bytes()))
        .map(|entry| dir.join(entry.file_name()))
        .collect();
    files.sort();
    files
}

/// Shell wildcards `*` and `?`. A leading dot must be matched by a dot.
fn wildcard(pattern: &[u8], name: &[u8]) -> bool {
    fn rest(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', after)), _) => (0..=name.len()).any(|skip| rest(after, &name[skip..])),
            (Some((b'?', after)), Some((_, tail))) => rest(after, tail),
            (Some((want, after)), Some((got, tail))) => want == got && rest(after, tail),
            _ => false,
        }
    }
    (!name.starts_with(b".") || pattern.starts_with(b".")) && rest(pattern, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_those_of_the_shell() {
        let cases = [
            ("*.conf", "a.conf", true),
            ("*.conf", ".conf", false),
            (".*", ".conf", true),
            ("*.conf", "a.conf.bak", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(wildcard(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn tokens_are_replaced_with_and_without_braces() {
        let origin = Path::new("/opt/app/bin");
        assert_eq!(expand("$ORIGIN/../lib", origin), [Path::new("/opt/app/bin/../lib")]);
        assert_eq!(expand("${ORIGIN}", origin), [origin]);
        assert_eq!(expand("/x/$PLATFORM", origin), [Path::new("/x/x86_64")]);
        assert_eq!(expand("/x/$LIB", origin)[1], Path::new("/x/lib64"));
    }

    #[test]
    fn configuration_files_include_each_other() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let etc = dir.path().join("etc");
        fs::create_dir_all(etc.join("ld.so.conf.d")).expect("create");
        fs::write(etc.join("ld.so.conf"), "include ld.so.conf.d/*.conf\n/last\n").expect("write");
        fs::write(etc.join("ld.so.conf.d/b.conf"), "/b # why\n\n/a\n").expect("write");
        fs::write(etc.join("ld.so.conf.d/a.conf"), "/a\ninclude /etc/ld.so.conf\n").expect("write");
        fs::write(etc.join("ld.so.conf.d/c.txt"), "/c\n").expect("write");
        let system = System::read(&Root::at(dir.path()), Flavor::Glibc);
        let dirs: Vec<PathBuf> = system.directories().take(3).collect();
        assert_eq!(dirs, ["/a", "/b", "/last"].map(PathBuf::from));
        assert!(system.needs_cache(Path::new("/b")));
        assert!(!system.needs_cache(Path::new("/usr/lib")));
        assert_eq!(system.cache(), None);
    }
}
