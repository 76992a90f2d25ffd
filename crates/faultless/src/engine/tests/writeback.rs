//! What is dirty, who is asked before it becomes so, and how it goes back (CW-08, TR-03; protocol P17).

use super::{Bench, RW, at, range};
use crate::{
    Access, AreaFlags, Backing, FaultError, MapRequest, Object, ObjectError, PAGE_SIZE, PageReader, PageWriter, Pager,
    PagerError, Rights, Sharing, Standing, SyncError,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::vec::Vec;

/// A file of zeroes that remembers the first byte of what was written, and whom it was asked for.
#[derive(Default)]
struct Disk {
    written: Mutex<BTreeMap<u64, u8>>,
    lengths: Mutex<Vec<usize>>,
    asked: Mutex<Vec<u64>>,
    refuses: AtomicBool,
    fails: AtomicBool,
}

impl Disk {
    fn written(&self) -> Vec<(u64, u8)> {
        std::mem::take(&mut *self.written.lock().unwrap()).into_iter().collect()
    }

    fn asked(&self) -> Vec<u64> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl Pager for Disk {
    fn fill(&self, _index: u64, _page: &mut PageWriter<'_>) -> Result<(), PagerError> {
        Ok(())
    }

    fn writes_back(&self) -> bool {
        true
    }

    fn page_mkwrite(&self, index: u64) -> Result<(), PagerError> {
        self.asked.lock().unwrap().push(index);
        if self.refuses.load(Relaxed) { Err(PagerError) } else { Ok(()) }
    }

    fn write_page(&self, index: u64, page: &PageReader<'_>) -> Result<(), PagerError> {
        if self.fails.load(Relaxed) {
            return Err(PagerError);
        }
        let mut byte = [0];
        page.read(0, &mut byte);
        self.lengths.lock().unwrap().push(page.len());
        self.written.lock().unwrap().insert(index, byte[0]);
        Ok(())
    }
}

type File = Arc<Object<super::TestMachine>>;

/// A file of four pages, mapped shared at page 0.
fn mapped(frames: u64) -> (Bench, Arc<Disk>, File) {
    let (mut bench, disk) = (Bench::new(frames), Arc::new(Disk::default()));
    let file = bench.vm.new_file(4 * PAGE_SIZE, disk.clone(), "file").unwrap();
    map(&mut bench, 0, &file, Sharing::Shared);
    (bench, disk, file)
}

fn map(bench: &mut Bench, page: u64, file: &File, sharing: Sharing) {
    let backing = Backing::Object { object: Arc::clone(file), offset: 0 };
    let request = MapRequest { sharing, backing, ..MapRequest::anonymous(4 * PAGE_SIZE).fixed(at(page)) };
    bench.space.map(&mut bench.cpu, request).unwrap();
}

fn sync(bench: &mut Bench, file: &File) -> Result<(), ObjectError> {
    let mut known = file.write_errors();
    file.sync(&mut bench.cpu, 0, u64::MAX, &mut known)
}

fn standings(file: &File) -> Vec<Option<Standing>> {
    (0..4).map(|page| file.standing(page * PAGE_SIZE)).collect()
}

/// Pages that wait to be written, of all files.
fn waiting(bench: &Bench) -> u64 {
    let census = bench.vm.census();
    assert_eq!(census.writing, 0);
    census.dirty
}

fn end(mut bench: Bench, file: File) {
    bench.space.unmap(&mut bench.cpu, range(0, 100)).unwrap();
    bench.cpu.collect();
    assert_eq!(Arc::strong_count(&file), 1);
    drop(file);
    bench.finish(&[]);
}

#[test]
fn what_is_stored_is_written_once() {
    let (mut bench, disk, file) = mapped(64);
    assert_eq!(bench.byte(0), 0);
    assert_eq!((standings(&file)[0], waiting(&bench)), (Some(Standing::Clean), 0));
    bench.put(0, 7);
    bench.put(2, 9);
    assert_eq!(disk.asked(), [0, 2]);
    assert_eq!(standings(&file), [Some(Standing::Dirty), None, Some(Standing::Dirty), None]);
    assert_eq!(waiting(&bench), 2);
    let sums = bench.space.footprint(&mut bench.cpu, range(0, 4));
    assert_eq!((sums.private_dirty, sums.private_clean), (2, 0));
    sync(&mut bench, &file).unwrap();
    assert_eq!(disk.written(), [(0, 7), (2, 9)]);
    assert_eq!((standings(&file)[0], waiting(&bench)), (Some(Standing::Clean), 0));
    let sums = bench.space.footprint(&mut bench.cpu, range(0, 4));
    assert_eq!((sums.private_dirty, sums.private_clean), (0, 2));
    sync(&mut bench, &file).unwrap();
    assert_eq!(disk.written(), [], "nothing was stored since");
    bench.put(0, 8);
    assert_eq!((disk.asked(), waiting(&bench)), (std::vec![0], 1));
    bench.space.sync(&mut bench.cpu, range(0, 4)).unwrap();
    assert_eq!(disk.written(), [(0, 8)]);
    end(bench, file);
}

#[test]
fn a_call_that_writes_asks_nobody() {
    let (mut bench, disk, file) = mapped(64);
    file.write(&mut bench.cpu, 3 * PAGE_SIZE + 5, &[1, 2, 3]).unwrap();
    file.resize(&mut bench.cpu, 3 * PAGE_SIZE + 8).unwrap();
    assert_eq!(bench.byte(3), 0);
    assert_eq!((disk.asked(), standings(&file)[3]), (std::vec![], Some(Standing::Dirty)));
    let sums = bench.space.footprint(&mut bench.cpu, range(0, 4));
    assert_eq!(sums.private_dirty, 1, "smaps counts a page that is dirty by itself");
    sync(&mut bench, &file).unwrap();
    assert_eq!(disk.written(), [(3, 0)]);
    assert_eq!(*disk.lengths.lock().unwrap(), [8], "up to the end of the file");
    end(bench, file);
}

#[test]
fn what_was_behind_the_end_is_written_when_the_file_grows() {
    let (mut bench, disk) = (Bench::new(64), Arc::new(Disk::default()));
    let file = bench.vm.new_file(100, disk.clone(), "file").unwrap();
    file.write(&mut bench.cpu, 0, &[1]).unwrap();
    sync(&mut bench, &file).unwrap();
    file.write(&mut bench.cpu, PAGE_SIZE + 7, &[2]).unwrap();
    sync(&mut bench, &file).unwrap();
    file.resize(&mut bench.cpu, PAGE_SIZE + 50).unwrap();
    sync(&mut bench, &file).unwrap();
    file.resize(&mut bench.cpu, 3 * PAGE_SIZE).unwrap();
    sync(&mut bench, &file).unwrap();
    assert_eq!(*disk.lengths.lock().unwrap(), [100, 4096, 8, 50, 4096]);
    end(bench, file);
}

#[test]
fn a_refusal_is_a_bus_error() {
    // CW-08.
    let (mut bench, disk, file) = mapped(64);
    disk.refuses.store(true, Relaxed);
    for page in [0, 1] {
        assert_eq!(bench.space.fault(&mut bench.cpu, at(page), Access::Write), Err(FaultError::Bus));
        bench.space.pages(&mut bench.cpu, range(page, 1), |page| assert!(!page.writable && !page.dirty));
    }
    assert_eq!((disk.asked(), waiting(&bench)), (std::vec![0, 1], 0));
    bench.vm.audit(&mut bench.cpu, &[&bench.space], &[&file]).unwrap();
    disk.refuses.store(false, Relaxed);
    bench.put(1, 4);
    assert_eq!((bench.byte(1), waiting(&bench)), (4, 1));
    end(bench, file);
    assert_eq!(disk.written(), [(1, 4)], "with the last handle");
}

#[test]
fn private_mappings_ask_nobody() {
    let (mut bench, disk, file) = mapped(64);
    map(&mut bench, 10, &file, Sharing::Private);
    bench.put(10, 3);
    assert_eq!(bench.byte(11), 0);
    bench.put(11, 3);
    assert_eq!((disk.asked(), waiting(&bench)), (std::vec![], 0));
    sync(&mut bench, &file).unwrap();
    assert_eq!((bench.byte(10), disk.written()), (3, std::vec![]));
    end(bench, file);
}

#[test]
fn rights_that_come_back_are_asked_for() {
    let (mut bench, disk, file) = mapped(64);
    bench.put(0, 1);
    for rights in [Rights::NONE, Rights::READ, RW()] {
        bench.space.protect(&mut bench.cpu, range(0, 4), rights).unwrap();
    }
    assert_eq!((disk.asked(), waiting(&bench)), (std::vec![0], 1));
    bench.put(0, 2);
    assert_eq!((disk.asked(), waiting(&bench)), (std::vec![0], 1));
    bench.space.protect(&mut bench.cpu, range(0, 4), Rights::NONE).unwrap();
    sync(&mut bench, &file).unwrap();
    assert_eq!((disk.written(), waiting(&bench)), (std::vec![(0, 2)], 0));
    end(bench, file);
}

#[test]
fn failures_are_told_once_and_the_page_stays_dirty() {
    let (mut bench, disk, file) = mapped(64);
    let (mut first, mut second) = (file.write_errors(), file.write_errors());
    bench.put(0, 1);
    disk.fails.store(true, Relaxed);
    assert_eq!(file.sync(&mut bench.cpu, 0, PAGE_SIZE, &mut first), Err(ObjectError::Io));
    assert_eq!((standings(&file)[0], waiting(&bench)), (Some(Standing::Dirty), 1));
    disk.fails.store(false, Relaxed);
    assert_eq!(file.sync(&mut bench.cpu, 0, PAGE_SIZE, &mut first), Ok(()), "it was told");
    assert_eq!(disk.written(), [(0, 1)]);
    assert_eq!(file.sync(&mut bench.cpu, 0, PAGE_SIZE, &mut second), Err(ObjectError::Io), "and this one was not");
    assert_eq!(file.sync(&mut bench.cpu, 0, PAGE_SIZE, &mut second), Ok(()));
    let told = bench.space.sync(&mut bench.cpu, range(0, 4));
    assert_eq!(told, Err(SyncError { at: at(0) }), "nor were those who map it");
    assert_eq!(bench.space.sync(&mut bench.cpu, range(0, 4)), Ok(()));
    let mut late = file.write_errors();
    assert_eq!(file.sync(&mut bench.cpu, 0, PAGE_SIZE, &mut late), Ok(()), "somebody heard of it before");
    end(bench, file);
}

#[test]
fn a_failure_that_nobody_heard_of_waits_for_the_next_handle() {
    let (mut bench, disk, file) = mapped(64);
    let mut never = file.write_errors();
    bench.put(0, 1);
    disk.fails.store(true, Relaxed);
    // Written, but nobody asked how it went.
    super::super::writeback::write_pages(bench.cpu.ctx(), &bench.vm.registry, &file, (0, 4));
    disk.fails.store(false, Relaxed);
    let mut late = file.write_errors();
    assert_eq!(file.sync(&mut bench.cpu, 0, PAGE_SIZE, &mut late), Err(ObjectError::Io));
    assert_eq!(file.sync(&mut bench.cpu, 0, PAGE_SIZE, &mut never), Err(ObjectError::Io));
    end(bench, file);
}

#[test]
fn shared_tables_are_cleaned_in_place() {
    // SH-10: once for all sharers, and nothing is copied for it.
    let (mut bench, disk, file) = mapped(96);
    (0..4).for_each(|page| bench.put(page, 10 + page as u8));
    let child = bench.space.fork(&mut bench.cpu).unwrap();
    let before = bench.stat("slow_unshare_copy");
    sync(&mut bench, &file).unwrap();
    assert_eq!(disk.written(), [(0, 10), (1, 11), (2, 12), (3, 13)]);
    assert_eq!((bench.stat("slow_unshare_copy"), waiting(&bench)), (before, 0));
    disk.asked();
    child.write(&mut bench.cpu, at(1), &[77]).unwrap();
    assert_eq!((disk.asked(), bench.byte(1), waiting(&bench)), (std::vec![1], 77, 1));
    bench.put(2, 78);
    assert_eq!(disk.asked(), [2]);
    child.unmap(&mut bench.cpu, range(0, 4)).unwrap();
    sync(&mut bench, &file).unwrap();
    assert_eq!(disk.written(), [(1, 77), (2, 78)]);
    child.exit(&mut bench.cpu);
    end(bench, file);
}

#[test]
fn entries_that_leave_tell_the_page() {
    // TR-03. Shared memory is mapped writable by loads, so that only the entry hears of stores.
    for leave in 0..4 {
        let mut bench = Bench::new(96);
        let memory = bench.vm.new_memory(4 * PAGE_SIZE, "memory").unwrap();
        map(&mut bench, 0, &memory, Sharing::Shared);
        assert_eq!((bench.byte(0), bench.byte(1)), (0, 0));
        bench.put(1, 5);
        assert_eq!(standings(&memory)[..2], [Some(Standing::Clean); 2], "only the entry knows");
        let child = bench.space.fork(&mut bench.cpu).unwrap();
        match leave {
            0 => bench.space.unmap(&mut bench.cpu, range(0, 4)).unwrap(),
            1 => bench.space.discard(&mut bench.cpu, range(0, 4), false).unwrap(),
            2 => bench.space.remap_pages(&mut bench.cpu, range(0, 2), 2, AreaFlags::NONE).unwrap(),
            _ => {}
        }
        child.exit(&mut bench.cpu);
        if leave == 3 {
            assert_eq!(standings(&memory)[1], Some(Standing::Clean), "the parent's entry still knows");
            bench.space.deactivate(&mut bench.cpu);
            bench.space.exit(&mut bench.cpu);
        }
        assert_eq!(standings(&memory)[..2], [Some(Standing::Clean), Some(Standing::Dirty)], "way {leave}");
        assert_eq!(waiting(&bench), 0, "there is nobody to write it to");
        if leave != 3 {
            end(bench, memory);
        }
    }
}

#[test]
fn pages_that_leave_the_file_are_not_written() {
    let (mut bench, disk, file) = mapped(64);
    (0..4).for_each(|page| bench.put(page, 1));
    file.punch_hole(&mut bench.cpu, PAGE_SIZE, PAGE_SIZE).unwrap();
    assert_eq!(waiting(&bench), 3);
    file.resize(&mut bench.cpu, 2 * PAGE_SIZE + 100).unwrap();
    assert_eq!(waiting(&bench), 2);
    sync(&mut bench, &file).unwrap();
    assert_eq!(disk.written(), [(0, 1), (2, 1)]);
    file.resize(&mut bench.cpu, 2 * PAGE_SIZE + 50).unwrap();
    assert_eq!(waiting(&bench), 1, "what was cut in the page is zeroes");
    end(bench, file);
}

#[test]
fn a_pinned_page_is_dirty_when_it_is_unpinned() {
    let (mut bench, disk, file) = mapped(64);
    let pins = bench.space.pin(&mut bench.cpu, range(0, 1), Access::Write).unwrap();
    let reads = bench.space.pin(&mut bench.cpu, range(1, 1), Access::Read).unwrap();
    sync(&mut bench, &file).unwrap();
    assert_eq!((disk.written(), waiting(&bench)), (std::vec![(0, 0)], 0));
    drop((pins, reads));
    assert_eq!(standings(&file)[..2], [Some(Standing::Dirty), Some(Standing::Clean)]);
    end(bench, file);
}

#[test]
fn nonlinear_mappings_are_cleaned_where_the_page_is() {
    let (mut bench, disk, file) = mapped(64);
    bench.space.remap_pages(&mut bench.cpu, range(0, 1), 3, AreaFlags::NONE).unwrap();
    bench.put(0, 44);
    bench.put(1, 45);
    assert_eq!(disk.asked(), [3, 1]);
    let mut known = file.write_errors();
    file.sync(&mut bench.cpu, 3 * PAGE_SIZE, PAGE_SIZE, &mut known).unwrap();
    assert_eq!((disk.written(), waiting(&bench)), (std::vec![(3, 44)], 1));
    bench.space.sync(&mut bench.cpu, range(0, 1)).unwrap();
    assert_eq!((disk.written(), waiting(&bench)), (std::vec![(1, 45)], 0), "any page may be anywhere");
    end(bench, file);
}

#[test]
fn more_pages_than_are_claimed_at_a_time() {
    let (mut bench, disk) = (Bench::new(700), Arc::new(Disk::default()));
    let file = bench.vm.new_file(300 * PAGE_SIZE, disk.clone(), "file").unwrap();
    for page in 0..300 {
        file.write(&mut bench.cpu, page * PAGE_SIZE, &[page as u8]).unwrap();
    }
    assert_eq!(waiting(&bench), 300);
    sync(&mut bench, &file).unwrap();
    assert_eq!(disk.written(), (0..300).map(|page| (page, page as u8)).collect::<Vec<_>>());
    assert_eq!(waiting(&bench), 0);
    end(bench, file);
}
