//! One process of a tree: works, forks, verifies, ends.

use crate::model::{Model, Op, Page, Shape, patch_words};
use crate::{CHECKED, ENDED, SUM, Tree};
use faultless_guest::probe::{Trap, accerr, maperr};
use faultless_guest::rng::Rng;
use faultless_guest::sys::{self, End, Errno, NONE, PAGE, RO, RW, WORDS};

/// Part of a process's past: the first `ops` operations of `node`.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub node: usize,
    pub ops: usize,
}

/// Lives as the last node of `past` and ends the process.
pub fn live(tree: &Tree, past: Vec<Step>) -> ! {
    let this = past.last().expect("a node").node;
    let shape = &tree.shape;
    let forks = shape.forks(this);
    let model = replay(shape, &past[..past.len() - 1]);
    let mut node = Node { tree, this, model, past, turns: shape.rng(this, 3) };
    let mut rng = shape.rng(this, 2);
    let mut pids = Vec::new();
    node.share(0);
    for op in 0..=shape.ops {
        for child in (0..forks.len()).filter(|child| forks[*child] == op) {
            pids.push(node.fork(child, op));
        }
        if op == shape.ops {
            break;
        }
        let next = Op::next(&mut rng, shape.all_pages(), this == 0 && op == 0);
        node.act(&next);
        node.share(op + 1);
    }
    node.end(pids);
}

/// State after all operations in `past`, from the seed.
fn replay(shape: &Shape, past: &[Step]) -> Model {
    let mut model = Model::new(shape);
    for step in past {
        let mut rng = shape.rng(step.node, 2);
        for op in 0..step.ops {
            model.apply(&Op::next(&mut rng, shape.all_pages(), step.node == 0 && op == 0));
        }
    }
    model
}

struct Node<'t> {
    tree: &'t Tree,
    this: usize,
    model: Model,
    past: Vec<Step>,
    /// When to let others run.
    turns: Rng,
}

impl Node<'_> {
    fn fork(&self, child: usize, op: usize) -> i32 {
        // SAFETY: this program has one thread.
        let pid = self.tree.report.need("fork", unsafe { sys::fork() });
        if pid == 0 {
            let mut past = self.past.clone();
            past.last_mut().expect("a node").ops = op;
            past.push(Step { node: Shape::child(self.this, child), ops: self.tree.shape.ops });
            live(self.tree, past);
        }
        pid as i32
    }

    /// Does `op` to memory and model, with all results checked.
    fn act(&mut self, op: &Op) {
        let tree = self.tree;
        let (report, memory) = (&tree.report, tree.private);
        match *op {
            Op::Map(first, count, prot) => self.map(first, count, prot),
            Op::Unmap(first, count) => report.same("munmap", memory.unmap(first, count), Ok(0)),
            Op::Protect(first, count, prot) => {
                let whole = self.model.before_hole(first, count) == count;
                let want = if whole { Ok(0) } else { Err(Errno(libc::ENOMEM)) };
                report.same("mprotect", memory.protect(first, count, prot), want);
            }
            Op::Fill(page, key) => {
                if self.writable(page) {
                    memory.fill(page, key);
                }
            }
            Op::Patch(page, seed) => {
                if self.writable(page) {
                    for (index, value) in patch_words(seed) {
                        memory.store(page * PAGE + index * 8, value);
                    }
                }
            }
            Op::Look(page) => self.verify(page),
        }
        self.model.apply(op);
        if self.turns.chance(1, 6) {
            sys::sched_yield();
        }
    }

    /// Maps a range that may lie across the border of anonymous and file pages.
    fn map(&self, first: usize, count: usize, prot: i32) {
        let (tree, border) = (self.tree, self.tree.shape.pages);
        let anonymous = border.saturating_sub(first).min(count);
        if anonymous > 0 {
            tree.report.need("mmap", tree.private.map(first, anonymous, prot));
        }
        if count > anonymous {
            let (at, flags) = (first + anonymous, libc::MAP_PRIVATE);
            let (count, fd, from) = (count - anonymous, tree.file.fd, at - border);
            let done = tree.private.map_as(at, count, prot, flags, fd, from);
            tree.report.need("mmap of the file", done);
        }
    }

    /// Whether the page may be written; if not, a store must meet its signal.
    fn writable(&self, page: usize) -> bool {
        if self.model.pages[page].prot() == Some(RW) {
            return true;
        }
        let offset = page * PAGE + page % WORDS * 8;
        let want = Err(self.trap(page, offset));
        self.tree.report.same("store", self.tree.private.try_store(offset, 0), want);
        false
    }

    fn trap(&self, page: usize, offset: usize) -> Trap {
        let addr = self.tree.private.addr(offset);
        match self.model.pages[page] {
            Page::Hole => maperr(addr),
            Page::Mapped { .. } => accerr(addr),
        }
    }

    /// Every byte of a page, or the signal that its state demands.
    fn verify(&self, page: usize) {
        let (report, memory) = (&self.tree.report, self.tree.private);
        if !matches!(self.model.pages[page].prot(), Some(RW | RO)) {
            let offset = page * PAGE + (page * 7) % PAGE;
            let want = Err(self.trap(page, offset));
            return report.same("load", memory.try_load(offset), want);
        }
        for (index, want) in self.model.pages[page].words().into_iter().enumerate() {
            let got = memory.load(page * PAGE + index * 8);
            if got != want {
                let (past, path) = (&self.past, "past");
                let what = format!("page {page}, word {index}: got {got:#x}, want {want:#x}");
                report.fail(format_args!("process {}: {what}, {path} {past:?}", self.this));
            }
        }
        let _ = self.tree.note.add(CHECKED, 1);
    }

    /// Writes this node's words of the shared pages, and sees that the old ones are there.
    fn share(&self, op: usize) {
        let Tree { shared, shape, report, .. } = self.tree;
        for page in 0..4 {
            let offset = page * PAGE + self.this * 8;
            let before = op.checked_sub(1).map_or(0, |op| shape.shared_word(self.this, page, op));
            report.same("own word in shared memory", shared.load(offset), before);
            shared.store(offset, shape.shared_word(self.this, page, op));
        }
    }

    /// Verifies everything against a fresh replay, then ends, with or without waiting.
    fn end(mut self, mut pids: Vec<i32>) -> ! {
        let Tree { shape, report, note, shared, private, .. } = self.tree;
        let mut rng = shape.rng(self.this, 4);
        let waits = rng.chance(2, 3);
        rng.shuffle(&mut pids);
        let early = rng.below(pids.len() + 1);
        if waits {
            pids[..early].iter().for_each(|pid| self.wait(*pid));
        }
        self.model = replay(shape, &self.past);
        (0..shape.all_pages()).for_each(|page| self.verify(page));
        if waits {
            pids[early..].iter().for_each(|pid| self.wait(*pid));
            // What the children did must not show, also not after their end.
            (0..shape.all_pages()).for_each(|page| self.verify(page));
        }
        let _ = note.add(SUM, self.model.digest());
        // Processes also end with less than they inherited.
        match rng.below(4) {
            0 => report.same("munmap", private.unmap(0, shape.all_pages()), Ok(0)),
            1 => report.same("munmap", shared.unmap(0, 4), Ok(0)),
            2 => drop(private.protect(0, shape.all_pages(), NONE)),
            _ => {}
        }
        let _ = note.add(ENDED, 1);
        sys::exit(0);
    }

    fn wait(&self, pid: i32) {
        let got = sys::wait(pid);
        self.tree.report.same("child", got, Ok((pid, End::Exit(0))));
    }
}
