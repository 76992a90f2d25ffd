//! Watched ranges: what is reported, what is put in, moved and marked, and who is woken (userfaultfd).

use super::{Bench, RW, at, get, range};
use crate::{
    Access, Backing, Destination, FaultError, Fill, MapRequest, Object, PAGE_SIZE, PageRange, RangeEvent, RemapRequest,
    Report, Rights, Sharing, Ticket, Waiting, WatchError, WatchModes, Watched, Watcher,
};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::vec::Vec;

/// Keeps what it is told. Nobody waits here.
#[derive(Default)]
struct Notes {
    said: Mutex<Vec<(u64, Watched)>>,
    withdrawn: Mutex<u64>,
    woken: Mutex<Vec<PageRange>>,
    closed: AtomicBool,
    /// Follows what moves, watches children, marks what is absent.
    eager: AtomicBool,
    refusing: AtomicBool,
    events: Mutex<Vec<RangeEvent>>,
    heirs: Mutex<Vec<Arc<Notes>>>,
}

impl Watcher for Notes {
    fn announce(&self, report: &Report) -> Ticket {
        let mut said = self.said.lock().unwrap();
        said.push(((report.addr.as_u64() - super::BASE) / PAGE_SIZE, report.why));
        Ticket(said.len() as u64)
    }
    fn withdraw(&self, _ticket: Ticket) {
        *self.withdrawn.lock().unwrap() += 1;
    }
    fn wait(&self, _ticket: Ticket) -> Waiting {
        Waiting::Elsewhere
    }
    fn wake(&self, range: PageRange) {
        self.woken.lock().unwrap().push(range);
    }
    fn changed(&self, event: RangeEvent) {
        self.events.lock().unwrap().push(event);
    }
    fn follows(&self) -> bool {
        self.eager.load(SeqCst)
    }
    fn fork(&self) -> Option<Arc<dyn Watcher>> {
        if !self.follows() {
            return None;
        }
        let heir = Arc::new(Notes::default());
        self.heirs.lock().unwrap().push(Arc::clone(&heir));
        Some(heir)
    }
    fn marks_absent(&self) -> bool {
        self.follows()
    }
    fn refuses(&self) -> bool {
        self.refusing.load(SeqCst)
    }
    fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }
}

const MISSING: WatchModes = WatchModes { missing: true, minor: false, stores: false };
const ALL: WatchModes = WatchModes { missing: true, minor: false, stores: true };

struct Watching {
    bench: Bench,
    notes: Arc<Notes>,
    watcher: Arc<dyn Watcher>,
}

impl Watching {
    fn new(frames: u64) -> Self {
        let notes = Arc::new(Notes::default());
        Self { bench: Bench::new(frames), watcher: Arc::clone(&notes) as Arc<dyn Watcher>, notes }
    }

    fn watch(&mut self, page: u64, pages: u64, modes: WatchModes) -> Result<(), WatchError> {
        self.bench.space.watch(&mut self.bench.cpu, range(page, pages), &self.watcher, modes)
    }

    fn fill(&mut self, page: u64, fill: Fill<'_>) -> Result<(), WatchError> {
        self.bench.space.copy_in(&mut self.bench.cpu, at(page), fill, false)
    }

    fn mark(&mut self, page: u64, pages: u64, on: bool) -> Result<(), WatchError> {
        self.bench.space.mark(&mut self.bench.cpu, range(page, pages), on)
    }

    fn steal(&mut self, to: u64, pages: u64, from: u64, holes: bool) -> (u64, Result<(), WatchError>) {
        let (space, cpu) = (&self.bench.space, &mut self.bench.cpu);
        let (done, result) = space.move_in(cpu, &self.watcher, range(to, pages), at(from), holes);
        (done / PAGE_SIZE, result)
    }

    fn fault(&mut self, page: u64, access: Access) -> Option<FaultError> {
        self.bench.space.fault(&mut self.bench.cpu, at(page), access).err()
    }

    /// What was reported since the last call.
    fn said(&self) -> Vec<(u64, Watched)> {
        std::mem::take(&mut *self.notes.said.lock().unwrap())
    }

    fn woken(&self) -> Vec<PageRange> {
        std::mem::take(&mut *self.notes.woken.lock().unwrap())
    }
}

