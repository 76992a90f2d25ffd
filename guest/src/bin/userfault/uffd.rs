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
    pub const MINOR_SHMEM: u64 = 1 << 10;
    pub const EXACT_ADDRESS: u64 = 1 << 11;
    pub const POISON: u64 = 1 << 14;
    pub const MOVE: u64 = 1 << 16;
    pub const ALL: u64 = MINOR_SHMEM | EXACT_ADDRESS | POISON | MOVE;
}

pub const MISSING: u64 = 1;
pub const STORES: u64 = 2;
pub const MINOR: u64 = 4;

/// A message: flags (1 store, 2 write-protected, 4 minor) and address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    pub flags: u64,
    pub address: usize,
}

/// A descriptor that was set up.
pub struct Uffd {
    pub fd: i32,
}

impl Uffd {
    pub fn new(report: &Report) -> Self {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        let args = [flags as usize, 0, 0, 0, 0, 0];
        // SAFETY: makes a descriptor.
        let fd = report.need("userfaultfd", unsafe { sys::call(libc::SYS_userfaultfd, args) });
        let uffd = Self { fd: fd as i32 };
        let mut api = [0xaa, feature::ALL, 0];
        report.need("UFFDIO_API", uffd.ioctl(request::API, &mut api));
        report.same("features", api[1] & feature::ALL, feature::ALL);
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
        let mut bytes = [0; 32];
        match sys::read(self.fd, &mut bytes)? {
            32 if bytes[0] == 0x12 => {
                let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
                Ok(Message { flags: word(8), address: word(16) as usize })
            }
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
