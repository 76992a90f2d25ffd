//! The descriptor: its requests, its messages, and a thread that answers them.

use core::sync::atomic::{AtomicU64, Ordering};
use faultless_guest::report::Report;
use faultless_guest::sys::{self, Errno, PAGE, Result};

/// Requests, as <linux/userfaultfd.h> numbers them.
pub mod request {
    pub const API: u64 = 0xc018_aa3f;
    pub const REGISTER: u64 = 0xc020_aa00;
    pub const UNREGISTER: u64 = 0x8010_aa01;
    pub const WAKE: u64 = 0x8010_aa02;
    pub const COPY: u64 = 0xc028_aa03;
    pub const ZEROPAGE: u64 = 0xc020_aa04;
    pub const MOVE: u64 = 0xc028_aa05;
    pub const WRITEPROTECT: u64 = 0xc018_aa06;
    pub const CONTINUE: u64 = 0xc020_aa07;
    pub const POISON: u64 = 0xc020_aa08;
}

/// Features that the scenes use.
pub mod feature {
    pub const EVENT_FORK: u64 = 1 << 1;
    pub const EVENT_REMAP: u64 = 1 << 2;
    pub const EVENT_REMOVE: u64 = 1 << 3;
    pub const EVENT_UNMAP: u64 = 1 << 6;
    pub const SIGBUS: u64 = 1 << 7;
    pub const THREAD_ID: u64 = 1 << 8;
    pub const MINOR_SHMEM: u64 = 1 << 10;
    pub const EXACT_ADDRESS: u64 = 1 << 11;
    pub const WP_UNPOPULATED: u64 = 1 << 13;
    pub const POISON: u64 = 1 << 14;
    pub const MOVE: u64 = 1 << 16;
    pub const ALL: u64 = MINOR_SHMEM | EXACT_ADDRESS | POISON | MOVE;
}

pub const MISSING: u64 = 1;
pub const STORES: u64 = 2;
pub const MINOR: u64 = 4;

/// A message: flags (1 store, 2 write-protected, 4 minor), address, and the thread if it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    pub flags: u64,
    pub address: usize,
    pub thread: i32,
}

/// Anything that can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Fault(Message),
    /// A descriptor.
    Fork(i32),
    /// From, to, bytes.
    Remap(usize, usize, usize),
    /// Start and end.
    Remove(usize, usize),
    /// Start and end.
    Unmap(usize, usize),
}

/// A descriptor that was set up.
pub struct Uffd {
    pub fd: i32,
}

impl Uffd {
    pub fn new(report: &Report) -> Self {
        Self::with(report, feature::ALL)
    }

    /// One with these features.
    pub fn with(report: &Report, features: u64) -> Self {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        let args = [flags as usize, 0, 0, 0, 0, 0];
        // SAFETY: makes a descriptor.
        let fd = report.need("userfaultfd", unsafe { sys::call(libc::SYS_userfaultfd, args) });
        let uffd = Self { fd: fd as i32 };
        let mut api = [0xaa, features, 0];
        report.need("UFFDIO_API", uffd.ioctl(request::API, &mut api));
        report.same("features", api[1] & features, features);
        uffd
    }

    /// Any request; the structure is words throughout.
    pub fn ioctl(&self, request: u64, words: &mut [u64]) -> Result {
        let args = [self.fd as usize, request as usize, words.as_mut_ptr() as usize, 0, 0, 0];
        // SAFETY: the structure is ours, and the ranges in it are arenas of the scenes.
        unsafe { sys::call(libc::SYS_ioctl, args) }
    }

    pub fn register(&self, at: usize, pages: usize, mode: u64) -> Result {
        self.ioctl(request::REGISTER, &mut [at as u64, (pages * PAGE) as u64, mode, 0])
    }

    /// Copies a page full of `byte` to `at`.
    pub fn copy(&self, at: usize, byte: u8, mode: u64) -> Result {
        let page = [byte; PAGE];
        self.ioctl(request::COPY, &mut [at as u64, page.as_ptr() as u64, PAGE as u64, mode, 0])
    }

    /// A request on one page whose structure is a range, a mode, and a result.
    pub fn on_page(&self, request: u64, at: usize, mode: u64) -> Result {
        self.ioctl(request, &mut [at as u64, PAGE as u64, mode, 0])
    }

    pub fn move_pages(&self, to: usize, from: usize, pages: usize, mode: u64) -> (Result, i64) {
        let mut words = [to as u64, from as u64, (pages * PAGE) as u64, mode, 0];
        (self.ioctl(request::MOVE, &mut words), words[4].cast_signed())
    }

    pub fn protect(&self, at: usize, pages: usize, on: bool) -> Result {
        self.ioctl(request::WRITEPROTECT, &mut [at as u64, (pages * PAGE) as u64, u64::from(on)])
    }

    /// The next message, if there is one.
    pub fn read(&self) -> Result<Message> {
        match self.read_event()? {
            Event::Fault(message) => Ok(message),
            _ => Err(Errno(libc::EIO)),
        }
    }

    /// The next message of any kind, if there is one.
    pub fn read_event(&self) -> Result<Event> {
        let mut bytes = [0; 32];
        let size = sys::read(self.fd, &mut bytes)?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let [a, b, c] = [8, 16, 24].map(|at| word(at) as usize);
        match (size, bytes[0]) {
            (32, 0x12) => Ok(Event::Fault(Message { flags: word(8), address: b, thread: c as i32 })),
            (32, 0x13) => Ok(Event::Fork(a as i32)),
            (32, 0x14) => Ok(Event::Remap(a, b, c)),
            (32, 0x15) => Ok(Event::Remove(a, b)),
            (32, 0x16) => Ok(Event::Unmap(a, b)),
            _ => Err(Errno(libc::EIO)),
        }
    }

    /// Runs `body` while a thread answers each message with `answer`. Returns how many there were.
    pub fn answering(&self, report: &Report, answer: impl Fn(Message) + Sync, body: impl FnOnce()) -> u64 {
        let count = AtomicU64::new(0);
        let (stop, stopper) = report.need("pipe", sys::pipe());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while poll(self.fd, stop) {
                    match self.read() {
                        Ok(message) => {
                            count.fetch_add(1, Ordering::Relaxed);
                            answer(message);
                        }
                        Err(Errno(libc::EAGAIN)) => {} // answered otherwise meanwhile
                        Err(error) => report.fail(format_args!("read: {error}")),
                    }
                }
            });
            body();
            report.need("write", sys::write(stopper, &[1]));
        });
        sys::close(stop);
        sys::close(stopper);
        count.load(Ordering::Relaxed)
    }
}

impl Drop for Uffd {
    fn drop(&mut self) {
        sys::close(self.fd);
    }
}

/// Waits for either. False if the second is readable.
fn poll(fd: i32, stop: i32) -> bool {
    let mut files = [fd, stop].map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    let args = [files.as_mut_ptr() as usize, 2, usize::MAX, 0, 0, 0];
    // SAFETY: the array is ours.
    let _ = unsafe { sys::call(libc::SYS_poll, args) };
    files[1].revents & libc::POLLIN == 0
}
