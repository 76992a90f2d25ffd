//! Files that are written back under threads: what was stored before a synchronisation is kept, pages stand still while
//! they are written, and a pager that takes its time finds everything valid (CW-08, TR-03, P17).
//!
//! Environment: `FAULTLESS_ROUNDS` (default 1) multiplies the work, `FAULTLESS_SEED` chooses another run.

mod common;

use common::replay::env;
use faultless::{
    Backing, CpuId, FaultError, Layout, Machine, MapRequest, Object, PageRange, PageReader, PageWriter, Pager,
    PagerError, Rights, Sharing, Space, Standing, VirtAddr, Vm, WriteErrors,
};
use faultless_hosted::{Fast, FastConfig, HostedCpu, Rng};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

const PAGE: u64 = 4096;
const PAGES: u64 = 24;
const LANES: usize = 3;
const BASE: u64 = 0x1000_0000_0000;

type File = Arc<Object<Fast>>;

fn at(page: u64) -> VirtAddr {
    VirtAddr::new(BASE + page * PAGE)
}

fn range(page: u64, pages: u64) -> PageRange {
    PageRange::with_len(at(page), pages * PAGE).expect("aligned")
}

/// Keeps the lanes of each page.
#[derive(Default)]
struct Disk(Mutex<BTreeMap<u64, [u64; LANES]>>);

impl Disk {
    fn lanes(&self, page: u64) -> [u64; LANES] {
        self.0.lock().expect("no panic").get(&page).copied().unwrap_or_default()
    }
}

fn read_lanes(page: &PageReader<'_>) -> [u64; LANES] {
    let mut bytes = [0; 8 * LANES];
    page.read(0, &mut bytes);
    std::array::from_fn(|lane| u64::from_le_bytes(bytes[8 * lane..][..8].try_into().expect("eight")))
}

impl Pager for Disk {
    fn fill(&self, index: u64, page: &mut PageWriter<'_>) -> Result<(), PagerError> {
        self.lanes(index).iter().enumerate().for_each(|(lane, value)| page.write(8 * lane, &value.to_le_bytes()));
        Ok(())
    }

    fn writes_back(&self) -> bool {
        true
    }

    fn write_page(&self, index: u64, page: &PageReader<'_>) -> Result<(), PagerError> {
        let lanes = read_lanes(page);
        thread::yield_now();
        assert_eq!(read_lanes(page), lanes, "page {index} changes while it is written");
        self.0.lock().expect("no panic").insert(index, lanes);
        Ok(())
    }
}

fn map(cpu: &mut HostedCpu<Fast>, space: &Space<Fast>, file: &File) {
    let backing = Backing::Object { object: Arc::clone(file), offset: 0 };
    let request = MapRequest { sharing: Sharing::Shared, backing, ..MapRequest::anonymous(PAGES * PAGE).fixed(at(0)) };
    space.map(cpu.token(), request).expect("room");
}

fn sync(cpu: &mut HostedCpu<Fast>, file: &File) {
    let mut known: WriteErrors = file.write_errors();
    file.sync(cpu.token(), 0, u64::MAX, &mut known).expect("the disk takes all");
}

/// What each lane has stored, told after the store.
type Told = [[AtomicU64; LANES]; PAGES as usize];

fn store(cpu: &mut HostedCpu<Fast>, lane: usize, told: &Told, done: &AtomicBool, seed: u64) {
    let mut rng = Rng::new(seed ^ lane as u64);
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        let page = rng.below(PAGES);
        let address = VirtAddr::new(at(page).as_u64() + 8 * lane as u64);
        let last = told[page as usize][lane].load(Ordering::Relaxed);
        assert_eq!(cpu.load::<u64>(address), Ok(last), "seed {seed}: page {page}, lane {lane}");
        count += 1;
        assert_eq!(cpu.store(address, count), Ok(()));
        told[page as usize][lane].store(count, Ordering::Release);
    }
}

fn disturb(cpu: &mut HostedCpu<Fast>, space: &Space<Fast>, file: &File, rng: &mut Rng) {
    let page = rng.below(PAGES - 6);
    match rng.below(4) {
        0 => space.discard(cpu.token(), range(page, rng.range(1, 6)), false).expect("memory"),
        // In the same stripe as the others, so their faults meet what is between.
        1 => {
            space.protect(cpu.token(), range(page, 2), Rights::READ | Rights::WRITE | Rights::EXECUTE).expect("memory")
        }
        2 => {
            let child = space.fork(cpu.token()).expect("memory");
            let mut byte = [0];
            child.read(cpu.token(), at(page), &mut byte).expect("mapped");
            child.write(cpu.token(), VirtAddr::new(at(page).as_u64() + 100), &byte).expect("mapped");
            child.exit(cpu.token());
        }
        _ => {
            file.write(cpu.token(), page * PAGE + 200, &[1; 300]).expect("memory");
        }
    }
}

