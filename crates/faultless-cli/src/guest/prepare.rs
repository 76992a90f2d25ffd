//! From one command line to the guest's files: finds the program, what it needs, and writes the archive.
//!
//! Called by `commands::run`. Absent on purpose: knowledge of particular programs. What a program opens by itself
//! (a language's standard library, data, plug-ins) the user adds with `--file`.

mod extra;
mod program;

use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use crate::guest::archive::{self, ArchiveError};
use crate::guest::elf::Image;
use crate::guest::error::ProgramError;
use crate::guest::libraries::{Closure, Flavor, Linker};
use crate::guest::manifest::{self, Manifest};
use crate::guest::root::Root;
use crate::guest::tree::{Tree, TreeError};

pub use extra::ExtraFile;
use program::Program;

/// Where the guest's files come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// From this root only what the program needs, at the same paths. The host's own root outside of tests.
    Needed(Root),
    /// Everything below this directory.
    Whole(Root),
    /// An existing archive, unseen.
    Archive(PathBuf),
}

/// What is to be run, and from what.
#[derive(Debug, Clone)]
pub struct Request {
    /// Name or path of the program.
    pub program: String,
    /// Its arguments, without `argv[0]`.
    pub arguments: Vec<OsString>,
    /// Where the files come from.
    pub source: Source,
    /// Files to add.
    pub extra: Vec<ExtraFile>,
    /// `NAME=VALUE`, in order.
    pub environment: Vec<OsString>,
    /// The host's working directory, against which relative paths of the command line are taken.
    pub here: PathBuf,
    /// The guest's working directory, if it was given.
    pub cwd: Option<PathBuf>,
    /// Directories in which a name without a slash is looked up.
    pub search: Vec<PathBuf>,
    /// Whether the kernel writes the memory report.
    pub report: bool,
    /// Whether standard input is a terminal.
    pub tty: bool,
    /// Whether there is no standard input at all.
    pub no_input: bool,
}

/// A guest that can be started.
#[derive(Debug)]
pub struct Prepared {
    /// What the kernel is told.
    pub manifest: Manifest,
    /// All files but the manifest.
    pub tree: Tree,
    /// An archive that comes first.
    pub base: Option<PathBuf>,
    /// Things worth knowing that do not prevent the run.
    pub notices: Vec<String>,
}

/// Finds everything that the request needs.
///
/// # Errors
///
/// [`ProgramError`] says what is missing or wrong.
pub fn prepare(request: &Request) -> Result<Prepared, ProgramError> {
    let mut prepared = match &request.source {
        Source::Needed(root) => needed(request, root)?,
        Source::Whole(root) => whole(request, root)?,
        Source::Archive(path) => in_archive(request, path)?,
    };
    let cwd = PathBuf::from(&prepared.manifest.cwd);
    prepared.tree.make_directory(&cwd);
    Ok(prepared)
}

impl Prepared {
    /// Writes the archive, the manifest last, and returns its size.
    ///
    /// # Errors
    ///
    /// [`ProgramError`] names the file that could not be packed.
    pub fn write(&self, out: &mut File) -> Result<u64, ProgramError> {
        let mut tree = self.tree.clone();
        tree.put(Path::new(manifest::PATH), self.manifest.encode()?, 0o444);
        if let Some(base) = &self.base {
            let places = archive::copy_existing(base, out)?;
            archive::check_after(places, &tree)?;
        }
        archive::write(&tree, out)?;
        out.flush().and_then(|()| out.stream_position()).map_err(|error| ArchiveError::Write(error).into())
    }
}

fn needed(request: &Request, root: &Root) -> Result<Prepared, ProgramError> {
    let program = Program::find(root, &request.program, &request.here, &request.search)?;
    let mut tree = Tree::new();
    for file in program.files() {
        tree.add(root, file)?;
    }
    let linker = linker(request, root, &program.image);
    let closure = linker.closure(&program.path, &program.image);
    check_closure(&closure, &program, root)?;
    for file in &closure.files {
        tree.add(root, file)?;
    }
    let (scripts, search) = (&program.shebangs, guest_path(request));
    let notices = extra::add_with_needs(&mut tree, &request.extra, &request.here, &linker, scripts, &search)?;
    let cwd = request.cwd.clone().unwrap_or_else(|| request.here.clone());
    Ok(Prepared {
        manifest: manifest(request, program.path.clone(), program.arguments(&request.arguments), cwd),
        tree,
        base: None,
        notices,
    })
}

