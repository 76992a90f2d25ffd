//! `frames`: what a driver maps by itself, tried on the kernel's example of one, /dev/frames.
//!
//! Rows: PF-01 to PF-10, GU-04. It speaks of a device that only this kernel has, so Linux cannot judge it; what is
//! expected is what Linux does with `remap_pfn_range` and `vm_insert_page`.
//! Absent on purpose: what only a walker of the records sees; the kernel's recount at the end does that.

mod scenes;

use core::cell::Cell;
use faultless_guest::arena::Arena;
use faultless_guest::args::{Args, opt};
use faultless_guest::object::Object;
use faultless_guest::probe;
use faultless_guest::report::Report;
use faultless_guest::sys::{self, PAGE, RW};

/// Pages that have no record.
pub const KEPT: usize = 0;
/// The first page of the hole, and how many it has.
pub const HOLE: usize = 16;
/// See [`HOLE`].
pub const HOLE_PAGES: usize = 4;
/// The driver's pages by their numbers.
pub const NUMBERED: usize = 20;
/// The same pages, counted.
pub const COUNTED: usize = 28;
/// How many the driver has.
pub const OWN: usize = 8;
/// Pages of the window.
pub const PAGES: usize = 36;

/// What all scenes share.
pub struct Frames {
    report: Report,
    /// The window, open for reading and writing.
    device: Object,
    /// Three places to map it.
    views: [Arena; 3],
    /// The program has been through all scenes once: what it touches itself is there.
    warm: Cell<bool>,
}

type Scene = (&'static str, fn(&Frames));

const SCENES: &[Scene] = &[
    ("file", scenes::file),
    ("shared", scenes::shared),
    ("holes", scenes::holes),
    ("private", scenes::private),
    ("pieces", scenes::pieces),
    ("family", scenes::family),
    ("counted", scenes::counted),
    ("resized", scenes::resized),
    ("calls", scenes::calls),
    ("death", scenes::death),
];

fn main() {
    let args = Args::parse(
        "frames",
        "frames that a driver maps by number, and pages of its own",
        &[
            opt("rounds", "3", "rounds of all scenes"),
            opt("only", "all", "scenes: file,shared,holes,private,pieces,family,counted,resized,calls,death"),
        ],
    );
    let names: Vec<&str> = SCENES.iter().map(|(name, _)| *name).collect();
    args.known_parts(&names);
    let report = Report::new(&args);
    let fd = report.need("open /dev/frames", open(libc::O_RDWR));
    let frames = Frames {
        report,
        device: Object { fd, kind: "window" },
        views: [50, 51, 52].map(|slot| Arena::new(slot, 64)),
        warm: Cell::new(false),
    };
    probe::catch();
    for _ in 0..args.count("rounds") {
        for (name, scene) in SCENES.iter().filter(|(name, _)| args.wants(name)) {
            scene(&frames);
            for view in frames.views {
                frames.report.need("munmap", view.unmap(0, view.pages()));
            }
            frames.report.say(name);
        }
        frames.warm.set(true);
    }
    frames.report.finish();
}

/// Opens the window.
pub fn open(flags: i32) -> sys::Result<i32> {
    let (at, path) = (libc::AT_FDCWD as usize, c"/dev/frames".as_ptr() as usize);
    // SAFETY: the path is a C string.
    unsafe { sys::call(libc::SYS_openat, [at, path, flags as usize, 0, 0, 0]) }.map(|fd| fd as i32)
}

impl Frames {
    /// Maps `count` pages of the window from `first` on as view `view`.
    fn map(&self, view: usize, count: usize, flags: i32, first: usize) -> Arena {
        let arena = self.views[view];
        self.report.need("mmap", arena.map_as(0, count, RW, flags, self.device.fd, first));
        arena
    }

    /// Compares figures of this process that its own first steps change too.
    fn same_pages(&self, what: &str, got: usize, want: usize) {
        if self.warm.get() {
            self.report.same(what, got, want);
        }
    }

    /// Page `page` of `arena` must hold the pattern of `key`.
    fn verify(&self, what: &str, arena: Arena, page: usize, key: u64) {
        if let Err(wrong) = arena.verify(page, key) {
            self.report.fail(format_args!("{what}, page {page}: {wrong:?}"));
        }
        self.report.passed(PAGE);
        self.report.fold(key ^ page as u64);
    }

    /// Page `page` of the window, read with `pread`, must hold the pattern of `key`.
    fn verify_window(&self, what: &str, page: usize, key: u64) {
        let mut bytes = [0; PAGE];
        self.report.same("pread", self.device.read(page * PAGE, &mut bytes), Ok(PAGE));
        let right = bytes == faultless_guest::object::bytes(key);
        self.report.check(right, || format!("{what}, page {page}: pread got other bytes"));
    }

    /// Fills pages of the window through `pwrite`.
    fn fill(&self, pages: std::ops::Range<usize>, key: u64) {
        for page in pages {
            self.report.same("pwrite", self.device.fill(page, key + page as u64), Ok(PAGE));
        }
    }
}