#[test]
fn a_missing_page_is_reported_and_put_in() {
    let mut test = Watching::new(128);
    test.bench.map(0, 8);
    test.bench.put(0, 1);
    test.watch(0, 4, MISSING).unwrap();
    assert_eq!((test.fault(0, Access::Read), test.fault(5, Access::Write)), (None, None));
    assert_eq!(test.fault(1, Access::Read), Some(FaultError::Watched));
    assert_eq!(test.fault(2, Access::Write), Some(FaultError::Watched));
    assert_eq!(test.said(), [(1, Watched::Missing), (2, Watched::Missing)]);
    test.fill(1, Fill::Bytes(&[7])).unwrap();
    test.fill(2, Fill::Zeroes).unwrap();
    test.fill(3, Fill::Lost).unwrap();
    assert_eq!(test.fill(1, Fill::Zeroes), Err(WatchError::Exists));
    assert_eq!(test.fill(3, Fill::Zeroes), Err(WatchError::Exists));
    assert_eq!(test.fill(6, Fill::Zeroes), Err(WatchError::Absent));
    assert_eq!(test.fill(20, Fill::Zeroes), Err(WatchError::Absent));
    assert_eq!((test.bench.byte(1), test.bench.byte(2)), (7, 0));
    assert_eq!(test.fault(3, Access::Read), Some(FaultError::Bus));
    test.fill(3, Fill::Bytes(&[6])).unwrap();
    assert_eq!(test.bench.byte(3), 6);
    (0..3).for_each(|page| test.bench.put(page, 9));
    // What is discarded is missing again, also what was lost.
    test.bench.space.discard(&mut test.bench.cpu, range(0, 4), false).unwrap();
    assert_eq!(test.fault(3, Access::Read), Some(FaultError::Watched));
    assert_eq!(*test.notes.withdrawn.lock().unwrap(), 0);
    test.bench.finish(&[]);
}

#[test]
fn stores_to_marked_pages_are_reported() {
    let mut test = Watching::new(128);
    test.bench.map(0, 4);
    (0..3).for_each(|page| test.bench.put(page, 1));
    assert_eq!(test.mark(0, 4, true), Err(WatchError::Absent));
    test.watch(0, 4, WatchModes { stores: true, ..WatchModes::default() }).unwrap();
    test.mark(0, 4, true).unwrap();
    assert_eq!((test.fault(0, Access::Read), test.fault(0, Access::Write)), (None, Some(FaultError::Watched)));
    assert_eq!(test.said(), [(0, Watched::Store)]);
    // Rights that go and come leave the mark; a page that was not there has none.
    test.bench.space.protect(&mut test.bench.cpu, range(0, 4), Rights::NONE).unwrap();
    test.bench.space.protect(&mut test.bench.cpu, range(0, 4), RW()).unwrap();
    assert_eq!((test.fault(1, Access::Write), test.fault(3, Access::Write)), (Some(FaultError::Watched), None));
    // A child is not watched, and its stores are its own; the parent's marks stay.
    let child = test.bench.space.fork(&mut test.bench.cpu).unwrap();
    child.write(&mut test.bench.cpu, at(2), &[5]).unwrap();
    assert_eq!(test.fault(2, Access::Write), Some(FaultError::Watched));
    test.mark(0, 3, false).unwrap();
    (0..3).for_each(|page| test.bench.put(page, 2));
    assert_eq!((get(&child, &mut test.bench.cpu, 2), test.bench.byte(2)), (5, 2));
    // Marks of an earlier watch mean nothing to the next.
    test.mark(0, 3, true).unwrap();
    test.bench.space.unwatch(&mut test.bench.cpu, range(0, 4)).unwrap();
    test.bench.put(0, 3);
    test.watch(0, 4, ALL).unwrap();
    test.bench.put(1, 3);
    test.bench.finish(&[&child]);
}

#[test]
fn a_marked_page_can_be_put_in() {
    let mut test = Watching::new(64);
    test.bench.map(0, 2);
    test.watch(0, 2, MISSING).unwrap();
    let copy = |test: &mut Watching| test.bench.space.copy_in(&mut test.bench.cpu, at(0), Fill::Bytes(&[4]), true);
    assert_eq!(copy(&mut test), Err(WatchError::Invalid));
    test.watch(0, 2, ALL).unwrap();
    copy(&mut test).unwrap();
    assert_eq!((test.bench.byte(0), test.fault(0, Access::Write)), (4, Some(FaultError::Watched)));
    test.mark(0, 1, false).unwrap();
    test.bench.put(0, 5);
    test.bench.finish(&[]);
}

