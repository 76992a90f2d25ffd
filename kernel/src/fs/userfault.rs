//! `userfaultfd`: faults of a process as messages, and the threads that wait for answers.
//!
//! Called by faultless as a [`Watcher`], by open files, and by the run loop for threads whose access was reported. The
//! requests themselves are `faultless_linux`'s; the structures in user memory are read in `syscall::userfault`.
//!
//! A thread does not wait inside the kernel: the fault that was reported ends with its ticket noted for the CPU
//! ([`take_waiting`]), and the run loop parks the thread on it. When the ticket is woken, or a signal comes, the
//! instruction or the system call is executed again.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use faultless::{Access, FaultError, PAGE_SIZE, PageRange, Report, Ticket, VirtAddr, Waiting, Watcher};
use faultless_linux::calls::userfaultfd;
use linux_raw_sys::general as linux;

use super::poll::Readiness;
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
    me: Weak<Userfault>,    // (I)
    memory: Weak<Memory>,   // (I) whose faults
    user_mode_only: bool,   // (I)
    features: AtomicU64,    // (A) once set, for ever
    closed: AtomicBool,     // (A) once true, for ever
    tickets: Lock<Tickets>, // (L)
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
}

struct Entry {
    report: Report,
    /// A read has taken its message.
    read: bool,
    /// It waits no more.
    woken: bool,
}

/// A thread's wait for an answer.
pub struct Waiter {
    userfault: Arc<Userfault>,
    ticket: Ticket,
}

/// The ticket of the last access on each CPU that was reported and may have to wait.
static WAITING: [Lock<Option<Waiter>>; MAX_CPUS] = [const { Lock::new(None) }; MAX_CPUS];

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
        self.userfault.user_mode_only
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.userfault.withdraw(self.ticket);
    }
}

impl Userfault {
    /// One for the faults of `memory`.
    pub fn new(memory: &Arc<Memory>, user_mode_only: bool) -> Arc<Userfault> {
        Arc::new_cyclic(|me| Userfault {
            me: me.clone(),
            memory: Arc::downgrade(memory),
            user_mode_only,
            features: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            tickets: Lock::new(Tickets::default()),
            readable: WaitQueue::new(),
            answered: WaitQueue::new(),
        })
    }

    /// Whose faults; `None` if they are gone.
    pub fn memory(&self) -> Option<Arc<Memory>> {
        self.memory.upgrade()
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
        self.tickets.lock().all.values_mut().for_each(|entry| entry.woken = true);
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
            let Some((number, report)) = self.next_unread() else { break };
            if to.put(cpu, self.message(&report).as_bytes()) < MESSAGE {
                // It was not delivered: the next read gets it.
                if let Some(entry) = self.tickets.lock().all.get_mut(&number) {
                    entry.read = false;
                }
                return if done > 0 { Ok(done) } else { Err(Errno::EFAULT) };
            }
            done += MESSAGE;
        }
        if done > 0 { Ok(done) } else { Err(Errno::EAGAIN) }
    }

    fn next_unread(&self) -> Option<(u64, Report)> {
        let mut tickets = self.tickets.lock();
        let (number, entry) = tickets.all.iter_mut().find(|(_, entry)| !entry.read && !entry.woken)?;
        entry.read = true;
        Some((*number, entry.report))
    }

    fn message(&self, report: &Report) -> Layout {
        let exact = self.features.load(Ordering::Relaxed) & u64::from(linux::UFFD_FEATURE_EXACT_ADDRESS) != 0;
        let address = if exact { report.addr } else { report.addr.align_down() };
        Layout::new()
            .bytes(&[linux::UFFD_EVENT_PAGEFAULT as u8])
            .zeroes(7)
            .u64(userfaultfd::message_flags(report))
            .u64(address.as_u64())
            .zeroes(8)
    }

    /// What `poll` says. As on Linux, a descriptor whose reads may wait is not to be polled.
    pub fn readiness(&self, nonblocking: bool) -> Readiness {
        if !self.is_initialized() || !nonblocking {
            return Readiness::ERR;
        }
        let unread = self.tickets.lock().all.values().any(|entry| !entry.read && !entry.woken);
        if unread { Readiness::IN } else { Readiness::NONE }
    }

    /// Where a thread waits for messages.
    pub fn queue(&self) -> &WaitQueue {
        &self.readable
    }
}

impl Watcher for Userfault {
    fn announce(&self, report: &Report) -> Ticket {
        let mut tickets = self.tickets.lock();
        let number = tickets.next;
        tickets.next += 1;
        tickets.all.insert(number, Entry { report: *report, read: false, woken: false });
        drop(tickets);
        self.readable.wake_all();
        Ticket(number)
    }

    fn withdraw(&self, ticket: Ticket) {
        self.tickets.lock().all.remove(&ticket.0);
    }

    fn wait(&self, ticket: Ticket) -> Waiting {
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
