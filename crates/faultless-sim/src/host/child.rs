//! A process of a scenario: waits for commands and executes them.
//!
//! Entered in a child of the tester, which may have had threads: so nothing here allocates, locks or panics, and
//! processes are made by the bare system call. What the process itself needs (stack, code, its slot) is touched before
//! each measured step, so that the faults it counts are those of the step.

use std::cell::Cell;
use std::ffi::c_void;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::channel::{Channel, Slot, Task, WORDS};
use super::probe;
use super::procfs::MmMap;
use crate::arena;
use crate::scenario::MOST_THREADS;

/// Exit status of a process that lost its way; the tester reports it.
pub(super) const LOST: i32 = 113;

/// Commands; the arguments follow in the command's words.
pub(super) mod code {
    /// A system call: number, six arguments.
    pub(crate) const CALL: u64 = 1;
    /// Address, width.
    pub(crate) const LOAD: u64 = 2;
    /// Address, width, value.
    pub(crate) const STORE: u64 = 3;
    /// The child's slot.
    pub(crate) const FORK: u64 = 4;
    /// Status.
    pub(crate) const EXIT: u64 = 5;
    /// Address, pages: a digest of each readable page.
    pub(crate) const DIGEST: u64 = 6;
    /// How many tasks: the threads that have some do them at the same time.
    pub(crate) const BURST: u64 = 7;
    /// The pages of files whose bits are set in the slot's bytes leave the page tables.
    pub(crate) const DROP: u64 = 8;
}

/// Words of a command and what they mean.
pub(super) const CODE: usize = 0;
pub(super) const ARGUMENTS: usize = 1;
/// The range in which the step may make pages resident.
pub(super) const MAY_START: usize = 10;
pub(super) const MAY_END: usize = 11;

/// In a task: one more than what the thread fills its bytes with before.
pub(super) const FILL: usize = 10;
/// In a task: one more than how many of its bytes the thread tells a digest of; 1 stands for what the call returned.
pub(super) const SUM: usize = 11;

/// Words of an answer.
pub(super) const RESULT: usize = 0;
pub(super) const SIGNAL: usize = 1;
pub(super) const SIGNAL_CODE: usize = 2;
pub(super) const ADDRESS: usize = 3;
pub(super) const MINOR: usize = 4;
pub(super) const MAJOR: usize = 5;
/// In a task: the digest, and how many bytes it is of.
pub(super) const DIGEST: usize = 6;
pub(super) const DIGEST_LEN: usize = 7;

const PAGES: usize = arena::PAGES as usize;
/// Bits of an entry of /proc/self/pagemap: present, and belongs to a file or shared memory.
const PRESENT: u64 = 1 << 63;
const OF_FILE: u64 = 1 << 61;

/// What the process is.
struct Process<'c> {
    channel: &'c Channel,
    slot: &'c Slot,
    pagemap: i32,
    memory: i32,
    tester: i32,
    /// Has it made threads before? What that needs of the program is there then.
    warm: Cell<bool>,
}

/// The pages of the arena as /proc/self/pagemap has them.
type Pages = [u64; PAGES];

/// The life of a process; the first of a scenario comes here from the tester, others from `fork`.
pub(super) fn live(channel: &Channel, number: usize, tester: i32, layout: &MmMap) -> ! {
    set_limits();
    refuse_large_pages();
    place_heap(layout);
    drop_privileges();
    probe::catch();
    Process::born(channel, number, tester).serve()
}

impl<'c> Process<'c> {
    fn born(channel: &'c Channel, number: usize, tester: i32) -> Self {
        let process = Self {
            channel,
            slot: channel.slot(number),
            pagemap: open(c"/proc/self/pagemap", libc::O_RDONLY),
            memory: open(c"/proc/self/mem", libc::O_RDONLY),
            tester,
            warm: Cell::new(false),
        };
        process.slot.touch();
        touch_stack::<{ 512 << 10 }>();
        process.warm_up();
        process
    }

