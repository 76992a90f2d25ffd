//! The arena that every case starts from, and how results are written down.
//!
//! Called by all groups. [`Stage::reset`] gives the same 24 pages each time; [`Stage::look`]
//! draws them as a string, one letter per page.

use faultless_guest::arena::Arena;
use faultless_guest::child::Note;
use faultless_guest::object::Object;
use faultless_guest::report::Report;
use faultless_guest::sys::{self, NONE, PAGE, RO, RW, Result, SHARED_ANON};

/// First address that belongs to the kernel with 4-level tables.
pub const TOP: usize = 0x7fff_ffff_f000;
/// A canonical address of the kernel.
pub const KERNEL: usize = 0xffff_8000_0000_0000;
/// An address that is not canonical.
pub const NON_CANONICAL: usize = 0x8000_0000_0000_0000;
/// Pages of the stage.
pub const PAGES: usize = 24;

/// What the cases need.
pub struct Stage<'r> {
    /// Account of the program.
    pub report: &'r Report,
    /// Number of random calls.
    pub fuzz: usize,
    /// The arena.
    pub arena: Arena,
    /// File of four pages behind pages 8..12, open for reading and writing.
    pub file: Object,
    /// The same file, open for reading only.
    pub read_only: i32,
    /// The same file, open for writing only.
    pub write_only: i32,
    /// A page shared with children.
    pub note: Note,
}

impl<'r> Stage<'r> {
    /// Makes the file and claims the arena.
    pub fn new(report: &'r Report, fuzz: usize) -> Self {
        let path = format!("/tmp/badargs-{}\0", sys::getpid());
        let create = libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;
        let open = |flags| report.need("open a file in /tmp", open(path.as_bytes(), flags));
        let file = Object { fd: open(create), kind: "file" };
        report.need("ftruncate", file.resize(4 * PAGE));
        let (read_only, write_only) = (open(libc::O_RDONLY), open(libc::O_WRONLY));
        let at = libc::AT_FDCWD as usize;
        // SAFETY: the path is a C string.
        let gone = unsafe { sys::call(libc::SYS_unlinkat, [at, path.as_ptr() as usize, 0, 0, 0, 0]) };
        report.need("unlink", gone);
        let arena = Arena::new(20, PAGES);
        Self { report, fuzz, arena, file, read_only, write_only, note: Note::new() }
    }

    /// Brings the arena into its first state:
    /// pages 0..4 private, 5..7 read only, 7 without access, 8..12 shared file, 12..14
    /// private file read only, 15 shared anonymous; 4, 14 and 16.. are holes.
    pub fn reset(&self) {
        let (arena, need) = (self.arena, |result| self.report.need("reset", result));
        need(arena.unmap(0, PAGES));
        for page in 0..4 {
            need(self.file.fill(page, 0x11 + page as u64));
        }
        need(arena.map(0, 4, RW));
        need(arena.map(5, 2, RW));
        (0..4).chain(5..7).for_each(|page| arena.fill(page, 0x21 + page as u64));
        need(arena.protect(5, 2, RO));
        need(arena.map(7, 1, NONE));
        need(arena.map_as(8, 4, RW, libc::MAP_SHARED, self.file.fd, 0));
        need(arena.map_as(12, 2, RO, libc::MAP_PRIVATE, self.read_only, 2));
        need(arena.map_as(15, 1, RW, SHARED_ANON, -1, 0));
        arena.fill(15, 0x31);
    }

    /// One letter per page: `.` nothing, `n` no access, `b` SIGBUS, `r` and `w` read and
    /// write; capital when the page has content. Stores back what it read.
    pub fn look(&self) -> String {
        (0..PAGES).map(|page| self.letter(page)).collect()
    }

    fn letter(&self, page: usize) -> char {
        let offset = page * PAGE + PAGE / 2;
        let value = match self.arena.try_load(offset) {
            Ok(value) => value,
            Err(trap) if trap.signal == libc::SIGBUS => return 'b',
            Err(trap) if trap.code == faultless_guest::probe::SEGV_MAPERR => return '.',
            Err(_) => return 'n',
        };
        let writable = self.arena.try_store(offset, value).is_ok();
        let letter = if writable { 'w' } else { 'r' };
        if value == 0 { letter } else { letter.to_ascii_uppercase() }
    }

    /// An address by name.
    pub fn name(&self, addr: usize) -> String {
        let start = self.arena.addr(0);
        if (start..start + 4 * PAGES * PAGE).contains(&addr) {
            format!("A+{:#x}", addr - start)
        } else {
            format!("{addr:#x}")
        }
    }

    /// A result that is an address: places the kernel chose itself have no number.
    pub fn place(&self, result: Result) -> String {
        match result {
            Ok(addr) if self.name(addr).starts_with('A') => self.name(addr),
            Ok(addr) if addr.is_multiple_of(PAGE) && addr > 0 && addr < TOP => "somewhere".into(),
            Ok(addr) => format!("strange {addr:#x}"),
            Err(error) => error.to_string(),
        }
    }
}

/// A result that is a number.
pub fn number(result: Result) -> String {
    match result {
        Ok(value) => format!("{value}"),
        Err(error) => error.to_string(),
    }
}

/// Opens `path`, which ends with a zero byte.
pub fn open(path: &[u8], flags: i32) -> Result<i32> {
    assert_eq!(path.last(), Some(&0), "a C string");
    let args = [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags as usize, 0o600, 0, 0];
    // SAFETY: the path is a C string.
    unsafe { sys::call(libc::SYS_openat, args) }.map(|fd| fd as i32)
}
