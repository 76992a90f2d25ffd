//! The memory that the tester shares with the processes it made: one slot each, one command at a time.
//!
//! Called by `host` and `child`. A command is handed over by a futex word that counts: whoever waits for a number sees
//! everything that was written before it. Allocates nothing after it was made, as the child must not.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::scenario::{MOST_BURST, MOST_BYTES, MOST_PROCESSES, MOST_THREADS};
use crate::view::Digest;

/// Words of a command and of an answer.
pub(super) const WORDS: usize = 12;

/// Bytes of a thread's stack. A signal's frame has to fit as well.
const STACK: usize = 32 << 10;

/// How often a thread looks whether the others are there before it lets them run.
const SPINS: u32 = 2000;

/// A command of a burst and its answer.
#[repr(C)]
pub(super) struct Task {
    /// Whose.
    pub(super) thread: AtomicU64, // (T)
    pub(super) command: [AtomicU64; WORDS], // (T)
    pub(super) answer: [AtomicU64; WORDS],  // (P) its thread
}

/// What threads of a process have besides.
#[repr(C, align(4096))]
struct Threads {
    stacks: [[AtomicU64; STACK / 8]; MOST_THREADS], // (P) its thread
    /// Bytes to be written to a file, or read from one.
    buffers: [[AtomicU64; MOST_BYTES / 8]; MOST_THREADS], // (P) its thread
    tasks: [Task; MOST_BURST],
    /// How many have begun.
    ready: AtomicU32, // (P)
    /// Not 0 while the thread is there; the kernel clears it.
    alive: [AtomicU32; MOST_THREADS], // (P)
}

/// One process's part.
///
/// Letters: (T) written by the tester between commands, (P) written by the process during one.
#[repr(C, align(4096))]
pub(super) struct Slot {
    /// Number of the last command.
    request: AtomicU32, // (T)
    /// Number of the last command that was done.
    reply: AtomicU32, // (P)
    pub(super) command: [AtomicU64; WORDS], // (T)
    pub(super) answer: [AtomicU64; WORDS],  // (P)
    /// Bytes to be written to a file, or read from one.
    bytes: [AtomicU64; MOST_BYTES / 8], // (T), (P)
    /// Two `struct iovec`: of the process's bytes, and of another's memory.
    vectors: [AtomicU64; 4], // (T)
    threads: Threads,
}

/// The mapping. It stays until the tester drops it; the processes have ended by then.
pub(super) struct Channel {
    slots: NonNull<Slot>,
}

// SAFETY: it is a mapping of shared memory whose every field is an atomic; it has no thread.
unsafe impl Send for Channel {}

const BYTES: usize = size_of::<Slot>() * MOST_PROCESSES;

impl Channel {
    pub(super) fn new() -> io::Result<Self> {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh mapping replaces nothing.
        let at = unsafe { libc::mmap(ptr::null_mut(), BYTES, prot, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let slots = NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { slots })
    }

    pub(super) fn slot(&self, number: usize) -> &Slot {
        assert!(number < MOST_PROCESSES, "no such slot");
        // SAFETY: inside the mapping.
        let at = unsafe { self.slots.as_ptr().add(number) };
        // SAFETY: zeroes are a valid slot, all fields are atomics, and the mapping outlives `self`.
        unsafe { &*at }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: our mapping, which nobody can reach any more.
        unsafe { libc::munmap(self.slots.as_ptr().cast(), BYTES) };
    }
}

impl Slot {
    /// Before a process is born: as if the last command were done.
    pub(super) fn reset(&self) {
        let last = self.request.load(Ordering::Relaxed);
        self.reply.store(last.wrapping_sub(1), Ordering::Relaxed);
    }

    /// The tester: hands a command over.
    pub(super) fn send(&self, command: &[u64; WORDS]) {
        for (word, value) in self.command.iter().zip(command) {
            word.store(*value, Ordering::Relaxed);
        }
        // Release pairs with the Acquire in `next`.
        self.request.fetch_add(1, Ordering::Release);
        wake(&self.request);
    }