    /// Does once what the measured steps will do: after a fork the code itself has to be faulted in.
    fn warm_up(&self) {
        // Nothing lies at the lowest addresses.
        for width in [1, 2, 4, 8] {
            self.measured(code::LOAD, [8, width, 0, 0, 0, 0, 0]);
            self.measured(code::STORE, [8, width, 0, 0, 0, 0, 0]);
        }
        self.measured(code::CALL, [libc::SYS_getppid as u64, 0, 0, 0, 0, 0, 0]);
    }

    /// The same for what threads do, and for making them.
    fn warm_up_threads(&self) {
        self.slot.wait_in_vain();
        give_way();
        self.slot.fill_buffer(1, 0);
        black_box(self.slot.digest_buffer(1, 8));
        self.run_threads(&self.slot.tasks()[..0], [true; MOST_THREADS]);
        self.warm.set(true);
    }

    fn serve(self) -> ! {
        let mut number = self.slot.last();
        self.slot.done(number);
        loop {
            // Ends: with EXIT, or when the tester is gone.
            while !self.slot.next(number, Duration::from_secs(5)) {
                // SAFETY: signal 0 only asks.
                if unsafe { libc::kill(self.tester, 0) } != 0 {
                    exit(LOST);
                }
            }
            number = number.wrapping_add(1);
            self.execute();
            self.slot.done(number);
        }
    }

    fn argument(&self, index: usize) -> u64 {
        self.slot.command[index].load(Ordering::Relaxed)
    }

    fn set(&self, index: usize, value: u64) {
        self.slot.answer[index].store(value, Ordering::Relaxed);
    }

    fn execute(&self) {
        match self.argument(CODE) {
            code::FORK => self.fork(self.argument(ARGUMENTS) as usize),
            code::EXIT => exit(self.argument(ARGUMENTS) as i32),
            code::DIGEST => self.digest(self.argument(ARGUMENTS), self.argument(ARGUMENTS + 1)),
            code::BURST => self.burst(self.argument(ARGUMENTS) as usize),
            code::DROP => self.drop_pages(),
            code => self.measured(code, std::array::from_fn(|index| self.argument(ARGUMENTS + index))),
        }
    }

    /// A system call or an access, with the faults it took. What Linux mapped around it is taken away again.
    fn measured(&self, code: u64, arguments: [u64; 7]) {
        touch_stack::<{ 96 << 10 }>();
        let mut before = [0; PAGES];
        self.read_pages(&mut before);
        let first = faults();
        perform(code, arguments, &self.slot.answer);
        let last = faults();
        self.set(MINOR, last.0 - first.0);
        self.set(MAJOR, last.1 - first.1);
        // Also after an access that failed: fault-around may come before the signal.
        if arguments[0] == libc::SYS_mremap as u64 && code == code::CALL {
            let moved = Moved::new(&arguments, self.slot.answer[RESULT].load(Ordering::Relaxed));
            self.drop_neighbours(|page| moved.may_be_there(&before, page));
        } else {
            self.drop_outside(&before, self.argument(MAY_START)..self.argument(MAY_END));
        }
    }

    /// Threads do their tasks at the same time; the faults are those of all.
    fn burst(&self, count: usize) {
        touch_stack::<{ 96 << 10 }>();
        if !self.warm.get() {
            self.warm_up_threads();
        }
        let tasks = &self.slot.tasks()[..count];
        let has_some = |thread| tasks.iter().any(|task| task.thread.load(Ordering::Relaxed) == thread as u64);
        let first = faults();
        self.run_threads(tasks, std::array::from_fn(|index| has_some(index + 1)));
        let last = faults();
        self.set(MINOR, last.0 - first.0);
        self.set(MAJOR, last.1 - first.1);
    }