fn object(test: &mut Watching, sharing: Sharing, page: u64) -> Arc<Object<super::TestMachine>> {
    let object = test.bench.vm.new_memory(3 * PAGE_SIZE, "m").unwrap();
    let backing = Backing::Object { object: Arc::clone(&object), offset: 0 };
    let request = MapRequest { sharing, backing, ..MapRequest::anonymous(4 * PAGE_SIZE).fixed(at(page)) };
    test.bench.space.map(&mut test.bench.cpu, request).unwrap();
    object
}

#[test]
fn pages_of_objects_are_minor_or_missing() {
    let mut test = Watching::new(128);
    let object = object(&mut test, Sharing::Shared, 0);
    test.watch(0, 4, WatchModes { missing: true, minor: true, stores: false }).unwrap();
    object.write(&mut test.bench.cpu, 0, &[6]).unwrap();
    assert_eq!(test.fault(0, Access::Read), Some(FaultError::Watched));
    assert_eq!(test.fault(1, Access::Read), Some(FaultError::Watched));
    assert_eq!(test.fault(3, Access::Read), Some(FaultError::Bus));
    assert_eq!(test.said(), [(0, Watched::Minor), (1, Watched::Missing)]);
    assert_eq!(test.fill(0, Fill::Bytes(&[9])), Err(WatchError::Exists));
    assert_eq!(test.fill(1, Fill::Cached), Err(WatchError::NoPage));
    assert_eq!(test.fill(3, Fill::Zeroes), Err(WatchError::NoPage));
    test.fill(0, Fill::Cached).unwrap();
    test.fill(1, Fill::Bytes(&[8])).unwrap();
    test.bench.put(0, 7);
    assert_eq!((test.bench.byte(0), test.bench.byte(1)), (7, 8));
    let mut byte = [0];
    object.read(&mut test.bench.cpu, PAGE_SIZE, &mut byte).unwrap();
    assert_eq!(byte, [8]);
    test.bench.space.unmap(&mut test.bench.cpu, range(0, 4)).unwrap();
    drop(object);
    test.bench.finish(&[]);
}

#[test]
fn whoever_waits_is_woken_when_the_watch_ends() {
    let mut test = Watching::new(128);
    test.bench.map(0, 8);
    test.watch(0, 8, MISSING).unwrap();
    assert!(test.woken().is_empty());
    // Other rights are no end of the watch.
    test.bench.space.protect(&mut test.bench.cpu, range(2, 2), Rights::READ).unwrap();
    assert!(test.woken().is_empty());
    test.bench.space.unmap(&mut test.bench.cpu, range(1, 2)).unwrap();
    assert_eq!(test.woken(), [range(1, 1), range(2, 1)]);
    test.bench.space.unwatch(&mut test.bench.cpu, range(3, 2)).unwrap();
    assert_eq!(test.woken().into_iter().map(PageRange::pages).sum::<u64>(), 2);
    test.bench.map(5, 1);
    assert_eq!(test.woken(), [range(5, 1)]);
    // Who has gone is not asked, and others may watch.
    test.notes.closed.store(true, SeqCst);
    assert_eq!(test.fault(7, Access::Read), None);
    let other: Arc<dyn Watcher> = Arc::new(Notes::default());
    test.bench.space.watch(&mut test.bench.cpu, range(6, 1), &other, MISSING).unwrap();
    test.notes.closed.store(false, SeqCst);
    assert_eq!(test.watch(6, 1, MISSING), Err(WatchError::Busy));
    test.woken();
    let notes = Arc::clone(&test.notes);
    test.bench.finish(&[]);
    assert!(!notes.woken.lock().unwrap().is_empty(), "exit wakes");
}

#[test]
fn pages_move_into_watched_memory() {
    let mut test = Watching::new(256);
    test.bench.map(0, 8);
    test.bench.map(2000, 8);
    (0..3).for_each(|page| test.bench.put(page, page as u8 + 1));
    test.bench.put(4, 5);
    assert_eq!(test.steal(2000, 1, 0, false), (0, Err(WatchError::Invalid)));
    test.watch(2000, 8, MISSING).unwrap();
    assert_eq!(test.steal(2000, 8, 0, false), (3, Err(WatchError::Absent)));
    assert_eq!([2000, 2001, 2002].map(|page| test.bench.byte(page)), [1, 2, 3]);
    assert_eq!([0, 1, 2].map(|page| test.bench.byte(page)), [0; 3]);
    assert_eq!(test.steal(2000, 1, 4, false), (0, Err(WatchError::Exists)));
    assert_eq!(test.steal(2003, 3, 4, true), (3, Ok(())));
    assert_eq!((test.bench.byte(2003), test.fault(2004, Access::Read)), (5, Some(FaultError::Watched)));
    // A page that a child has too does not move, nor one that is pinned.
    test.bench.put(6, 6);
    let pinned = test.bench.space.pin(&mut test.bench.cpu, range(6, 1), Access::Write).unwrap();
    assert_eq!(test.steal(2004, 1, 6, false), (0, Err(WatchError::Busy)));
    drop(pinned);
    let child = test.bench.space.fork(&mut test.bench.cpu).unwrap();
    assert_eq!(test.steal(2004, 1, 6, false), (0, Err(WatchError::Busy)));
    test.bench.put(6, 7);
    assert_eq!(test.steal(2004, 1, 6, false), (1, Ok(())));
    assert_eq!((test.bench.byte(2004), get(&child, &mut test.bench.cpu, 6)), (7, 6));
    assert_eq!(test.steal(2005, 2, 2006, false), (0, Err(WatchError::Invalid)));
    test.bench.finish(&[&child]);
}

