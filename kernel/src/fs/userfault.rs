//! `userfaultfd`: faults of a process as messages, and the threads that wait for answers.
//!
//! Called by faultless as a [`Watcher`], by open files, and by the run loop for threads whose access was reported. The
//! requests themselves are `faultless_linux`'s; the structures in user memory are read in `syscall::userfault`.
//!
//! A thread does not wait inside the kernel: the fault that was reported ends with its ticket noted for the CPU
//! ([`take_waiting`]), and the run loop parks the thread on it. When the ticket is woken, or a signal comes, the
//! instruction or the system call is executed again.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use faultless::{Access, FaultError, PAGE_SIZE, PageRange, RangeEvent, Report, Ticket, VirtAddr, Waiting, Watcher};
use faultless_linux::calls::userfaultfd;
use linux_raw_sys::general as linux;

use super::poll::Readiness;
use super::{Body, Inode, OnExec, OpenFile};
use crate::arch::local::Padded;
use crate::arch::{CpuLocal, MAX_CPUS, local};
use crate::errno::Errno;
use crate::process::Memory;
use crate::sched::{Thread, WaitQueue};
use crate::sync::Lock;
use crate::uaccess::{Layout, Sink};

/// Size of `struct uffd_msg`.
const MESSAGE: usize = 32;
/// In `features`: `UFFDIO_API` was done.
const INITIALIZED: u64 = 1 << 63;

/// What is behind a `userfaultfd`.
///
/// Letters: (I) fixed, (A) atomic alone, (L) behind its lock, which is never held while user memory is touched.
pub struct Userfault {
    me: Weak<Userfault>,        // (I)
    memory: Lock<Weak<Memory>>, // (L) whose faults; a forked one's is told once it exists
    flags: u32,                 // (I) of the call that made it
    features: AtomicU64,        // (A) once set, for ever
    closed: AtomicBool,         // (A) once true, for ever
    tickets: Lock<Tickets>,     // (L)
    /// Woken when there is something to read.
    readable: WaitQueue,
    /// Woken when a ticket is.
    answered: WaitQueue,
}

#[derive(Default)]
struct Tickets {
    next: u64,
    /// By number, so in the order of the faults.
    all: BTreeMap<u64, Entry>,
    /// What happened to ranges and was not read yet, numbered with the faults.
    events: VecDeque<(u64, Happened)>,
}

/// What a reader is told besides faults.
#[derive(Clone)]
enum Happened {
    /// To a range, or to a mapping.
    Range(RangeEvent),
    /// The process forked, and this watches the child.
    Forked(Arc<Userfault>),
}

/// What a read takes next.
enum Unread {
    Fault(u64, Report, i32),
    Event(u64, Happened),
}

struct Entry {
    report: Report,
    /// The thread whose access it was.
    thread: i32,
    /// The thread waits, so its message can be read. Before it does, it has looked whether it must: a message that could
    /// be read earlier might tell of a page that has been put in since.
    waits: bool,
    /// A read has taken its message.
    read: bool,
    /// It waits no more.
    woken: bool,
}

impl Entry {
    /// Is there a message to be read?
    fn is_unread(&self) -> bool {
        self.waits && !self.read && !self.woken
    }
}

/// A thread's wait for an answer.
pub struct Waiter {
    userfault: Arc<Userfault>,
    ticket: Ticket,
}

/// The ticket of the last access on each CPU that was reported and may have to wait.
static WAITING: [Lock<Option<Waiter>>; MAX_CPUS] = [const { Lock::new(None) }; MAX_CPUS];

/// A watcher, and the one that a fork has made of it.
type Heir = (Arc<Userfault>, Arc<Userfault>);
/// A watcher, and what it is told of.
type Cause = (Arc<Userfault>, u64);

/// Watchers that the fork under way on each CPU has made, and of which ones.
static HEIRS: [Lock<Vec<Heir>>; MAX_CPUS] = [const { Lock::new(Vec::new()) }; MAX_CPUS];