    /// Makes the threads that are `wanted` and waits until they have done their tasks.
    #[inline(never)]
    fn run_threads(&self, tasks: &[Task], wanted: [bool; MOST_THREADS]) {
        let threads = wanted.iter().filter(|wanted| **wanted).count() as u32;
        self.slot.prepare_burst();
        let seats: [Seat<'_>; MOST_THREADS] =
            std::array::from_fn(|index| Seat { slot: self.slot, tasks, thread: index + 1, threads });
        black_box(&seats);
        let wanted = |seat: &&Seat<'_>| wanted[seat.thread - 1];
        for seat in seats.iter().filter(wanted) {
            let alive = self.slot.announce(seat.thread);
            // SAFETY: the stack is the thread's own, and the seat stays until it has ended.
            if unsafe { faultless_sim_thread(self.slot.stack_end(seat.thread), (&raw const *seat).cast(), alive) } < 0 {
                exit(LOST);
            }
        }
        for seat in seats.iter().filter(wanted) {
            if !self.slot.join(seat.thread, Duration::from_secs(10)) {
                exit(LOST);
            }
        }
    }

    fn drop_pages(&self) {
        let mut own = [0; PAGES];
        self.read_pages(&mut own);
        for (page, entry) in own.iter().enumerate() {
            let chosen = self.slot.word(page / 64) >> (page % 64) & 1 != 0;
            if chosen && entry & PRESENT != 0 && entry & OF_FILE != 0 {
                drop_page(arena::address_of(page));
            }
        }
    }

    /// Undoes fault-around: pages of files that came in outside of `wanted`.
    fn drop_outside(&self, before: &Pages, wanted: std::ops::Range<u64>) {
        self.drop_neighbours(|page| before[page] & PRESENT != 0 || wanted.contains(&arena::address_of(page)));
    }

    /// The same: takes pages of files away that may not be there.
    fn drop_neighbours(&self, may_be_there: impl Fn(usize) -> bool) {
        let mut after = [0; PAGES];
        self.read_pages(&mut after);
        for (page, entry) in after.iter().enumerate() {
            if entry & PRESENT != 0 && entry & OF_FILE != 0 && !may_be_there(page) {
                drop_page(arena::address_of(page));
            }
        }
    }

    fn fork(&self, number: usize) {
        let mut pages = [0; PAGES];
        self.read_pages(&mut pages);
        // SAFETY: the process has one thread, and what follows in the child uses no lock of the library.
        let pid = unsafe { bare(libc::SYS_fork as u64, [0; 6]) };
        if pid == 0 {
            close(self.pagemap);
            close(self.memory);
            let child = Process::born(self.channel, number, self.tester);
            child.settle(&pages, self.slot);
            child.serve();
        }
        touch_stack::<{ 96 << 10 }>();
        self.set(RESULT, pid);
    }

    /// Makes those pages resident that the parent had and that Linux leaves to the child's faults: those of areas
    /// without anonymous pages. `ranges` names the areas that were left out or wiped: below an area that grows, even a look
    /// would map something.
    fn settle(&self, parent: &Pages, ranges: &Slot) {
        let mut own = [0; PAGES];
        self.read_pages(&mut own);
        for page in 0..PAGES {
            let at = arena::address_of(page);
            if parent[page] & PRESENT != 0 && own[page] & PRESENT == 0 && !ranges.ranges_hold(at) {
                let before = own;
                let mut byte = 0_u8;
                // SAFETY: one byte is read into `byte`, through the file of our own memory, which ignores rights.
                unsafe { libc::pread(self.memory, (&raw mut byte).cast(), 1, at.cast_signed()) };
                black_box(byte);
                self.drop_outside(&before, at..at + arena::PAGE);
                self.read_pages(&mut own);
            }
        }
    }

    fn digest(&self, at: u64, pages: u64) {
        for page in 0..pages {
            let sum = page_digest(at + page * arena::PAGE);
            self.slot.set_word(page as usize, sum);
        }
    }

    fn read_pages(&self, into: &mut Pages) {
        let (at, len) = (arena::START / arena::PAGE * 8, size_of::<Pages>());
        // SAFETY: `into` has `len` bytes.
        let got = unsafe { libc::pread(self.pagemap, into.as_mut_ptr().cast(), len, at.cast_signed()) };
        if got != len.cast_signed() {
            exit(LOST);
        }
    }
}

/// A thread of a burst.
struct Seat<'a> {
    slot: &'a Slot,
    tasks: &'a [Task],
    thread: usize,
    /// How many threads there are.
    threads: u32,
}