    /// The tester: waits until the last command is done; false if that takes too long.
    pub(super) fn wait_done(&self, limit: Duration) -> bool {
        let last = self.request.load(Ordering::Relaxed);
        // Acquire pairs with the Release in `done`.
        let mut seen = self.reply.load(Ordering::Acquire);
        // Ends: at the limit.
        while seen != last {
            if !wait(&self.reply, seen, limit) {
                return self.reply.load(Ordering::Acquire) == last;
            }
            seen = self.reply.load(Ordering::Acquire);
        }
        true
    }

    /// The process: the number of the last command when it was born.
    pub(super) fn last(&self) -> u32 {
        self.request.load(Ordering::Relaxed)
    }

    /// The process: waits for the command after `last`; false if none came for long.
    pub(super) fn next(&self, last: u32, limit: Duration) -> bool {
        // Acquire pairs with the Release in `send`.
        while self.request.load(Ordering::Acquire) == last {
            if !wait(&self.request, last, limit) {
                return self.request.load(Ordering::Acquire) != last;
            }
        }
        true
    }

    /// The process: command `number` is done.
    pub(super) fn done(&self, number: u32) {
        // Release pairs with the Acquire in `wait_done`.
        self.reply.store(number, Ordering::Release);
        wake(&self.reply);
    }

    /// Where the bytes are, for system calls.
    pub(super) fn bytes_address(&self) -> u64 {
        self.bytes.as_ptr() as u64
    }

    /// The tester: the two `struct iovec`. Returns where they are.
    pub(super) fn set_vectors(&self, words: [u64; 4]) -> u64 {
        self.vectors.iter().zip(words).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
        self.vectors.as_ptr() as u64
    }

    /// The tester: bytes for the process.
    pub(super) fn fill(&self, value: u8) {
        self.bytes.iter().for_each(|word| word.store(u64::from_ne_bytes([value; 8]), Ordering::Relaxed));
    }

    /// The tester: the process's bytes.
    pub(super) fn bytes(&self, len: usize) -> Vec<u8> {
        let words = self.bytes.iter().take(len.div_ceil(8));
        let mut bytes: Vec<u8> = words.flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
        bytes.truncate(len);
        bytes
    }

    /// The tester: words for the process, in the bytes.
    pub(super) fn set_words(&self, words: &[u64]) {
        self.bytes.iter().zip(words).for_each(|(word, value)| word.store(*value, Ordering::Relaxed));
    }

    /// The tester: ranges of addresses for the process, in the bytes; an empty one is the last.
    pub(super) fn set_ranges(&self, ranges: &[(u64, u64)]) {
        let ends = ranges.iter().flat_map(|(start, end)| [*start, *end]).chain([0, 0]);
        for (word, end) in self.bytes.iter().zip(ends) {
            word.store(end, Ordering::Relaxed);
        }
    }

    /// The process: does one of these ranges hold the address?
    pub(super) fn ranges_hold(&self, address: u64) -> bool {
        for ends in self.bytes.chunks_exact(2) {
            let (start, end) = (ends[0].load(Ordering::Relaxed), ends[1].load(Ordering::Relaxed));
            if end == 0 {
                return false;
            }
            if (start..end).contains(&address) {
                return true;
            }
        }
        false
    }

    /// The process: a word of the bytes.
    pub(super) fn word(&self, index: usize) -> u64 {
        self.bytes[index].load(Ordering::Relaxed)
    }

    /// The process: writes a word of the bytes.
    pub(super) fn set_word(&self, index: usize, value: u64) {
        self.bytes[index].store(value, Ordering::Relaxed);
    }