#[test]
fn what_cannot_be_watched_is_refused() {
    let mut test = Watching::new(64);
    assert_eq!(test.watch(0, 4, MISSING), Err(WatchError::Invalid));
    let request = MapRequest { max_rights: Rights::READ, rights: Rights::READ, ..MapRequest::anonymous(PAGE_SIZE) };
    test.bench.space.map(&mut test.bench.cpu, request.fixed(at(0))).unwrap();
    assert_eq!(test.watch(0, 4, MISSING), Err(WatchError::ReadOnly));
    let minor = WatchModes { minor: true, ..WatchModes::default() };
    test.bench.map(2, 1);
    assert_eq!(test.watch(2, 1, minor), Err(WatchError::Invalid));
    assert_eq!(test.bench.space.unwatch(&mut test.bench.cpu, range(2, 2)), Ok(()));
    let request = MapRequest { backing: Backing::Frames, ..MapRequest::anonymous(PAGE_SIZE) };
    test.bench.space.map(&mut test.bench.cpu, request.fixed(at(3))).unwrap();
    assert_eq!(test.watch(3, 1, MISSING), Err(WatchError::Invalid));
    test.bench.finish(&[]);
}

const STORES: WatchModes = WatchModes { missing: false, minor: false, stores: true };

#[test]
fn pages_of_objects_can_be_marked_and_stay_so() {
    let mut test = Watching::new(256);
    let object = object(&mut test, Sharing::Shared, 0);
    test.bench.put(0, 1);
    test.watch(0, 4, STORES).unwrap();
    test.mark(0, 3, true).unwrap();
    // A page that is there, and one that comes later; behind the end there is none.
    assert_eq!((test.bench.byte(0), test.bench.byte(1)), (1, 0));
    assert_eq!(
        (test.fault(0, Access::Write), test.fault(1, Access::Write)),
        (Some(FaultError::Watched), Some(FaultError::Watched))
    );
    assert_eq!(test.fault(2, Access::Write), Some(FaultError::Watched));
    assert_eq!(test.said(), [(0, Watched::Store), (1, Watched::Store), (2, Watched::Store)]);
    assert_eq!(test.fault(3, Access::Write), Some(FaultError::Bus));
    // What leaves comes back marked: discarded, punched out, also when a child has the table too.
    let child = test.bench.space.fork(&mut test.bench.cpu).unwrap();
    test.bench.space.discard(&mut test.bench.cpu, range(0, 4), false).unwrap();
    object.punch_hole(&mut test.bench.cpu, 0, PAGE_SIZE).unwrap();
    assert_eq!((test.bench.byte(0), test.fault(0, Access::Write)), (0, Some(FaultError::Watched)));
    child.write(&mut test.bench.cpu, at(1), &[5]).unwrap();
    assert_eq!((test.bench.byte(1), test.fault(1, Access::Write)), (5, Some(FaultError::Watched)));
    test.mark(0, 2, false).unwrap();
    (0..2).for_each(|page| test.bench.put(page, 9));
    assert_eq!((get(&child, &mut test.bench.cpu, 0), test.fault(2, Access::Write)), (9, Some(FaultError::Watched)));
    // Put in with a mark, and without over one.
    test.bench.space.discard(&mut test.bench.cpu, range(0, 4), false).unwrap();
    let copy = |test: &mut Watching, page, marked| {
        test.bench.space.copy_in(&mut test.bench.cpu, at(page), Fill::Cached, marked)
    };
    assert_eq!((copy(&mut test, 0, true), copy(&mut test, 2, false)), (Ok(()), Ok(())));
    assert_eq!((test.fault(0, Access::Write), test.fault(2, Access::Write)), (Some(FaultError::Watched), None));
    test.bench.space.unmap(&mut test.bench.cpu, range(0, 4)).unwrap();
    child.unmap(&mut test.bench.cpu, range(0, 4)).unwrap();
    drop(object);
    test.bench.finish(&[&child]);
}

