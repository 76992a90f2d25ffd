//! Pipes and FIFOs: a ring of bytes, its two ends counted.
//!
//! Called by open files. A read or write that cannot go on fails with `EAGAIN`; the system call decides
//! whether to wait. Writes of up to `PIPE_BUF` bytes are atomic: bytes move from user memory straight
//! into the ring under its lock, which a fault on the way never takes.
//!
//! Absent on purpose: packet mode (`O_DIRECT`); pages in place of bytes: what is spliced is copied.

use alloc::vec::Vec;

use linux_raw_sys::general as linux;

use super::poll::Readiness;
use super::quota;
use super::ring::Ring;
use crate::arch::CpuLocal;
use crate::errno::Errno;
use crate::sched::WaitQueue;
use crate::sync::Lock;
use crate::uaccess::{Sink, Source};

/// Writes of at most this many bytes do not mix with others.
const PIPE_BUF: usize = linux::PIPE_BUF as usize;
const CAPACITY: usize = 16 * 4096;
/// `/proc/sys/fs/pipe-max-size`.
pub const MAX_CAPACITY: usize = 1 << 20;

/// A pipe.
pub struct Pipe {
    state: Lock<State>,
    /// Woken when bytes arrive or the last writer leaves, and when a reader comes.
    readable: WaitQueue,
    /// Woken when room appears or the last reader leaves, and when a writer comes.
    writable: WaitQueue,
}

struct State {
    ring: Ring,
    /// Bytes of the capacity that count against the quota.
    accounted: usize,
    readers: u32,
    writers: u32,
    /// How often each end was ever opened: `open` of a FIFO waits for a change.
    reader_opens: u64,
    writer_opens: u64,
}

/// Which ends an open file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// It reads.
    pub reads: bool,
    /// It writes.
    pub writes: bool,
}

impl Pipe {
    /// An empty pipe that nobody has open. It is a small one if pipes take too much memory already.
    pub fn new() -> Pipe {
        let accounted = if quota::add_pipe_bytes(CAPACITY) { CAPACITY } else { 0 };
        Pipe {
            state: Lock::new(State {
                accounted,
                ring: Ring::new(accounted.max(PIPE_BUF)),
                readers: 0,
                writers: 0,
                reader_opens: 0,
                writer_opens: 0,
            }),
            readable: WaitQueue::new(),
            writable: WaitQueue::new(),
        }
    }

    /// Counts an open file. If the other end is not open, returns how often it has been so far.
    pub fn open(&self, ends: Ends) -> Option<u64> {
        let partner_opens = {
            let mut state = self.state.lock();
            state.readers += u32::from(ends.reads);
            state.reader_opens += u64::from(ends.reads);
            state.writers += u32::from(ends.writes);
            state.writer_opens += u64::from(ends.writes);
            (!state.has_partner(ends)).then(|| state.partner_opens(ends))
        };
        self.wake();
        partner_opens
    }

    /// An open file is gone; what nobody can read any more goes with it.
    pub fn close(&self, ends: Ends) {
        {
            let mut state = self.state.lock();
            state.readers -= u32::from(ends.reads);
            state.writers -= u32::from(ends.writes);
            if state.readers == 0 && state.writers == 0 {
                let length = state.ring.len();
                state.ring.consume(length);
            }
        }
        self.wake();
    }

    fn wake(&self) {
        self.readable.wake_all();
        self.writable.wake_all();
    }

    /// Whether the other end is open.
    pub fn has_partner(&self, ends: Ends) -> bool {
        self.state.lock().has_partner(ends)
    }

    /// Whether the other end is not open and was not opened, if only for a moment, since its count was
    /// `opens`: then `open` of a FIFO waits.
    pub fn is_lonely(&self, ends: Ends, opens: u64) -> bool {
        let state = self.state.lock();
        !state.has_partner(ends) && state.partner_opens(ends) == opens
    }

    /// Moves bytes out.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there are none yet, `EFAULT`.
    pub fn read(&self, cpu: &mut CpuLocal, to: &mut dyn Sink) -> Result<usize, Errno> {
        if to.room() == 0 {
            return Ok(0);
        }
        let moved = {
            let mut state = self.state.lock();
            if state.ring.is_empty() {
                return if state.writers == 0 { Ok(0) } else { Err(Errno::EAGAIN) };
            }
            let (head, tail) = state.ring.peek();
            let mut moved = 0;
            for run in [head, tail] {
                let run = &run[..run.len().min(to.room())];
                let put = to.put(cpu, run);
                moved += put;
                if put < run.len() {
                    break;
                }
            }
            state.ring.consume(moved);
            moved
        };
        if moved == 0 {
            return Err(Errno::EFAULT);
        }
        self.writable.wake_all();
        Ok(moved)
    }

    /// Moves bytes in, as many as fit; all or nothing up to `PIPE_BUF`.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there is no room yet, `EPIPE` if nobody will read, `EFAULT`, `ENOMEM`.
    pub fn write(&self, cpu: &mut CpuLocal, from: &mut dyn Source) -> Result<usize, Errno> {
        let moved = {
            let mut state = self.state.lock();
            if state.readers == 0 {
                return Err(Errno::EPIPE);
            }
            let wanted = from.left();
            if wanted == 0 {
                return Ok(0);
            }
            let needed = if wanted <= PIPE_BUF { wanted } else { 1 };
            if state.ring.room() < needed {
                return Err(Errno::EAGAIN);
            }
            state.fill(cpu, from)?
        };
        self.readable.wake_all();
        Ok(moved)
    }