#[test]
fn what_was_stored_before_is_kept() {
    let (rounds, seed) = (150 * env("FAULTLESS_ROUNDS", 1), env("FAULTLESS_SEED", 1));
    let vm = Vm::new(Fast::new(FastConfig::new(512, LANES + 1)).expect("an arena")).expect("a machine");
    let mut cpus: Vec<_> = (0..=LANES as u32).map(|id| HostedCpu::new(&vm, CpuId::new(id)).expect("a CPU")).collect();
    let disk = Arc::new(Disk::default());
    let file = vm.new_file(PAGES * PAGE, disk.clone(), "file").expect("memory");
    let space = Arc::new(vm.new_space(cpus[LANES].token(), Layout::linux()).expect("memory"));
    map(&mut cpus[LANES], &space, &file);
    let told: Told = std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0)));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for (lane, cpu) in cpus.iter_mut().enumerate() {
            let (space, file, disk, told, done) = (&space, &file, &disk, &told, &done);
            scope.spawn(move || {
                cpu.run(space);
                if lane < LANES {
                    store(cpu, lane, told, done, seed);
                } else {
                    let mut rng = Rng::new(seed);
                    for _ in 0..rounds {
                        disturb(cpu, space, file, &mut rng);
                        let before: Vec<[u64; LANES]> = told
                            .iter()
                            .map(|lanes| std::array::from_fn(|lane| lanes[lane].load(Ordering::Acquire)))
                            .collect();
                        sync(cpu, file);
                        for (page, before) in before.iter().enumerate() {
                            let kept = disk.lanes(page as u64);
                            let all = kept.iter().zip(before).all(|(kept, before)| kept >= before);
                            assert!(all, "seed {seed}: page {page} has {before:?}, kept is {kept:?}");
                        }
                    }
                    done.store(true, Ordering::Relaxed);
                }
                cpu.stop();
            });
        }
    });
    sync(&mut cpus[0], &file);
    for (page, told) in told.iter().enumerate() {
        assert_eq!(disk.lanes(page as u64).as_slice(), told.each_ref().map(|lane| lane.load(Ordering::Relaxed)));
        assert_eq!(file.standing(page as u64 * PAGE), Some(Standing::Clean));
    }
    assert_eq!((vm.census().dirty, vm.census().writing), (0, 0));
    cpus.iter_mut().for_each(|cpu| {
        cpu.token().collect();
    });
    assert_eq!(vm.audit(cpus[0].token(), &[&space], &[&file]), Ok(()));
}

/// A pager whose first permission takes as long as something else.
#[derive(Default)]
struct Slow {
    vm: OnceLock<Vm<Fast>>,
    asked: AtomicBool,
    answers: AtomicBool,
    questions: AtomicU64,
}

impl Pager for Slow {
    fn fill(&self, _index: u64, _page: &mut PageWriter<'_>) -> Result<(), PagerError> {
        Ok(())
    }

    fn writes_back(&self) -> bool {
        true
    }

    fn page_mkwrite(&self, _index: u64) -> Result<(), PagerError> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        self.asked.store(true, Ordering::Release);
        while !self.answers.load(Ordering::Acquire) {
            // Blocked, but not deaf: the CPU answers to shootdowns.
            self.vm.get().expect("set").machine().relax(CpuId::new(0));
            thread::yield_now();
        }
        Ok(())
    }

    fn write_page(&self, _index: u64, _page: &PageReader<'_>) -> Result<(), PagerError> {
        Ok(())
    }
}

/// What a store to page 1 comes to if `meanwhile` happens while the pager is asked, and how often it was.
fn stored_while(meanwhile: fn(&mut HostedCpu<Fast>, &Space<Fast>, &File)) -> (Result<(), FaultError>, u64) {
    let vm = Vm::new(Fast::new(FastConfig::new(256, 2)).expect("an arena")).expect("a machine");
    let [mut cpu, mut other] = [0, 1].map(|id| HostedCpu::new(&vm, CpuId::new(id)).expect("a CPU"));
    let pager = Arc::new(Slow::default());
    pager.vm.set(vm.clone()).expect("once");
    let file = vm.new_file(PAGES * PAGE, pager.clone(), "slow").expect("memory");
    let space = Arc::new(vm.new_space(cpu.token(), Layout::linux()).expect("memory"));
    map(&mut cpu, &space, &file);
    let result = thread::scope(|scope| {
        let storing = scope.spawn(|| {
            cpu.run(&space);
            let result = cpu.store(at(1), 7u64);
            cpu.stop();
            result
        });
        while !pager.asked.load(Ordering::Acquire) {
            thread::yield_now();
        }
        meanwhile(&mut other, &space, &file);
        pager.answers.store(true, Ordering::Release);
        storing.join().expect("no panic")
    });
    [&mut cpu, &mut other].into_iter().for_each(|cpu| {
        cpu.token().collect();
    });
    assert_eq!(vm.audit(cpu.token(), &[&space], &[&file]), Ok(()));
    let mut word = [0; 8];
    if file.read(cpu.token(), PAGE, &mut word) == Ok(8) {
        assert_eq!(u64::from_le_bytes(word), if result.is_ok() { 7 } else { 0 });
    }
    assert_eq!(vm.census().dirty, u64::from(result.is_ok()));
    // The pager keeps the machine, and the machine the file.
    space.exit(cpu.token());
    (result, pager.questions.load(Ordering::Relaxed))
}

#[test]
fn a_slow_pager_is_overtaken() {
    assert_eq!(stored_while(|_, _, _| ()), (Ok(()), 1));
    let unmapped = stored_while(|cpu, space, _| space.unmap(cpu.token(), range(0, PAGES)).expect("memory"));
    assert_eq!(unmapped, (Err(FaultError::Unmapped), 1));
    let denied = stored_while(|cpu, space, _| space.protect(cpu.token(), range(0, 4), Rights::READ).expect("mapped"));
    assert_eq!(denied, (Err(FaultError::Denied), 1));
    let cut = stored_while(|cpu, _, file| file.resize(cpu.token(), PAGE).expect("memory"));
    assert_eq!(cut, (Err(FaultError::Bus), 1));
    let punched = stored_while(|cpu, _, file| file.punch_hole(cpu.token(), 0, 4 * PAGE).expect("memory"));
    assert_eq!(punched, (Ok(()), 2), "another page is there, and asked for");
    let synced = stored_while(|cpu, _, file| {
        file.write(cpu.token(), PAGE + 8, &[1]).expect("memory");
        sync(cpu, file);
    });
    assert_eq!(synced, (Ok(()), 2), "cleaned since the question");
}
