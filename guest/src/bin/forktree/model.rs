//! What each process of a tree should see, computed from the seed alone.
//!
//! Called by `node` and `main`. Nothing here touches the memory under test.

use faultless_guest::arena::{absorb, word};
use faultless_guest::rng::{Rng, mix};
use faultless_guest::sys::{NONE, PAGE, RO, RW, WORDS};

/// Most children of one node.
const FANOUT: usize = 3;
/// Longest range of one operation, in pages.
const LONGEST: usize = 16;

/// Pattern of page `page` of the file.
pub fn file_key(page: usize) -> u64 {
    mix(0xf11e_0000 + page as u64) | 1
}

/// A tree, as a function of its seed.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Seed of the tree.
    pub seed: u64,
    /// Generations below the first node.
    pub depth: usize,
    /// Private anonymous pages.
    pub pages: usize,
    /// Operations per node.
    pub ops: usize,
}

/// Nodes are numbered like a heap: child `c` of `n` is `3 n + 1 + c`.
impl Shape {
    /// Private anonymous pages and pages of the file.
    pub const fn all_pages(&self) -> usize {
        self.pages + self.pages / 2
    }

    /// Random stream of `node` for purpose `what`.
    pub fn rng(&self, node: usize, what: u64) -> Rng {
        Rng::lane(self.seed ^ (what << 48), node as u64)
    }

    /// Number of operation after which each child of `node` is forked, in order.
    pub fn forks(&self, node: usize) -> Vec<usize> {
        let mut rng = self.rng(node, 1);
        let level = Self::level(node);
        let least = usize::from(level < 2);
        let most = if level < self.depth { FANOUT } else { 0 };
        let count = if most == 0 { 0 } else { least + rng.below(most + 1 - least) };
        let mut at: Vec<usize> = (0..count).map(|_| rng.below(self.ops + 1)).collect();
        at.sort_unstable();
        at
    }

    /// Child `child` of `node`.
    pub const fn child(node: usize, child: usize) -> usize {
        node * FANOUT + 1 + child
    }

    /// Generation of `node`.
    fn level(mut node: usize) -> usize {
        let mut level = 0;
        while node > 0 {
            node = (node - 1) / FANOUT;
            level += 1;
        }
        level
    }

    /// All nodes of the tree.
    pub fn nodes(&self) -> Vec<usize> {
        let mut nodes = vec![0];
        let mut next = 0;
        while next < nodes.len() {
            let node = nodes[next];
            let children = self.forks(node).len();
            nodes.extend((0..children).map(|child| Self::child(node, child)));
            next += 1;
        }
        nodes
    }

    /// Word that `node` writes to shared page `page` in operation `op`.
    pub fn shared_word(&self, node: usize, page: usize, op: usize) -> u64 {
        mix(self.seed ^ (node << 32 | page << 24 | op) as u64)
    }

    /// The last one of these.
    pub fn last_word(&self, node: usize, page: usize) -> u64 {
        self.shared_word(node, page, self.ops)
    }
}

/// One operation on the private pages.
#[derive(Clone, Debug)]
pub enum Op {
    /// Map fresh pages (of the file, in its part) over a range.
    Map(usize, usize, i32),
    /// Unmap a range.
    Unmap(usize, usize),
    /// Protect a range.
    Protect(usize, usize, i32),
    /// Fill one page.
    Fill(usize, u64),
    /// Change some words of one page.
    Patch(usize, u64),
    /// Look at one page.
    Look(usize),
}

impl Op {
    /// The next operation of a stream. The first one of a tree maps everything.
    pub fn next(rng: &mut Rng, pages: usize, very_first: bool) -> Self {
        if very_first {
            return Self::Map(0, pages, RW);
        }
        let (first, count) = rng.range(pages, LONGEST);
        match rng.below(16) {
            0 | 1 => Self::Map(first, count, *rng.pick(&[RW, RW, RO])),
            2 => Self::Unmap(first, count),
            3 | 4 => Self::Protect(first, count, *rng.pick(&[RW, RW, RO, NONE])),
            5..=9 => Self::Fill(first, rng.next() | 1),
            10..=13 => Self::Patch(first, rng.next() | 1),
            _ => Self::Look(first),
        }
    }
}

/// What one page should be.
#[derive(Clone, Debug, PartialEq)]
pub enum Page {
    /// Nothing mapped.
    Hole,
    /// Mapped, with rights, pattern, and seeds of later patches in order.
    Mapped {
        /// Rights.
        prot: i32,
        /// Pattern of the whole page.
        key: u64,
        /// Seeds of the patches.
        patches: Vec<u64>,
    },
}

/// Words that a patch changes: (index, value).
pub fn patch_words(seed: u64) -> impl Iterator<Item = (usize, u64)> {
    let mut rng = Rng::new(seed);
    (0..4).map(move |_| (rng.below(WORDS), rng.next()))
}

impl Page {
    /// All words of the page; empty for a hole.
    pub fn words(&self) -> Vec<u64> {
        let Self::Mapped { key, patches, .. } = self else { return Vec::new() };
        let mut words: Vec<u64> = (0..WORDS).map(|index| word(*key, index)).collect();
        for (index, value) in patches.iter().flat_map(|seed| patch_words(*seed)) {
            words[index] = value;
        }
        words
    }

    /// Rights, or `None` for a hole.
    pub const fn prot(&self) -> Option<i32> {
        match self {
            Self::Hole => None,
            Self::Mapped { prot, .. } => Some(*prot),
        }
    }
}

/// The private pages of one process.
pub struct Model {
    /// Private anonymous pages, then those of the file.
    pub pages: Vec<Page>,
    /// How many of them are anonymous.
    anonymous: usize,
}

impl Model {
    /// Nothing mapped.
    pub fn new(shape: &Shape) -> Self {
        Self { pages: vec![Page::Hole; shape.all_pages()], anonymous: shape.pages }
    }

    /// Does `op`. Writes to pages that do not allow them change nothing.
    pub fn apply(&mut self, op: &Op) {
        match *op {
            Op::Map(first, count, prot) => {
                for page in first..first + count {
                    let file = page.checked_sub(self.anonymous);
                    let key = file.map_or(0, file_key);
                    self.pages[page] = Page::Mapped { prot, key, patches: Vec::new() };
                }
            }
            Op::Unmap(first, count) => self.pages[first..][..count].fill(Page::Hole),
            Op::Protect(first, count, new) => {
                let reach = self.before_hole(first, count);
                for page in &mut self.pages[first..][..reach] {
                    if let Page::Mapped { prot, .. } = page {
                        *prot = new;
                    }
                }
            }
            Op::Fill(page, value) => {
                if let Page::Mapped { prot: RW, key, patches } = &mut self.pages[page] {
                    *key = value;
                    patches.clear();
                }
            }
            Op::Patch(page, seed) => {
                if let Page::Mapped { prot: RW, patches, .. } = &mut self.pages[page] {
                    patches.push(seed);
                }
            }
            Op::Look(_) => {}
        }
    }

    /// Pages of the range before its first hole: that far mprotect goes.
    pub fn before_hole(&self, first: usize, count: usize) -> usize {
        let range = &self.pages[first..][..count];
        range.iter().position(|page| *page == Page::Hole).unwrap_or(count)
    }

    /// A number that stands for rights and content of all pages.
    pub fn digest(&self) -> u64 {
        self.pages.iter().fold(PAGE as u64, |sum, page| {
            let words = page.words().into_iter().fold(0, absorb);
            mix(sum ^ words ^ page.prot().map_or(99, |prot| prot as u64))
        })
    }
}