/// What the call under way on each CPU has caused, and whether there is any.
static CAUSED: [Lock<Vec<Cause>>; MAX_CPUS] = [const { Lock::new(Vec::new()) }; MAX_CPUS];
static HAS_CAUSED: [Padded<AtomicBool>; MAX_CPUS] = [const { Padded(AtomicBool::new(false)) }; MAX_CPUS];

/// The thread that runs on each CPU, for messages.
static RUNNING: [Padded<AtomicI32>; MAX_CPUS] = [const { Padded(AtomicI32::new(0)) }; MAX_CPUS];

/// Notes which thread runs on this CPU from now on.
pub fn note_running(thread: i32) {
    RUNNING[local::index()].0.store(thread, Ordering::Relaxed);
}

/// Events that a call has caused, and what it returns once they have been read.
pub struct Caused {
    result: i64,
    events: Vec<(Arc<Userfault>, u64)>,
}

/// What the call that has just ended on this CPU has caused.
#[inline]
pub fn take_caused(result: i64) -> Option<Caused> {
    let cpu = local::index();
    if !HAS_CAUSED[cpu].0.load(Ordering::Relaxed) {
        return None;
    }
    HAS_CAUSED[cpu].0.store(false, Ordering::Relaxed);
    Some(Caused { result, events: core::mem::take(&mut *CAUSED[cpu].lock()) })
}

impl Caused {
    /// The call's result, if all was read; else the thread is woken when that may be so.
    pub fn poll(&self, thread: &Arc<Thread>) -> Option<i64> {
        self.events.iter().for_each(|(userfault, _)| userfault.answered.register(thread));
        self.events.iter().all(|(userfault, number)| userfault.is_read(*number)).then_some(self.result)
    }
}

/// The fork on this CPU is done: its child's watchers are told whose faults they get, and the parent's readers of them. If
/// there is no child, they are forgotten.
pub fn settle_heirs(child: Option<&Arc<Memory>>) {
    let heirs = core::mem::take(&mut *HEIRS[local::index()].lock());
    let Some(child) = child else { return };
    for (parent, heir) in heirs {
        *heir.memory.lock() = Arc::downgrade(child);
        if parent.is_closed() {
            heir.close();
        } else {
            parent.note(Happened::Forked(heir));
        }
    }
}