#[test]
fn absent_pages_of_private_memory_are_marked_if_the_watcher_wants_it() {
    let mut test = Watching::new(128);
    test.bench.map(0, 4);
    test.watch(0, 4, STORES).unwrap();
    test.mark(0, 4, true).unwrap();
    assert_eq!(test.fault(0, Access::Write), None);
    test.notes.eager.store(true, SeqCst);
    test.mark(0, 4, true).unwrap();
    assert_eq!((test.fault(1, Access::Write), test.bench.byte(2)), (Some(FaultError::Watched), 0));
    assert_eq!(
        (test.fault(2, Access::Write), test.fault(0, Access::Write)),
        (Some(FaultError::Watched), Some(FaultError::Watched))
    );
    // A discard takes the marks along.
    test.bench.space.discard(&mut test.bench.cpu, range(0, 4), false).unwrap();
    (0..4).for_each(|page| test.bench.put(page, 1));
    test.mark(0, 4, true).unwrap();
    test.bench.space.unmap(&mut test.bench.cpu, range(0, 2)).unwrap();
    test.bench.map(0, 2);
    test.watch(0, 2, STORES).unwrap();
    (0..2).for_each(|page| test.bench.put(page, 1));
    test.notes.refusing.store(true, SeqCst);
    assert_eq!(test.fault(3, Access::Write), Some(FaultError::Bus));
    test.bench.finish(&[]);
}

#[test]
fn whoever_watches_is_told_what_becomes_of_ranges() {
    let mut test = Watching::new(256);
    test.bench.map(0, 8);
    test.bench.put(0, 1);
    test.watch(0, 8, ALL).unwrap();
    test.notes.eager.store(true, SeqCst);
    let events = |test: &Watching| std::mem::take(&mut *test.notes.events.lock().unwrap());
    test.bench.space.discard(&mut test.bench.cpu, range(1, 2), false).unwrap();
    test.bench.space.free_lazily(&mut test.bench.cpu, range(4, 1)).unwrap();
    test.bench.space.tell_removed(&mut test.bench.cpu, range(6, 8));
    assert_eq!(events(&test), [(1, 2), (4, 1), (6, 2)].map(|(page, pages)| RangeEvent::Removed(range(page, pages))));
    // munmap and mmap tell of all that they were asked for.
    test.bench.space.unmap(&mut test.bench.cpu, range(6, 4)).unwrap();
    test.bench.map(5, 1);
    test.bench.map(20, 1);
    assert_eq!(events(&test), [(6, 4), (5, 1)].map(|(page, pages)| RangeEvent::Unmapped(range(page, pages))));
    // What moves is still watched, with its pages and marks.
    test.mark(0, 1, true).unwrap();
    let destination = Destination::Fixed(at(30));
    let request =
        RemapRequest { addr: at(0), old_len: 3 * PAGE_SIZE, new_len: 3 * PAGE_SIZE, destination, keep: false };
    test.bench.space.remap(&mut test.bench.cpu, request).unwrap();
    assert_eq!(events(&test), [RangeEvent::Moved { from: range(0, 3), to: at(30) }, RangeEvent::Unmapped(range(0, 3))]);
    assert_eq!(
        (test.fault(31, Access::Read), test.fault(30, Access::Write)),
        (Some(FaultError::Watched), Some(FaultError::Watched))
    );
    // A change of rights, and the end of a watch, are none.
    test.bench.space.protect(&mut test.bench.cpu, range(30, 1), Rights::READ).unwrap();
    test.bench.space.unwatch(&mut test.bench.cpu, range(31, 1)).unwrap();
    assert_eq!(events(&test), []);
    let child = test.bench.space.fork(&mut test.bench.cpu).unwrap();
    let heirs = std::mem::take(&mut *test.notes.heirs.lock().unwrap());
    assert_eq!((heirs.len(), child.is_watched()), (1, true), "one for both areas");
    assert_eq!(child.fault(&mut test.bench.cpu, at(3), Access::Read), Err(FaultError::Watched));
    assert_eq!(
        (heirs[0].said.lock().unwrap().len(), child.fault(&mut test.bench.cpu, at(31), Access::Read).is_ok()),
        (1, true)
    );
    test.bench.finish(&[&child]);
}
