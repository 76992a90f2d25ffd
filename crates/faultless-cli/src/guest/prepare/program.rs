//! The program itself: found by name or path, through its `#!` lines, down to an ELF image.
//!
//! Called by `prepare` only.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::guest::elf::Image;
use crate::guest::error::ProgramError;
use crate::guest::root::Root;
use crate::guest::script::Shebang;

/// How many scripts may run each other, as on Linux.
const MAX_SCRIPTS: usize = 4;

/// A program as the kernel will execute it.
#[derive(Debug)]
pub struct Program {
    /// Guest path of the ELF file to execute.
    pub path: PathBuf,
    /// What it asks for.
    pub image: Image,
    /// The scripts that led to it, outermost first.
    scripts: Vec<PathBuf>,
    /// Their first lines.
    pub shebangs: Vec<Shebang>,
    /// The argument vector before the user's arguments.
    leading: Vec<OsString>,
}

impl Program {
    /// Finds `name` in `root`: a path if it has a slash (relative to `here`), else a name in `search`.
    ///
    /// # Errors
    ///
    /// [`ProgramError`] if it, or an interpreter that it names, is missing or not executable.
    pub fn find(root: &Root, name: &str, here: &Path, search: &[PathBuf]) -> Result<Self, ProgramError> {
        let mut path = locate(root, name, here, search)?;
        let (mut scripts, mut shebangs) = (Vec::new(), Vec::new());
        let mut leading = vec![OsString::from(name)];
        loop {
            let data = executable(root, &path)?;
            let Some(shebang) = Shebang::parse(&data) else {
                let image = Image::parse(&data).map_err(|why| ProgramError::BadImage(path.clone(), why))?;
                return Ok(Program { path, image, scripts, shebangs, leading });
            };
            if scripts.len() == MAX_SCRIPTS {
                return Err(ProgramError::ScriptTooDeep(path));
            }
            let interpreter = here.join(&shebang.interpreter);
            if !root.is_file(&interpreter) {
                return Err(ProgramError::NoScriptInterpreter { script: path, interpreter: shebang.interpreter });
            }
            // As the kernel would: interpreter, its argument, then the script in place of argv[0].
            leading[0] = path.clone().into();
            let words = std::iter::once(&shebang.interpreter).chain(&shebang.argument);
            leading.splice(0..0, words.map(OsString::from));
            scripts.push(std::mem::replace(&mut path, interpreter));
            shebangs.push(shebang);
        }
    }

    /// Every file that the kernel or an interpreter will open to start it.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.scripts.iter().chain([&self.path]).map(PathBuf::as_path)
    }

    /// The whole argument vector.
    pub fn arguments(&self, given: &[OsString]) -> Vec<OsString> {
        self.leading.iter().chain(given).cloned().collect()
    }
}

fn locate(root: &Root, name: &str, here: &Path, search: &[PathBuf]) -> Result<PathBuf, ProgramError> {
    let looked: Vec<PathBuf> = if name.contains('/') {
        vec![here.join(without_dots(name))]
    } else {
        search.iter().map(|dir| here.join(dir).join(name)).collect()
    };
    let exists = |path: &&PathBuf| root.find(path).is_ok();
    if let Some(found) = looked.iter().find(exists) {
        return Ok(found.clone());
    }
    let mut seen = HashSet::new();
    let looked = looked.iter().map(|path| root.on_host(path)).filter(|path| seen.insert(path.clone())).collect();
    Err(ProgramError::NotFound {
        name: name.to_owned(),
        looked,
        here: Some(PathBuf::from(name)).filter(|name| root.is_file(&here.join(name))),
        inside: None,
    })
}

/// `./prog` as `prog`, so that the path reads well where it is told.
fn without_dots(name: &str) -> &str {
    name.strip_prefix("./").map_or(name, |rest| without_dots(rest.trim_start_matches('/')))
}

/// The bytes of a file that may be executed.
fn executable(root: &Root, path: &Path) -> Result<Vec<u8>, ProgramError> {
    let refused = || ProgramError::NotExecutable(path.to_owned());
    let found = root.find(path).map_err(|_| refused())?;
    let facts = fs::metadata(root.on_host(&found.target)).map_err(|_| refused())?;
    if facts.is_dir() {
        return Err(ProgramError::IsDirectory(path.to_owned()));
    }
    if !facts.is_file() || facts.permissions().mode() & 0o111 == 0 {
        return Err(refused());
    }
    root.read(path)
        .map_err(|source| ProgramError::Tree(crate::guest::tree::TreeError { path: root.on_host(path), source }))
}