// rdi: one past the stack, rsi: the seat, rdx: the word that the kernel clears at the thread's end. The flags are VM, FS,
// FILES, SIGHAND, THREAD, SYSVSEM and CHILD_CLEARTID. The thread has its maker's thread pointer and must not use it.
std::arch::global_asm!(
    "faultless_sim_thread:",
    "  sub rdi, 16",
    "  mov [rdi], rsi",
    "  mov rsi, rdi",
    "  mov r10, rdx",
    "  xor edx, edx",
    "  xor r8d, r8d",
    "  mov edi, 0x250f00",
    "  mov eax, 56",
    "  syscall",
    "  test rax, rax",
    "  jnz 2f",
    "  xor ebp, ebp",
    "  pop rdi",
    "  add rsp, 8",
    "  call {main}",
    "  xor edi, edi",
    "  mov eax, 60",
    "  syscall",
    "2:",
    "  ret",
    main = sym thread_main,
);

unsafe extern "C" {
    fn faultless_sim_thread(stack_end: u64, seat: *const c_void, alive: u64) -> i64;
}

/// The life of a thread: nothing here may use what the library keeps for each thread.
unsafe extern "C" fn thread_main(seat: *const c_void) {
    // SAFETY: it is a seat, and the maker keeps it until the thread has ended.
    let seat = unsafe { &*seat.cast::<Seat<'_>>() };
    seat.slot.meet(seat.threads);
    for task in seat.tasks.iter().filter(|task| task.thread.load(Ordering::Relaxed) == seat.thread as u64) {
        let word = |index: usize| task.command[index].load(Ordering::Relaxed);
        if let Some(value) = word(FILL).checked_sub(1) {
            seat.slot.fill_buffer(seat.thread, value as u8);
        }
        perform(word(CODE), std::array::from_fn(|index| word(ARGUMENTS + index)), &task.answer);
        let result = task.answer[RESULT].load(Ordering::Relaxed);
        if word(SUM) != 0 && result.cast_signed() >= 0 {
            let len = if word(SUM) == 1 { result } else { word(SUM) - 1 };
            task.answer[DIGEST].store(seat.slot.digest_buffer(seat.thread, len as usize), Ordering::Relaxed);
            task.answer[DIGEST_LEN].store(len, Ordering::Relaxed);
        }
    }
}

/// A system call or an access.
fn perform(code: u64, arguments: [u64; 7], answer: &[AtomicU64; WORDS]) {
    let [a, b, c, rest @ ..] = arguments;
    let found = match code {
        // SAFETY: the tester asks for addresses where no Rust object lies, and the handler is installed.
        code::LOAD => unsafe { probe::load(a, b) },
        // SAFETY: as above.
        code::STORE => unsafe { probe::store(a, b, c) },
        _ => {
            let [d, e, f, g] = rest;
            // SAFETY: the tester asks for calls on the arena, its files and the slot's bytes only: no Rust object
            // changes.
            let value = unsafe { bare(a, [b, c, d, e, f, g]) };
            probe::Found { value, ..probe::Found::default() }
        }
    };
    let words = [(RESULT, found.value), (SIGNAL, found.signal), (SIGNAL_CODE, found.code), (ADDRESS, found.address)];
    words.iter().for_each(|(index, value)| answer[*index].store(*value, Ordering::Relaxed));
}

/// What `mremap` did.
struct Moved {
    from: u64,
    old: u64,
    to: u64,
    new: u64,
}

impl Moved {
    fn new(&[_, from, old, new, ..]: &[u64; 7], result: u64) -> Self {
        let up = |len: u64| len.checked_next_multiple_of(arena::PAGE).unwrap_or(0);
        // An error is no address of the arena.
        Self { from, old: up(old), to: result, new: up(new) }
    }

    /// May a page of a file be there now, by what was there before? What was added to a locked mapping may.
    fn may_be_there(&self, before: &Pages, page: usize) -> bool {
        let was_there = |page: usize| before[page] & PRESENT != 0;
        let offset = arena::address_of(page).wrapping_sub(self.to);
        // Where there was nothing to be moved, what was there stays.
        if offset >= self.new || was_there(page) {
            return was_there(page);
        }
        offset >= self.old || arena::page_of(self.from + offset).is_some_and(was_there)
    }
}

/// A page of a file leaves the page table.
fn drop_page(at: u64) {
    let advice = libc::MADV_DONTNEED_LOCKED as u64;
    // SAFETY: a page of the arena, and a file's: nothing is lost.
    unsafe { bare(libc::SYS_madvise as u64, [at, arena::PAGE, advice, 0, 0, 0]) };
}

/// A digest of the page at `at`, or 0 if it cannot be read.
fn page_digest(at: u64) -> u64 {
    let mut sum = 1_u64;
    for word in 0..512 {
        // SAFETY: an address of the arena, and the handler is installed.
        let found = unsafe { probe::load(at + word * 8, 8) };
        if found.signal != 0 {
            return 0;
        }
        sum = super::mix(sum, found.value);
    }
    sum
}

/// Writes to the next pages of the stack: a step, or a signal, will use them.
#[inline(never)]
fn touch_stack<const BYTES: usize>() {
    let mut space = [0_u8; BYTES];
    for at in (0..space.len()).step_by(1024) {
        space[at] = 1;
        black_box(&mut space);
    }
}

/// Minor and major faults of this process.
fn faults() -> (u64, u64) {
    // SAFETY: all-zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    (usage.ru_minflt.cast_unsigned(), usage.ru_majflt.cast_unsigned())
}

/// Lets another thread run.
pub(super) fn give_way() {
    // SAFETY: changes nothing.
    unsafe { bare(libc::SYS_sched_yield as u64, [0; 6]) };
}

/// The bare system call: what it returns, errors as negative numbers.
///
/// # Safety
///
/// That of the call.
unsafe fn bare(number: u64, arguments: [u64; 6]) -> u64 {
    let result: u64;
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the caller vouches for the call; the kernel keeps all registers but those named.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

fn open(path: &std::ffi::CStr, flags: i32) -> i32 {
    // SAFETY: the path is a string with an end.
    let fd = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) };
    if fd < 0 { exit(LOST) } else { fd }
}

