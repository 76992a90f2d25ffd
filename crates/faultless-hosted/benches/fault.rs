//! What an anonymous fault costs, as a ratio to clearing a page and to the same touch on the host's kernel.
//!
//! `cargo bench -p faultless-hosted --bench fault`. Everything is measured in one run, in alternating rounds, of which
//! the median counts; only the ratios mean anything on another machine. Times are processor times of the threads, so
//! another program costs a round its cache and not its turn; what a thread of the host sleeps is not counted. Without `--bench` (as under `cargo test`) the
//! work is tiny and only the checksum is of interest.
//!
//! | row | what is timed, per page |
//! |---|---|
//! | clear | `Arena::zero`, which the machine clears frames with: the part of a fault that nobody can save |
//! | fault | `Space::fault` on an untouched page, without an MMU |
//! | touch | a store of a `HostedCpu`: TLB miss, walk, fault, walk, store |
//! | host | a store to fresh private anonymous memory of the host, 4 KiB pages; with the trap, which the others lack |

use faultless::{Access, CpuId, FrameId, Layout, MapRequest, PageRange, Space, VirtAddr, Vm};
use faultless_hosted::arena::Scratch;
use faultless_hosted::{Arena, Fast, FastConfig, HostedCpu, Populate};
use rustix::time::{ClockId, clock_gettime};
use std::sync::{Arc, Barrier};
use std::thread;

const PAGE: u64 = 4096;
/// Arenas are as large as this many threads need, however many run: what frames cost depends on how many there are.
const MOST_THREADS: u64 = 2;
const ROWS: [&str; 4] = ["clear", "fault", "touch", "host"];

/// How much to do.
#[derive(Clone, Copy)]
struct Size {
    /// Pages per thread and round.
    pages: u64,
    rounds: usize,
}

/// A machine with a space that every thread's CPU runs.
struct Bench {
    /// Memory to clear, apart from the machine's.
    memory: Arena,
    space: Arc<Space<Fast>>,
    cpus: Vec<HostedCpu<Fast>>,
    size: Size,
    checksum: u64,
}

impl Bench {
    fn new(threads: usize, size: Size) -> Self {
        let frames = size.pages * MOST_THREADS + 4096;
        let config = FastConfig { populate: Populate::Now, ..FastConfig::new(frames, threads) };
        let vm = Vm::new(Fast::new(config).expect("memory for the arena")).expect("a machine");
        let mut cpus: Vec<_> =
            (0..threads as u32).map(|id| HostedCpu::new(&vm, CpuId::new(id)).expect("a CPU")).collect();
        let space = Arc::new(vm.new_space(cpus[0].token(), Layout::linux()).expect("memory"));
        cpus.iter_mut().for_each(|cpu| cpu.run(&space));
        let memory = Arena::new(size.pages * MOST_THREADS, Populate::Now).expect("memory to clear");
        Self { memory, space, cpus, size, checksum: 0 }
    }

    /// The row's time per page in nanoseconds, in one round.
    fn round(&mut self, row: &str) -> f64 {
        match row {
            "clear" => self.clear(),
            "host" => self.host(),
            _ => self.fault(row == "touch"),
        }
    }

    fn pages(&self) -> u64 {
        self.size.pages
    }

    fn clear(&mut self) -> f64 {
        let (memory, pages) = (&self.memory, self.pages());
        let threads = (0..self.cpus.len() as u64).map(|number| {
            move || (number * pages..(number + 1) * pages).for_each(|frame| memory.zero(FrameId::new(frame)))
        });
        timed(threads, pages)
    }

    fn fault(&mut self, through_the_mmu: bool) -> f64 {
        let (pages, space) = (self.pages(), Arc::clone(&self.space));
        let len = pages * PAGE * self.cpus.len() as u64;
        let at = space.map(self.cpus[0].token(), MapRequest::anonymous(len)).expect("room").as_u64();
        let addresses = |number: usize| {
            let first = at + number as u64 * pages * PAGE;
            (0..pages).map(move |page| VirtAddr::new(first + page * PAGE))
        };
        let space_of = &space;
        let threads = self.cpus.iter_mut().enumerate().map(|(number, cpu)| {
            move || {
                for address in addresses(number) {
                    if through_the_mmu {
                        cpu.store(address, address.as_u64() >> 12).expect("mapped");
                    } else {
                        space_of.fault(cpu.token(), address, Access::Write).expect("mapped");
                    }
                }
            }
        });
        let time = timed(threads, pages);
        for (number, cpu) in self.cpus.iter_mut().enumerate() {
            for address in addresses(number) {
                let word = cpu.load::<u64>(address).expect("mapped");
                self.checksum = self.checksum.wrapping_add(word + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
        }
        let range = PageRange::with_len(VirtAddr::new(at), len).expect("aligned");
        space.unmap(self.cpus[0].token(), range).expect("mapped");
        time
    }

    fn host(&mut self) -> f64 {
        let pages = self.pages();
        let mut memory: Vec<Scratch> =
            self.cpus.iter().map(|_| Scratch::new(pages as usize).expect("memory of the host")).collect();
        timed(memory.iter_mut().map(|memory| move || memory.touch(1)), pages)
    }
}

/// Runs the bodies at once, one thread each; the longest one's time per page.
fn timed<F: FnOnce() + Send>(bodies: impl Iterator<Item = F>, pages: u64) -> f64 {
    let bodies: Vec<F> = bodies.collect();
    let start = Barrier::new(bodies.len());
    thread::scope(|scope| {
        let run = |body: F| {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                let began = own_time();
                body();
                (own_time() - began) / pages as f64
            })
        };
        let threads: Vec<_> = bodies.into_iter().map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic inside")).fold(0.0, f64::max)
    })
}

/// The processor time of this thread in nanoseconds.
fn own_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// All rows for a number of threads.
fn measure(threads: usize, size: Size) -> u64 {
    let mut bench = Bench::new(threads, size);
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); ROWS.len()];
    for round in 0..=size.rounds {
        for offset in 0..ROWS.len() {
            let row = (round + offset) % ROWS.len();
            let time = bench.round(ROWS[row]);
            if round != 0 {
                times[row].push(time); // the first one warms up
            }
        }
    }
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    println!("\n{threads} thread(s), {} pages each, median of {} rounds", size.pages, size.rounds);
    println!("{:<8} {:>12} {:>10} {:>10}", "row", "ns per page", "to clear", "to host");
    for (row, time) in ROWS.iter().zip(&medians) {
        println!("{row:<8} {time:>12.1} {:>10.2} {:>10.2}", time / medians[0], time / medians[3]);
    }
    bench.cpus.iter_mut().for_each(HostedCpu::stop);
    bench.space.exit(bench.cpus[0].token());
    bench.checksum
}

fn main() {
    let full = std::env::args().any(|argument| argument == "--bench");
    let size = if full { Size { pages: 8192, rounds: 21 } } else { Size { pages: 64, rounds: 1 } };
    let sums: Vec<u64> = [1, 2].map(|threads| measure(threads, size)).to_vec();
    println!("\nchecksum {:#x}", sums.iter().fold(0u64, |all, sum| all.rotate_left(7) ^ sum));
}