fn whole(request: &Request, root: &Root) -> Result<Prepared, ProgramError> {
    // Without this the program, and not the directory, would be called missing.
    let unreadable = |source| ProgramError::Given("--root", TreeError { path: root.dir().to_owned(), source });
    std::fs::read_dir(root.dir()).map_err(unreadable)?;
    let found = Program::find(root, &request.program, Path::new("/"), &request.search);
    let program = found.map_err(|error| error.inside(root.dir()))?;
    // Only what would stop the kernel is checked here; a missing library is the linker's to report, in its words.
    let mut closure = linker(request, root, &program.image).closure(&program.path, &program.image);
    closure.missing.retain(|missing| Some(&missing.name) == program.image.interpreter.as_ref());
    check_closure(&closure, &program, root)?;
    let mut tree = Tree::new();
    tree.add_whole(root)?;
    extra::add(&mut tree, &request.extra, &request.here)?;
    let cwd = request.cwd.clone().unwrap_or_else(|| "/".into());
    Ok(Prepared {
        manifest: manifest(request, program.path.clone(), program.arguments(&request.arguments), cwd),
        tree,
        base: None,
        notices: Vec::new(),
    })
}

fn in_archive(request: &Request, archive: &Path) -> Result<Prepared, ProgramError> {
    if !request.program.contains('/') {
        return Err(ProgramError::PathNeeded(request.program.clone()));
    }
    let path = Path::new("/").join(&request.program);
    let arguments = std::iter::once(request.program.clone().into()).chain(request.arguments.iter().cloned()).collect();
    let mut tree = Tree::new();
    extra::add(&mut tree, &request.extra, &request.here)?;
    let cwd = request.cwd.clone().unwrap_or_else(|| "/".into());
    Ok(Prepared {
        manifest: manifest(request, path, arguments, cwd),
        tree,
        base: Some(archive.to_owned()),
        notices: Vec::new(),
    })
}

fn manifest(request: &Request, exec: PathBuf, arguments: Vec<OsString>, cwd: PathBuf) -> Manifest {
    Manifest {
        cwd: cwd.into(),
        exec: exec.into(),
        arguments,
        environment: request.environment.clone(),
        report: request.report,
        tty: request.tty,
        no_input: request.no_input,
    }
}

/// A variable of the guest's environment.
fn variable(request: &Request, name: &str) -> Option<OsString> {
    Manifest { environment: request.environment.clone(), ..Manifest::default() }.variable(name)
}

/// Where the guest looks programs up.
fn guest_path(request: &Request) -> Vec<PathBuf> {
    std::env::split_paths(&variable(request, "PATH").unwrap_or_default()).filter(|dir| dir.is_absolute()).collect()
}

fn linker<'r>(request: &Request, root: &'r Root, image: &Image) -> Linker<'r> {
    let library_path = variable(request, "LD_LIBRARY_PATH");
    let library_path = library_path.as_ref().and_then(|value| value.to_str());
    Linker::new(root, Flavor::of(image.interpreter.as_deref()), library_path)
}

fn check_closure(closure: &Closure, program: &Program, root: &Root) -> Result<(), ProgramError> {
    if closure.missing.is_empty() {
        return Ok(());
    }
    if let Some(interpreter) = &program.image.interpreter
        && closure.missing.iter().any(|missing| &missing.name == interpreter)
    {
        return Err(ProgramError::NoInterpreter {
            program: program.path.clone(),
            interpreter: interpreter.clone(),
            root: root.dir().to_owned(),
        });
    }
    Err(ProgramError::NoLibraries(closure.missing.clone()))
}

#[cfg(test)]
mod tests;