    /// Takes up to `limit` bytes out, for somebody who may not be able to use them all: see [`Pipe::settle`].
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there are none yet, `ENOMEM`.
    pub fn lend(&self, limit: usize) -> Result<Vec<u8>, Errno> {
        let mut state = self.state.lock();
        if state.ring.is_empty() && state.writers > 0 && limit > 0 {
            return Err(Errno::EAGAIN);
        }
        let (head, tail) = state.ring.peek();
        let count = limit.min(head.len() + tail.len());
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
        bytes.extend(head.iter().chain(tail).take(count));
        state.ring.lend(count);
        Ok(bytes)
    }

    /// Ends a loan of `lent`, of which the first `used` bytes are gone and the others come back.
    pub fn settle(&self, lent: &[u8], used: usize) {
        self.state.lock().ring.settle(lent.len(), &lent[used..]);
        self.wake();
    }

    /// Bytes that fit into it now.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there is no room yet, `EPIPE` if nobody will read.
    pub fn room(&self) -> Result<usize, Errno> {
        let state = self.state.lock();
        match state.ring.room() {
            _ if state.readers == 0 => Err(Errno::EPIPE),
            0 => Err(Errno::EAGAIN),
            room => Ok(room),
        }
    }

    /// Bytes that wait in it.
    pub fn len(&self) -> usize {
        self.state.lock().ring.len()
    }

    /// Bytes it takes.
    pub fn capacity(&self) -> usize {
        self.state.lock().ring.capacity()
    }

    /// `F_SETPIPE_SZ`: rounds up to a power of two of at least a page. Returns the new capacity.
    ///
    /// # Errors
    ///
    /// `EPERM` beyond the maximum or the share that pipes may have, `EBUSY` if more than that is in it, `EINVAL` beyond any power of two.
    pub fn set_capacity(&self, wanted: u32) -> Result<usize, Errno> {
        if wanted > 1 << 31 {
            return Err(Errno::EINVAL);
        }
        let capacity = (wanted as usize).next_power_of_two().max(4096);
        if capacity > MAX_CAPACITY {
            return Err(Errno::EPERM);
        }
        self.state.lock().resize(capacity)?;
        self.writable.wake_all();
        Ok(capacity)
    }

    /// What `poll` says for a file with these ends.
    pub fn readiness(&self, ends: Ends) -> Readiness {
        let state = self.state.lock();
        let mut ready = Readiness::NONE;
        if ends.reads {
            if !state.ring.is_empty() {
                ready = ready.with(Readiness::IN);
            }
            // A FIFO that never had a writer is not hung up.
            if state.writers == 0 && state.writer_opens > 0 {
                ready = ready.with(Readiness::HUP);
            }
        }
        if ends.writes {
            if state.ring.room() >= PIPE_BUF {
                ready = ready.with(Readiness::OUT);
            }
            if state.readers == 0 {
                ready = ready.with(Readiness::ERR);
            }
        }
        ready
    }

    /// Where a thread waits until something about these ends changes.
    pub fn queues(&self, ends: Ends) -> [Option<&WaitQueue>; 2] {
        [ends.reads.then_some(&self.readable), ends.writes.then_some(&self.writable)]
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        quota::remove_pipe_bytes(self.state.get_mut().accounted);
    }
}

impl State {
    fn resize(&mut self, capacity: usize) -> Result<(), Errno> {
        let more = capacity.saturating_sub(self.accounted);
        if !quota::add_pipe_bytes(more) {
            return Err(Errno::EPERM);
        }
        if !self.ring.set_capacity(capacity) {
            quota::remove_pipe_bytes(more);
            return Err(Errno::EBUSY);
        }
        quota::remove_pipe_bytes(self.accounted.saturating_sub(capacity));
        self.accounted = capacity;
        Ok(())
    }

    fn has_partner(&self, ends: Ends) -> bool {
        (ends.reads && self.writers > 0) || (ends.writes && self.readers > 0)
    }

    fn partner_opens(&self, ends: Ends) -> u64 {
        if ends.reads { self.writer_opens } else { self.reader_opens }
    }

    /// Copies into the ring until it is full or `from` is empty.
    fn fill(&mut self, cpu: &mut CpuLocal, from: &mut dyn Source) -> Result<usize, Errno> {
        let atomic = from.left() <= PIPE_BUF;
        let mut moved = 0;
        // Ends: each round moves bytes or leaves.
        while from.left() > 0 {
            let left = from.left();
            let spare = match self.ring.spare(left) {
                Ok([]) => break,
                Ok(spare) => spare,
                Err(_) if moved == 0 => return Err(Errno::ENOMEM),
                Err(_) => break,
            };
            let room = spare.len();
            let taken = from.take(cpu, spare);
            self.ring.commit(taken);
            moved += taken;
            if taken < room {
                break;
            }
        }
        debug_assert!(!atomic || moved <= PIPE_BUF);
        if moved == 0 { Err(Errno::EFAULT) } else { Ok(moved) }
    }
}
