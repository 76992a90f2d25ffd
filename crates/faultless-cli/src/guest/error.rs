//! What can be wrong with a program and the files it needs, found before anything is started.
//!
//! Raised by `prepare`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{EXIT_OWN_FAILURE, listed};
use crate::guest::archive::ArchiveError;
use crate::guest::elf::ImageError;
use crate::guest::libraries::Missing;
use crate::guest::manifest::NulError;
use crate::guest::tree::TreeError;

/// A program that cannot be given to a guest.
#[derive(Debug)]
pub enum ProgramError {
    /// It does not exist.
    NotFound {
        /// The name or path as given.
        name: String,
        /// Where it was looked for.
        looked: Vec<PathBuf>,
        /// A file of that name in the current directory.
        here: Option<PathBuf>,
        /// The directory that was given as the guest's root.
        inside: Option<PathBuf>,
    },
    /// It is not a file with execute permission.
    NotExecutable(PathBuf),
    /// It is a directory.
    IsDirectory(PathBuf),
    /// It is not an x86-64 Linux program.
    BadImage(PathBuf, ImageError),
    /// Scripts whose interpreters are scripts, deeper than Linux goes.
    ScriptTooDeep(PathBuf),
    /// The file named by a `#!` line does not exist.
    NoScriptInterpreter {
        /// The script.
        script: PathBuf,
        /// What its first line names.
        interpreter: String,
    },
    /// The dynamic linker does not exist.
    NoInterpreter {
        /// The program.
        program: PathBuf,
        /// What `PT_INTERP` names.
        interpreter: String,
        /// Where the guest's files come from.
        root: PathBuf,
    },
    /// Libraries that the dynamic linker would not find.
    NoLibraries(Vec<Missing>),
    /// With `--initrd` the program is named by its path.
    PathNeeded(String),
    /// A file could not be read.
    Tree(TreeError),
    /// A file that this option names could not be read.
    Given(&'static str, TreeError),
    /// The archive could not be made.
    Archive(ArchiveError),
    /// A value that cannot be handed over.
    Manifest(NulError),
}

impl ProgramError {
    /// 126 for what is there and cannot be executed, 127 for what is not there, as in the shells.
    pub fn exit_code(&self) -> u8 {
        use ProgramError::*;
        match self {
            NotExecutable(_) | IsDirectory(_) | BadImage(..) | ScriptTooDeep(_) => 126,
            NotFound { .. } | NoScriptInterpreter { .. } | NoInterpreter { .. } | NoLibraries(_) => 127,
            PathNeeded(_) | Tree(_) | Given(..) | Archive(_) | Manifest(_) => EXIT_OWN_FAILURE,
        }
    }

    /// The same for a program that was looked for in a directory given as the guest's root.
    pub fn inside(mut self, root: &Path) -> Self {
        if let ProgramError::NotFound { inside, .. } = &mut self {
            *inside = Some(root.to_owned());
        }
        self
    }

    /// A short fixed name, for JSON.
    pub fn kind(&self) -> &'static str {
        use ProgramError::*;
        match self {
            NotFound { .. } => "program_not_found",
            NotExecutable(_) | IsDirectory(_) => "not_executable",
            BadImage(..) => "not_an_x86_64_program",
            ScriptTooDeep(_) => "script_too_deep",
            NoScriptInterpreter { .. } => "script_interpreter_missing",
            NoInterpreter { .. } => "dynamic_linker_missing",
            NoLibraries(_) => "libraries_missing",
            PathNeeded(_) => "path_needed",
            Tree(_) | Given(..) | Archive(_) | Manifest(_) => "files",
        }
    }

