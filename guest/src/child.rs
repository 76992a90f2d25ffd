//! Child processes: run something there, learn how it ended and which fault killed it.
//!
//! Called by `badargs`, `forktree`, `sigs` and `shm`, which have one thread. What a child of
//! a program with threads may do is narrower; `storm` and `stale` use [`Note`] only.

use crate::probe::{Trap, set_handler};
use crate::sys::{self, End, PAGE, RW, SHARED_ANON};
use core::sync::atomic::{AtomicU64, Ordering};

/// How a child ended, and the fault its handler saw before it died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Death {
    /// What `wait4` said.
    pub end: End,
    /// The fault, if there was one.
    pub trap: Option<Trap>,
    /// Instruction pointer at the fault.
    pub rip: usize,
}

/// A page shared with children; each word is written by one process at a time.
///
/// Letters: (A) atomic alone. The end of a child orders its stores before the reads of
/// the parent that waited for it.
pub struct Note {
    words: &'static [AtomicU64; PAGE / 8], // (A)
}

impl Default for Note {
    fn default() -> Self {
        Self::new()
    }
}

impl Note {
    /// A zeroed page that stays for the life of the process.
    ///
    /// # Panics
    ///
    /// If the kernel has no memory.
    #[must_use]
    pub fn new() -> Self {
        // SAFETY: no address is asked for, so nothing is replaced.
        let addr = unsafe { sys::mmap(0, PAGE, RW, SHARED_ANON, -1, 0) }.expect("a shared page");
        // SAFETY: the page is mapped, zeroed, aligned, and never unmapped.
        let words = unsafe { &*(addr as *const [AtomicU64; PAGE / 8]) };
        Self { words }
    }

    /// Word `index`.
    ///
    /// # Panics
    ///
    /// If `index` is 512 or more.
    #[must_use]
    pub fn get(&self, index: usize) -> u64 {
        // Pairs with `set`: who sees the value sees what led to it.
        self.words[index].load(Ordering::Acquire)
    }

    /// Sets word `index`.
    ///
    /// # Panics
    ///
    /// If `index` is 512 or more.
    pub fn set(&self, index: usize, value: u64) {
        // Pairs with `get`.
        self.words[index].store(value, Ordering::Release);
    }

    /// Adds to word `index` and gives the sum.
    ///
    /// # Panics
    ///
    /// If `index` is 512 or more.
    #[must_use]
    pub fn add(&self, index: usize, value: u64) -> u64 {
        // Pairs with `get`.
        self.words[index].fetch_add(value, Ordering::AcqRel) + value
    }

    /// Waits until word `index` is at least `value`, giving the CPU away.
    ///
    /// # Panics
    ///
    /// If `index` is 512 or more.
    pub fn wait(&self, index: usize, value: u64) {
        // Ends when the other side sets the word; a bounded wait would fail under load.
        while self.get(index) < value {
            sys::sched_yield();
        }
    }
}

/// Runs `body` in a child and waits for it. The child exits with what `body` returns.
///
/// # Panics
///
/// If the kernel cannot fork or wait.
pub fn run(body: impl FnOnce() -> i32) -> End {
    let pid = spawn(body);
    sys::wait(pid).expect("a child to wait for").1
}

/// Runs `body` in a child and gives its process number.
///
/// # Panics
///
/// If the kernel cannot fork.
pub fn spawn(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: callers of this module have one thread, so the child is a full process.
    let pid = unsafe { sys::fork() }.expect("a child");
    if pid == 0 {
        sys::exit(body());
    }
    pid as i32
}

/// The place where the handler of a dying child writes. Process-wide, because a signal
/// handler has no other way to find it. (A)
static LAST_WORDS: AtomicU64 = AtomicU64::new(0);

/// Runs `body` in a child that is expected to die of a fault, and tells which.
///
/// The child's handler notes the fault and returns with the default action restored, so
/// that the same instruction faults again and the kernel kills the child.
///
/// # Panics
///
/// If the kernel cannot fork or wait.
#[must_use]
pub fn die_of(note: &Note, body: impl FnOnce() -> i32) -> Death {
    (0..4).for_each(|index| note.set(index, 0));
    // Read only by the child's handler, which runs after the fork.
    LAST_WORDS.store(note.words.as_ptr() as u64, Ordering::Relaxed);
    let end = run(|| {
        let flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP] {
            set_handler(signal, take_note as *const () as usize, flags);
        }
        body()
    });
    let trap = Trap { signal: note.get(0) as i32, code: note.get(1) as i32, addr: note.get(2) as usize };
    let trap = (trap.signal != 0).then_some(trap);
    Death { end, trap, rip: note.get(3) as usize }
}

extern "C" fn take_note(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    let words = LAST_WORDS.load(Ordering::Relaxed) as *const [AtomicU64; PAGE / 8];
    // SAFETY: `die_of` put the address of a page there that is never unmapped.
    let words = unsafe { &*words };
    // SAFETY: the kernel passes a valid siginfo to a SA_SIGINFO handler.
    let info = unsafe { &*info };
    // SAFETY: the signals handled here carry an address.
    let addr = unsafe { info.si_addr() };
    // SAFETY: the kernel passes a valid context too.
    let rip = unsafe { (*context).uc_mcontext.gregs[libc::REG_RIP as usize] };
    let values = [signal as u64, info.si_code as u64, addr as u64, rip as u64];
    for (word, value) in words.iter().zip(values) {
        word.store(value, Ordering::Relaxed);
    }
}