/// Hands a message over.
fn put(cpu: &mut CpuLocal, to: &mut dyn Sink, message: &Layout) -> Result<(), Errno> {
    if to.put(cpu, message.as_bytes()) == MESSAGE { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Gives the reader a descriptor of a child's watcher.
fn hand_over(cpu: &mut CpuLocal, to: &mut dyn Sink, heir: &Arc<Userfault>) -> Result<(), Errno> {
    let process = cpu.thread.as_ref().map(|thread| thread.process.clone()).ok_or(Errno::EFAULT)?;
    let inode = Inode::new(Body::Userfault(heir.clone()), 0o600);
    let on_exec = OnExec::closing_if(heir.flags & linux::O_CLOEXEC != 0);
    let file = OpenFile::new(inode, linux::O_RDONLY | heir.flags & linux::O_NONBLOCK)?;
    let (files, limit) = (process.files(), process.limit(linux::RLIMIT_NOFILE as usize));
    let fd = files.add(file, on_exec, 0, limit)?;
    let message =
        Layout::new().bytes(&[linux::UFFD_EVENT_FORK as u8]).zeroes(7).u64(u64::from(fd.cast_unsigned())).zeroes(16);
    put(cpu, to, &message)
}

/// The message of an event.
fn range_message(event: RangeEvent) -> Layout {
    let (number, words) = match event {
        RangeEvent::Removed(range) => (linux::UFFD_EVENT_REMOVE, [range.start(), range.end(), VirtAddr::new(0)]),
        RangeEvent::Unmapped(range) => (linux::UFFD_EVENT_UNMAP, [range.start(), range.end(), VirtAddr::new(0)]),
        RangeEvent::Moved { from, to } => (linux::UFFD_EVENT_REMAP, [from.start(), to, VirtAddr::new(from.len())]),
    };
    let message = Layout::new().bytes(&[number as u8]).zeroes(7);
    words.into_iter().fold(message, |message, word| message.u64(word.as_u64()))
}

/// Takes the ticket of the access that has just failed on this CPU.
pub fn take_waiting() -> Option<Waiter> {
    WAITING[local::index()].lock().take()
}

impl Waiter {
    /// Registers the running thread: it is woken with the ticket.
    pub fn register(&self, thread: &Arc<Thread>) {
        self.userfault.answered.register(thread);
    }

    /// Was the ticket woken?
    pub fn is_over(&self) -> bool {
        let tickets = self.userfault.tickets.lock();
        tickets.all.get(&self.ticket.0).is_none_or(|entry| entry.woken)
    }

    /// Are accesses by the kernel not answered?
    pub fn is_user_mode_only(&self) -> bool {
        self.userfault.flags & linux::UFFD_USER_MODE_ONLY != 0
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.userfault.withdraw(self.ticket);
    }
}

impl Userfault {
    /// One for the faults of `memory`.
    pub fn new(memory: &Arc<Memory>, flags: u32) -> Arc<Userfault> {
        Self::make(Arc::downgrade(memory), flags, 0)
    }

    fn make(memory: Weak<Memory>, flags: u32, features: u64) -> Arc<Userfault> {
        Arc::new_cyclic(|me| Userfault {
            me: me.clone(),
            memory: Lock::new(memory),
            flags,
            features: AtomicU64::new(features),
            closed: AtomicBool::new(false),
            tickets: Lock::new(Tickets::default()),
            readable: WaitQueue::new(),
            answered: WaitQueue::new(),
        })
    }

    /// Whose faults; `None` if they are gone.
    pub fn memory(&self) -> Option<Arc<Memory>> {
        self.memory.lock().upgrade()
    }

    /// It, as faultless knows it.
    ///
    /// # Panics
    ///
    /// Never: whoever calls has a reference.
    pub fn watcher(&self) -> Arc<dyn Watcher> {
        self.me.upgrade().expect("alive while it is used")
    }

    /// Was `UFFDIO_API` done?
    pub fn is_initialized(&self) -> bool {
        self.features.load(Ordering::Relaxed) != 0
    }

    /// `UFFDIO_API`: chooses features. False the second time.
    pub fn initialize(&self, features: u64) -> bool {
        let chosen = features | INITIALIZED;
        self.features.compare_exchange(0, chosen, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The last descriptor is gone: nobody will answer, so nobody waits.
    pub fn close(&self) {
        // Release, and the lock below: a fault that still announces itself sees it at its second look.
        self.closed.store(true, Ordering::Release);
        let unread = {
            let mut tickets = self.tickets.lock();
            tickets.all.values_mut().for_each(|entry| entry.woken = true);
            core::mem::take(&mut tickets.events)
        };
        // Nobody will ever have a descriptor of a child's.
        for (_, happened) in unread {
            if let Happened::Forked(heir) = happened {
                heir.close();
            }
        }
        self.answered.wake_all();
    }

    /// Takes messages, as many as fit.
    ///
    /// # Errors
    ///
    /// `EINVAL` before `UFFDIO_API` or if not one fits, `EAGAIN`, `EFAULT`.
    pub fn read(&self, cpu: &mut CpuLocal, to: &mut dyn Sink) -> Result<usize, Errno> {
        if !self.is_initialized() || to.room() < MESSAGE {
            return Err(Errno::EINVAL);
        }
        let mut done = 0;
        while to.room() >= MESSAGE {
            let Some(unread) = self.next_unread() else { break };
            let result = match &unread {
                Unread::Fault(_, report, thread) => put(cpu, to, &self.fault_message(report, *thread)),
                Unread::Event(_, Happened::Range(event)) => put(cpu, to, &range_message(*event)),
                Unread::Event(_, Happened::Forked(heir)) => hand_over(cpu, to, heir),
            };
            self.finish_read(unread, result.is_ok());
            match result {
                Ok(()) => done += MESSAGE,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        if done > 0 { Ok(done) } else { Err(Errno::EAGAIN) }
    }

    /// What comes first, of faults and events together: no fault is told before the removal that caused it.
    fn next_unread(&self) -> Option<Unread> {
        let mut tickets = self.tickets.lock();
        let event = tickets.events.front().map_or(u64::MAX, |(number, _)| *number);
        let fault = tickets.all.iter_mut().find(|(_, entry)| entry.is_unread());
        if let Some((number, entry)) = fault.filter(|(number, _)| **number < event) {
            entry.read = true;
            return Some(Unread::Fault(*number, entry.report, entry.thread));
        }
        // Taken for now, so that no other reader gets it too.
        tickets.events.pop_front().map(|(number, happened)| Unread::Event(number, happened))
    }

    /// What was not delivered is for the next read; whoever waits for an event to be read goes on.
    fn finish_read(&self, unread: Unread, delivered: bool) {
        match unread {
            Unread::Event(..) if delivered => self.answered.wake_all(),
            Unread::Event(number, happened) => self.tickets.lock().events.push_front((number, happened)),
            Unread::Fault(..) if delivered => {}
            Unread::Fault(number, ..) => {
                if let Some(entry) = self.tickets.lock().all.get_mut(&number) {
                    entry.read = false;
                }
            }
        }
    }

    fn has(&self, feature: u32) -> bool {
        self.features.load(Ordering::Relaxed) & u64::from(feature) != 0
    }

    fn fault_message(&self, report: &Report, thread: i32) -> Layout {
        let address = if self.has(linux::UFFD_FEATURE_EXACT_ADDRESS) { report.addr } else { report.addr.align_down() };
        let thread = if self.has(linux::UFFD_FEATURE_THREAD_ID) { thread } else { 0 };
        Layout::new()
            .bytes(&[linux::UFFD_EVENT_PAGEFAULT as u8])
            .zeroes(7)
            .u64(userfaultfd::message_flags(report))
            .u64(address.as_u64())
            .u64(u64::from(thread.cast_unsigned()))
    }

    /// Has something happened to its ranges that nobody has read yet? Then nothing is put in, as on Linux.
    pub fn is_changing(&self) -> bool {
        !self.tickets.lock().events.is_empty()
    }

    /// Notes an event; the thread that caused it waits, after its call, until somebody has read it.
    fn note(&self, happened: Happened) {
        let number = {
            let mut tickets = self.tickets.lock();
            let number = tickets.next;
            tickets.next += 1;
            tickets.events.push_back((number, happened));
            number
        };
        if let Some(userfault) = self.me.upgrade() {
            let cpu = local::index();
            CAUSED[cpu].lock().push((userfault, number));
            HAS_CAUSED[cpu].0.store(true, Ordering::Relaxed);
        }
        self.readable.wake_all();
    }

    /// Was the event read, or will it never be? One that a reader has taken and not delivered yet is not over, but
    /// nobody can tell the difference.
    fn is_read(&self, number: u64) -> bool {
        self.is_closed() || !self.tickets.lock().events.iter().any(|(other, _)| *other == number)
    }

    /// What `poll` says. As on Linux, a descriptor whose reads may wait is not to be polled.
    pub fn readiness(&self, nonblocking: bool) -> Readiness {
        if !self.is_initialized() || !nonblocking {
            return Readiness::ERR;
        }
        let unread = {
            let tickets = self.tickets.lock();
            !tickets.events.is_empty() || tickets.all.values().any(Entry::is_unread)
        };
        if unread { Readiness::IN } else { Readiness::NONE }
    }

    /// Where a thread waits for messages.
    pub fn queue(&self) -> &WaitQueue {
        &self.readable
    }
}

impl Watcher for Userfault {
    fn announce(&self, report: &Report) -> Ticket {
        let thread = RUNNING[local::index()].0.load(Ordering::Relaxed);
        let mut tickets = self.tickets.lock();
        let number = tickets.next;
        tickets.next += 1;
        tickets.all.insert(number, Entry { report: *report, thread, waits: false, read: false, woken: false });
        Ticket(number)
    }

    fn withdraw(&self, ticket: Ticket) {
        self.tickets.lock().all.remove(&ticket.0);
    }

    fn wait(&self, ticket: Ticket) -> Waiting {
        if let Some(entry) = self.tickets.lock().all.get_mut(&ticket.0) {
            entry.waits = true;
        }
        self.readable.wake_all();
        let before = match self.me.upgrade() {
            Some(userfault) => WAITING[local::index()].lock().replace(Waiter { userfault, ticket }),
            None => None,
        };
        drop(before);
        Waiting::Elsewhere
    }

    fn wake(&self, range: PageRange) {
        let mut any = false;
        for entry in self.tickets.lock().all.values_mut() {
            if range.contains(entry.report.addr) {
                (entry.woken, any) = (true, true);
            }
        }
        if any {
            self.answered.wake_all();
        }
    }

    fn changed(&self, event: RangeEvent) {
        let wanted = match event {
            RangeEvent::Removed(_) => linux::UFFD_FEATURE_EVENT_REMOVE,
            RangeEvent::Unmapped(_) => linux::UFFD_FEATURE_EVENT_UNMAP,
            RangeEvent::Moved { .. } => linux::UFFD_FEATURE_EVENT_REMAP,
        };
        if self.has(wanted) && !self.is_closed() {
            self.note(Happened::Range(event));
        }
    }

    fn follows(&self) -> bool {
        self.has(linux::UFFD_FEATURE_EVENT_REMAP)
    }

    fn fork(&self) -> Option<Arc<dyn Watcher>> {
        if !self.has(linux::UFFD_FEATURE_EVENT_FORK) {
            return None;
        }
        let me = self.me.upgrade()?;
        let heir = Self::make(Weak::new(), self.flags, self.features.load(Ordering::Relaxed));
        HEIRS[local::index()].lock().push((me, heir.clone()));
        Some(heir)
    }

    fn marks_absent(&self) -> bool {
        self.has(linux::UFFD_FEATURE_WP_UNPOPULATED)
    }

    fn refuses(&self) -> bool {
        self.has(linux::UFFD_FEATURE_SIGBUS)
    }

    fn is_closed(&self) -> bool {
        // Acquire pairs with the Release in `close`.
        self.closed.load(Ordering::Acquire)
    }
}

/// Has the pages of a buffer brought in before a call does what it cannot do twice: a page that is watched and not
/// there makes the call wait first.
///
/// # Errors
///
/// `EFAULT` at such a page, its ticket noted for this CPU.
pub fn bring_in(cpu: &mut CpuLocal, runs: &[(u64, usize)], access: Access) -> Result<(), Errno> {
    /// What a pipe holds at most, and then some; longer transfers come back short at such a page.
    const MOST: usize = 64;
    let Some(memory) = cpu.memory.clone().filter(|memory| memory.space().is_watched()) else { return Ok(()) };
    let pages = |(address, length): &(u64, usize)| {
        let end = address.saturating_add(*length as u64);
        (address & !(PAGE_SIZE - 1)..end).step_by(PAGE_SIZE as usize).take(MOST).collect::<Vec<u64>>()
    };
    for address in runs.iter().flat_map(pages).take(MOST) {
        // Other errors are found, and told, where the bytes are moved.
        let result = memory.space().fault(&mut cpu.vm, VirtAddr::new(address), access);
        if let Err(error @ FaultError::Watched) = result {
            cpu.failed_fault = Some((address, error));
            return Err(Errno::EFAULT);
        }
    }
    Ok(())
}