    /// The process: makes its own entries for all pages of the slot, so that nothing faults later.
    pub(super) fn touch(&self) {
        self.answer[WORDS - 1].store(0, Ordering::Relaxed);
        let threads = &self.threads;
        let words = threads.stacks.iter().flatten().chain(threads.buffers.iter().flatten());
        self.bytes.iter().chain(words).step_by(256).for_each(|word| word.store(0, Ordering::Relaxed));
        self.bytes[MOST_BYTES / 8 - 1].store(0, Ordering::Relaxed);
        self.vectors[3].store(0, Ordering::Relaxed);
        threads.tasks.iter().for_each(|task| task.answer[0].store(0, Ordering::Relaxed));
        threads.alive.iter().chain([&threads.ready]).for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// The commands of a burst.
    pub(super) fn tasks(&self) -> &[Task] {
        &self.threads.tasks
    }

    /// Where a thread's bytes are, for system calls. Threads count from 1.
    pub(super) fn buffer_address(&self, thread: usize) -> u64 {
        self.threads.buffers[thread - 1].as_ptr() as u64
    }

    /// A thread: fills its bytes.
    pub(super) fn fill_buffer(&self, thread: usize, value: u8) {
        for word in &self.threads.buffers[thread - 1] {
            word.store(u64::from_ne_bytes([value; 8]), Ordering::Relaxed);
        }
    }

    /// A thread: a digest of the first of its bytes.
    pub(super) fn digest_buffer(&self, thread: usize, len: usize) -> u64 {
        let words = self.threads.buffers[thread - 1].iter();
        let mut digest = Digest::new();
        words.flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).take(len).for_each(|byte| digest.add(byte));
        digest.sum()
    }

    /// The process: one past a thread's stack.
    pub(super) fn stack_end(&self, thread: usize) -> u64 {
        self.threads.stacks[thread - 1].as_ptr_range().end as u64
    }

    /// The process: a wait that fails at once, as one for a thread that has already ended does.
    pub(super) fn wait_in_vain(&self) {
        let ready = &self.threads.ready;
        wait(ready, ready.load(Ordering::Relaxed).wrapping_add(1), Duration::ZERO);
    }

    /// The process: nobody has begun.
    pub(super) fn prepare_burst(&self) {
        self.threads.ready.store(0, Ordering::Relaxed);
    }

    /// A thread: has begun, and waits for the others.
    pub(super) fn meet(&self, threads: u32) {
        self.threads.ready.fetch_add(1, Ordering::Relaxed);
        // Ends: all threads of a burst are made, or the process ends.
        for round in 0_u32.. {
            if self.threads.ready.load(Ordering::Relaxed) >= threads {
                return;
            }
            if round < SPINS {
                std::hint::spin_loop();
            } else {
                // There may be fewer CPUs than threads.
                super::child::give_way();
            }
        }
    }

    /// The process: the word that tells of a thread, set before it is made.
    pub(super) fn announce(&self, thread: usize) -> u64 {
        let word = &self.threads.alive[thread - 1];
        word.store(1, Ordering::Relaxed);
        word.as_ptr() as u64
    }

    /// The process: waits until the thread has ended.
    pub(super) fn join(&self, thread: usize, limit: Duration) -> bool {
        let word = &self.threads.alive[thread - 1];
        // Acquire pairs with the kernel's store when the thread has ended.
        while word.load(Ordering::Acquire) != 0 {
            if !wait(word, 1, limit) {
                return word.load(Ordering::Acquire) == 0;
            }
        }
        true
    }
}

/// Sleeps while the word is `value`; false after `limit`.
fn wait(word: &AtomicU32, value: u32, limit: Duration) -> bool {
    let limit = libc::timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: i64::from(limit.subsec_nanos()) };
    let (word, limit) = (word.as_ptr(), &raw const limit);
    // SAFETY: word and limit are valid, and a futex wait changes nothing.
    let result = unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, value, limit, 0_u64, 0_u64) };
    // Allocates nothing.
    result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ETIMEDOUT)
}

fn wake(word: &AtomicU32) {
    // SAFETY: the word is valid, and a wake changes nothing.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1, 0_u64, 0_u64, 0_u64) };
}
