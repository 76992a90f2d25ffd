//! `forktree`: trees of processes that touch, write, protect and unmap what they inherited.
//!
//! Each node of the tree knows every byte it should see: it replays the operations of all
//! its ancestors (up to the moment of each fork) and its own from the seed, so the record
//! does not depend on the memory that is tested. Nodes end in any order, some before their
//! children. Rows: FK-01, FK-02, FK-03, CW-01, CW-05, SH-01..SH-13, AC-01, VM-12, VM-13.
//! Absent on purpose: threads (`storm`).

mod model;
mod node;

use faultless_guest::arena::Arena;
use faultless_guest::args::{Args, opt};
use faultless_guest::child::Note;
use faultless_guest::object::Object;
use faultless_guest::probe;
use faultless_guest::report::Report;
use faultless_guest::rng::mix;
use faultless_guest::sys::{self, End, Errno, PAGE, RW, SHARED_ANON};
use model::Shape;

/// Word of the note: nodes that ended well.
const ENDED: usize = 0;
/// Word of the note: sum over the nodes of what they verified.
const SUM: usize = 1;
/// Word of the note: pages verified.
const CHECKED: usize = 2;

/// What all nodes of a tree share.
struct Tree {
    report: Report,
    note: Note,
    /// Private anonymous pages, then pages of the private file mapping.
    private: Arena,
    /// One word per node and page, shared by all.
    shared: Arena,
    file: Object,
    shape: Shape,
}

fn main() {
    let args = Args::parse(
        "forktree",
        "trees of processes that write, protect and unmap what they inherited",
        &[
            opt("depth", "4", "generations below the first process, at most 4"),
            opt("pages", "64", "private pages; half as many of a file on top"),
            opt("ops", "60", "operations per process"),
            opt("rounds", "6", "trees, one after the other"),
        ],
    );
    let pages = args.count("pages").clamp(4, 4096);
    let report = Report::new(&args);
    probe::catch();
    let file = report.need("object", Object::new(pages / 2 * PAGE));
    (0..pages / 2).for_each(|page| {
        report.need("pwrite", file.fill(page, model::file_key(page)));
    });
    let shape = Shape { seed: 0, depth: args.count("depth").min(4), pages, ops: args.count("ops") };
    let mut tree = Tree {
        private: Arena::new(30, shape.all_pages()),
        shared: Arena::new(31, 4),
        note: Note::new(),
        report,
        file,
        shape,
    };
    for round in 0..args.count("rounds") {
        tree.shape.seed = mix(tree.report.seed() ^ ((round as u64) << 32));
        tree.run();
    }
    tree.report.finish();
}

impl Tree {
    /// Grows one tree and waits until all of it is gone.
    fn run(&self) {
        let Self { report, note, shape, .. } = self;
        (0..8).for_each(|index| note.set(index, 0));
        report.need("munmap", self.private.unmap(0, shape.all_pages()));
        report.need("mmap", self.shared.map_as(0, 4, RW, SHARED_ANON, -1, 0));
        let (end, alive) = report.need("pipe", sys::pipe());
        // The first node is a child too, so that the root outlives all others: where it is
        // the first process of the system, its end would end them.
        // SAFETY: this program has one thread.
        let pid = report.need("fork", unsafe { sys::fork() });
        if pid == 0 {
            sys::close(end);
            node::live(self, vec![node::Step { node: 0, ops: shape.ops }]);
        }
        sys::close(alive);
        // Nobody writes: the read ends when the last process has closed its end.
        report.same("end of the pipe", sys::read(end, &mut [0]), Ok(0));
        sys::close(end);
        self.reap();
        let nodes = shape.nodes();
        report.same("processes that ended well", note.get(ENDED), nodes.len() as u64);
        for node in &nodes {
            for page in 0..4 {
                let got = self.shared.load(page * PAGE + node * 8);
                report.same("word of a process in shared memory", got, shape.last_word(*node, page));
            }
        }
        report.fold(note.get(SUM));
        report.passed(note.get(CHECKED) as usize * PAGE);
        report.say(format_args!("tree of {} processes, seed {:#x}", nodes.len(), shape.seed));
        report.need("munmap", self.shared.unmap(0, 4));
    }

    /// Collects children until there are none; where this is the first process of the
    /// system, that includes all orphans.
    fn reap(&self) {
        loop {
            match sys::wait(-1) {
                Ok((pid, end)) => {
                    let what = || format!("process {pid} ended by {end:?}");
                    self.report.check(end == End::Exit(0), what);
                }
                Err(Errno(libc::ECHILD)) => return,
                Err(error) => self.report.fail(format_args!("wait: {error}")),
            }
        }
    }
}
