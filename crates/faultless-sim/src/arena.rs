//! The addresses that scenarios are about: the same on the host and here.
//!
//! Called by all rooms. On the host nothing else lies there; it is far from where programs, libraries and stacks go.

/// Bytes in a page.
pub const PAGE: u64 = 4096;
/// Pages of the arena: four leaf tables.
pub const PAGES: u64 = 2048;
/// Bytes of the arena.
pub const SIZE: u64 = PAGES * PAGE;
/// A border of everything: page tables of all levels, and the stripes of the address space.
pub const MIDDLE: u64 = 16 << 40;
/// First byte.
pub const START: u64 = MIDDLE - SIZE / 2;
/// One past the last byte.
pub const END: u64 = START + SIZE;

/// Where the heap of a scenario's first process begins: below the border, so that it can grow across.
pub const HEAP: u64 = MIDDLE - 124 * PAGE;

/// Pages in a row that belong to the same thread while several work.
pub const CHUNK: u64 = 8;

/// The thread that may work at `start..start + len` while others do: its pages are in one chunk, and chunks take turns.
/// `None` if they are not in one.
#[must_use]
pub fn owner_of(start: u64, len: u64) -> Option<usize> {
    let chunk = |address: u64| (address - START) / (CHUNK * PAGE);
    let end = start.checked_add(len.max(1))?;
    (holds(start, len.max(1)) && chunk(start) == chunk(end - 1))
        .then(|| 1 + chunk(start) as usize % crate::scenario::MOST_THREADS)
}

/// Does all of `start..start + len` lie in the arena?
#[must_use]
pub fn holds(start: u64, len: u64) -> bool {
    (START..END).contains(&start) && len <= END - start
}

/// The number of the page of an address inside the arena.
#[must_use]
pub fn page_of(address: u64) -> Option<usize> {
    (START..END).contains(&address).then(|| ((address - START) / PAGE) as usize)
}

/// The address of a page by its number.
#[must_use]
pub fn address_of(page: usize) -> u64 {
    START + page as u64 * PAGE
}
