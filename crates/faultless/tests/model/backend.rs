//! The model checker behind the suite: loom or shuttle, one facade.

#[cfg(loom)]
pub use loom::{sync::Mutex, thread};
#[cfg(shuttle)]
pub use shuttle::{sync::Mutex, thread};

/// A thread under way.
pub struct Running<T>(thread::JoinHandle<T>);

/// Stack of a model thread in words: an audit formats what it finds wrong.
#[cfg(loom)]
const STACK: usize = 1 << 15;

/// Starts a thread.
#[cfg(loom)]
pub fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Running<T> {
    Running(thread::Builder::new().stack_size(STACK).spawn(body).expect("a model thread"))
}

/// Starts a thread.
#[cfg(shuttle)]
pub fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Running<T> {
    Running(thread::spawn(body))
}

impl<T> Running<T> {
    /// Waits for its end.
    pub fn join(self) -> T {
        self.0.join().expect("a model thread panicked")
    }
}