    /// What the user can do about it, if anything is known.
    pub fn help(&self) -> Option<String> {
        use ProgramError::*;
        Some(match self {
            NotFound { name, here, inside, .. } => not_found_help(name, here.as_deref(), inside.as_deref()),
            NotExecutable(path) => format!("make it executable: chmod +x {}", path.display()),
            IsDirectory(_) => "name a program".into(),
            BadImage(path, why) => image_help(path, *why),
            ScriptTooDeep(_) => "run the innermost interpreter directly".into(),
            NoScriptInterpreter { interpreter, .. } => {
                format!("install {interpreter}, or correct the script's first line")
            }
            NoInterpreter { interpreter, root, .. } => interpreter_help(interpreter, root),
            NoLibraries(_) => "install them, or add their directory: --file DIR --env LD_LIBRARY_PATH=DIR".into(),
            PathNeeded(name) => format!("for example /bin/{name}"),
            Archive(ArchiveError::NotCpio(..)) => {
                "give an uncompressed one (gunzip -c, unxz -c and zstd -dc make it), or a directory with --root".into()
            }
            Given(option, error) => return file_help(option, error),
            Archive(ArchiveError::Read(path, error)) if error.kind() == io::ErrorKind::NotFound => {
                format!("check the path {}", path.display())
            }
            Archive(ArchiveError::Damaged(path, _)) => {
                format!("make it again, or compare it with its source: cpio --list < {}", path.display())
            }
            Archive(ArchiveError::Collides(..)) => {
                "links in the archive are not followed: give --file and --cwd the path behind them".into()
            }
            Tree(_) | Archive(_) | Manifest(_) => return None,
        })
    }
}

fn not_found_help(name: &str, here: Option<&Path>, inside: Option<&Path>) -> String {
    if let Some(root) = inside {
        return format!("with --root a program is named as in the guest, where {} is /", root.display());
    }
    match here {
        Some(path) => format!("there is one in the current directory: ./{}", path.display()),
        None if name.contains('/') => {
            "check the path; for a program of another system give its root: --root DIR".into()
        }
        None => "install it, or give its path".into(),
    }
}

/// What to do about a file of the command line.
fn file_help(option: &str, error: &TreeError) -> Option<String> {
    let path = error.path.display().to_string();
    match error.source.kind() {
        io::ErrorKind::NotFound => Some(match path.rsplit_once(':') {
            Some((host, guest)) if option == "--file" => {
                format!(
                    "check the path; if {guest} is meant as its place in the guest, begin it with a slash: {host}:/{guest}"
                )
            }
            _ => format!("check the path given with {option}"),
        }),
        io::ErrorKind::PermissionDenied => Some("run it as a user who may read this".into()),
        io::ErrorKind::NotADirectory => Some(format!("check the path given with {option}: a directory is needed")),
        _ => None,
    }
}

fn image_help(path: &Path, why: ImageError) -> String {
    match why {
        ImageError::NotElf => {
            format!("if it is a shell script, run: faultless run --file {0} /bin/sh {0}", path.display())
        }
        ImageError::Class32 => "build it for 64 bits; 32-bit programs are not supported".into(),
        _ => "give a program for x86-64 Linux".into(),
    }
}

fn interpreter_help(interpreter: &str, root: &Path) -> String {
    let place = match root.to_str() {
        Some("/") => "on this machine".to_owned(),
        _ => format!("in {}", root.display()),
    };
    format!("install the C library that brings {interpreter} {place}, or link the program statically")
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use ProgramError::*;
        match self {
            NotFound { name, looked, .. } => {
                write!(f, "{name} was not found. Looked for:{}", listed(looked))
            }
            NotExecutable(path) => write!(f, "{} is not an executable file", path.display()),
            IsDirectory(path) => write!(f, "{} is a directory", path.display()),
            BadImage(path, why) => write!(f, "{} cannot run here: {why}", path.display()),
            ScriptTooDeep(path) => {
                write!(f, "{} is a script run by scripts, deeper than Linux goes", path.display())
            }
            NoScriptInterpreter { script, interpreter } => {
                write!(f, "{} asks for {interpreter}, which does not exist", script.display())
            }
            NoInterpreter { program, interpreter, root } => {
                let (program, root) = (program.display(), root.display());
                write!(f, "{program} asks for the dynamic linker {interpreter}, which is not below {root}")
            }
            NoLibraries(missing) => libraries(f, missing),
            PathNeeded(name) => {
                write!(f, "with --initrd a program is named by its path in the archive, not as {name}")
            }
            Tree(error) | Given(_, error) => write!(f, "cannot pack {error}"),
            Archive(error) => error.fmt(f),
            Manifest(error) => write!(f, "cannot be handed to the guest: {error}"),
        }
    }
}