fn close(fd: i32) {
    // SAFETY: a descriptor of our own that is not used any more.
    unsafe { libc::close(fd) };
}

fn exit(status: i32) -> ! {
    // SAFETY: ends the process without a look at anything.
    unsafe { libc::_exit(status) }
}

/// Sets the limits that scenarios expect, as far as that is allowed.
fn set_limits() {
    for (what, most) in [(libc::RLIMIT_STACK, super::STACK_LIMIT), (libc::RLIMIT_MEMLOCK, super::LOCK_LIMIT)] {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is valid.
        unsafe { libc::getrlimit(what, &raw mut limit) };
        limit.rlim_cur = most.min(limit.rlim_max);
        // SAFETY: as above.
        unsafe { libc::setrlimit(what, &raw const limit) };
    }
}

/// Linux makes no large pages by itself: whether it could depends on the host's settings and its free memory.
fn refuse_large_pages() {
    // SAFETY: changes how pages are made, none that is there.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// Makes the heap begin in the arena, if that is allowed. Nothing here allocates, so nobody misses the old one.
fn place_heap(layout: &MmMap) {
    let (at, len) = ((&raw const *layout).cast::<c_void>(), size_of::<MmMap>());
    // SAFETY: the kernel reads `layout`. It changes where `brk` maps, nothing that is mapped.
    unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, at, len, 0) };
}

/// Gives up what root may do to memory: scenarios are about ordinary processes.
fn drop_privileges() {
    // Version 3 of the interface, this process; then three words for each half of the sets, all empty.
    let header = [0x2008_0522_u32, 0];
    let sets = [0_u32; 6];
    // SAFETY: both are as the interface wants them, and nothing is written.
    unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
}

const _: () = assert!(MAY_END < WORDS);
