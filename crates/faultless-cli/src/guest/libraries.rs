//! Which files the dynamic linker would load for a program, found by its own rules.
//!
//! Called by `prepare`. The order of places is that of ld.so(8): `DT_RPATH` of the requester and of those that loaded
//! it, `LD_LIBRARY_PATH`, `DT_RUNPATH` of the requester, the directories of ld.so.conf, the default directories. musl
//! has its own shorter rules. Absent on purpose: running the linker (the files may come from another system), its
//! binary cache, glibc-hwcaps variants (the guest gets the baseline library), and whatever a program opens by itself
//! with dlopen.

mod places;

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use crate::guest::elf::Image;
use crate::guest::root::Root;

pub use places::Flavor;
use places::{System, expand};

/// Everything a program needs to start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Closure {
    /// Guest paths as the linker opens them, the interpreter first. Links in them are not resolved.
    pub files: Vec<PathBuf>,
    /// What was asked for and not found.
    pub missing: Vec<Missing>,
}

/// A library that is in none of the places where the linker looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The name that was asked for.
    pub name: String,
    /// Who asks for it.
    pub needed_by: PathBuf,
    /// Where it was looked for, in order, each directory once.
    pub searched: Vec<PathBuf>,
}

/// The dynamic linker's view of one root.
#[derive(Debug)]
pub struct Linker<'r> {
    root: &'r Root,
    flavor: Flavor,
    library_path: Vec<String>,
    system: System,
}

/// One object that would be in memory.
struct Loaded {
    path: PathBuf,
    /// What `$ORIGIN` stands for.
    origin: PathBuf,
    image: Image,
    /// Index of the object that asked for this one.
    loader: Option<usize>,
}

/// A resolution in progress.
#[derive(Default)]
struct Resolution {
    loaded: Vec<Loaded>,
    names: HashSet<String>,
    closure: Closure,
    extra: BTreeSet<PathBuf>,
}

impl<'r> Linker<'r> {
    /// The linker of `flavor` in `root`, with the guest's `LD_LIBRARY_PATH` if it has one.
    pub fn new(root: &'r Root, flavor: Flavor, library_path: Option<&str>) -> Self {
        Linker {
            root,
            flavor,
            library_path: library_path
                .unwrap_or_default()
                .split([':', ';'])
                .filter(|dir| !dir.is_empty())
                .map(str::to_owned)
                .collect(),
            system: System::read(root, flavor),
        }
    }

    /// The root that it looks into.
    pub fn root(&self) -> &'r Root {
        self.root
    }

    /// What the object at `path` (a guest path, already read into `image`) needs, transitively.
    pub fn closure(&self, path: &Path, image: &Image) -> Closure {
        let target = self.root.find(path).map_or(path.to_owned(), |found| found.target);
        let mut work = Resolution::default();
        work.loaded.push(Loaded { origin: parent(&target), path: path.to_owned(), image: image.clone(), loader: None });
        if let Some(interpreter) = &image.interpreter {
            self.take_interpreter(&mut work, interpreter);
        }
        let mut next = 0;
        // Ends: every name is looked up once, and the files of the root are finite.
        while next < work.loaded.len() {
            for name in work.loaded[next].image.needed.clone() {
                self.take(&mut work, next, name);
            }
            next += 1;
        }
        work.closure.files.extend(work.extra);
        work.closure
    }

    fn take_interpreter(&self, work: &mut Resolution, interpreter: &str) {
        let path = PathBuf::from(interpreter);
        let Some(image) = self.load(&path) else {
            let needed_by = work.loaded[0].path.clone();
            work.closure.missing.push(Missing {
                name: interpreter.to_owned(),
                needed_by,
                searched: vec![parent(&path)],
            });
            return;
        };
        // The interpreter is in memory before any library, so a library that needs it by name gets this one.
        work.names.extend(image.soname.clone());
        work.closure.files.push(path);
    }

    fn take(&self, work: &mut Resolution, requester: usize, name: String) {
        if self.flavor.is_linker_itself(&name) || !work.names.insert(name.clone()) {
            return;
        }
        let places = self.places(work, requester, &name);
        let hit = places.iter().find_map(|dir| Some((dir, self.load(&dir.join(&name))?)));
        let Some((dir, image)) = hit else {
            work.closure.missing.push(Missing {
                needed_by: work.loaded[requester].path.clone(),
                searched: places,
                name,
            });
            return;
        };
        if self.system.needs_cache(dir) {
            work.extra.extend(self.system.cache().map(Path::to_owned));
        }
        let path = dir.join(&name);
        work.names.extend(image.soname.clone());
        work.closure.files.push(path.clone());
        work.loaded.push(Loaded { origin: parent(&path), path, image, loader: Some(requester) });
    }

    /// The directories to look in for `name`, in order, without repetition.
    fn places(&self, work: &Resolution, requester: usize, name: &str) -> Vec<PathBuf> {
        if name.contains('/') {
            // Opened as it stands; a relative one is relative to the guest's working directory.
            return vec![PathBuf::from("/")];
        }
        let object = &work.loaded[requester];
        let inherited = self.inherited(work, requester);
        let given = self.library_path.iter().flat_map(|dir| expand(dir, &object.origin));
        let runpath = object.image.runpath.iter().flatten();
        let runpath = runpath.flat_map(|dir| expand(dir, &object.origin));
        let ordered: Vec<PathBuf> = match self.flavor {
            Flavor::Glibc => inherited.into_iter().chain(given).chain(runpath).collect(),
            Flavor::Musl => given.chain(inherited).collect(),
        };
        let mut seen = HashSet::new();
        ordered.into_iter().chain(self.system.directories()).filter(|dir| seen.insert(dir.clone())).collect()
    }

    /// The paths that count for an object because it or one of its loaders carries them.
    fn inherited(&self, work: &Resolution, requester: usize) -> Vec<PathBuf> {
        let mut dirs = Vec::new();
        if self.flavor == Flavor::Glibc && work.loaded[requester].image.runpath.is_some() {
            return dirs;
        }
        let mut at = Some(requester);
        // Ends: a loader's index is smaller than the index of what it loaded.
        while let Some(index) = at {
            let object = &work.loaded[index];
            let own = match (&object.image.runpath, self.flavor) {
                (None, _) => object.image.rpath.as_slice(),
                (Some(runpath), Flavor::Musl) => runpath.as_slice(),
                (Some(_), Flavor::Glibc) => &[],
            };
            dirs.extend(own.iter().flat_map(|dir| expand(dir, &object.origin)));
            at = object.loader;
        }
        dirs
    }

    /// The image at a guest path. Files for another processor are passed over, as the linker does.
    fn load(&self, path: &Path) -> Option<Image> {
        if !self.root.is_file(path) {
            return None;
        }
        Image::parse(&self.root.read(path).ok()?).ok()
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests;