fn libraries(f: &mut fmt::Formatter<'_>, missing: &[Missing]) -> fmt::Result {
    for (index, library) in missing.iter().enumerate() {
        let line = if index > 0 { "\n" } else { "" };
        let (name, by) = (&library.name, library.needed_by.display());
        let searched = listed(&library.searched);
        write!(f, "{line}{name} was not found, which {by} needs. Searched:{searched}")?;
    }
    Ok(())
}

impl std::error::Error for ProgramError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ProgramError::BadImage(_, error) => Some(error),
            ProgramError::Tree(error) | ProgramError::Given(_, error) => Some(error),
            ProgramError::Archive(error) => Some(error),
            ProgramError::Manifest(error) => Some(error),
            _ => None,
        }
    }
}

impl From<TreeError> for ProgramError {
    fn from(error: TreeError) -> Self {
        ProgramError::Tree(error)
    }
}

impl From<ArchiveError> for ProgramError {
    fn from(error: ArchiveError) -> Self {
        ProgramError::Archive(error)
    }
}

impl From<NulError> for ProgramError {
    fn from(error: NulError) -> Self {
        ProgramError::Manifest(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_shells() {
        assert_eq!(ProgramError::NotExecutable("x".into()).exit_code(), 126);
        assert_eq!(ProgramError::IsDirectory("x".into()).exit_code(), 126);
        assert_eq!(ProgramError::NoLibraries(vec![]).exit_code(), 127);
        assert_eq!(ProgramError::PathNeeded("x".into()).exit_code(), 125);
    }

    #[test]
    fn a_missing_file_comes_with_the_option_that_named_it() {
        let missing = |path: &str| TreeError { path: path.into(), source: io::ErrorKind::NotFound.into() };
        let help = |option, path| ProgramError::Given(option, missing(path)).help().expect("help");
        assert_eq!(help("--root", "/x"), "check the path given with --root");
        assert!(help("--file", "/x:rel/y").ends_with("begin it with a slash: /x:/rel/y"));
        assert_eq!(help("--file", "/x"), "check the path given with --file");
    }

    #[test]
    fn a_program_that_is_not_there_comes_with_what_fits() {
        let help = |name: &str, root: Option<&str>| not_found_help(name, None, root.map(Path::new));
        assert!(help("/bin/ls", Some("/srv/root")).contains("where /srv/root is /"));
        assert!(!help("ls", None).contains("--root"));
        assert!(help("./ls", None).contains("check the path"));
    }

    #[test]
    fn a_missing_library_is_named_with_the_places() {
        let error = ProgramError::NoLibraries(vec![Missing {
            name: "libx.so.1".into(),
            needed_by: "/bin/p".into(),
            searched: vec!["/lib".into(), "/usr/lib".into()],
        }]);
        assert_eq!(error.to_string(), "libx.so.1 was not found, which /bin/p needs. Searched:\n    /lib\n    /usr/lib");
    }

    #[test]
    fn a_wrong_file_comes_with_the_right_next_step() {
        let help = |why| ProgramError::BadImage("/x".into(), why).help().expect("help");
        assert!(help(ImageError::NotElf).ends_with("--file /x /bin/sh /x"));
        assert!(help(ImageError::Class32).contains("64 bits"));
        let missing = ProgramError::NoInterpreter {
            program: "/bin/p".into(),
            interpreter: "/lib/ld.so".into(),
            root: "/".into(),
        };
        assert!(missing.help().expect("help").contains("/lib/ld.so on this machine"));
    }
}
