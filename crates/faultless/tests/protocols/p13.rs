//! P13: a fault that was reported waits until it is answered or nobody watches any more; nobody waits for ever, and what
//! was put in, marked or taken away is so when the call returns.

use crate::model::*;
use crate::scenario;
use faultless::{Fill, PageRange, Report, Ticket, VirtAddr, Waiting, WatchModes, Watcher};
use loom::sync::{Condvar, Mutex};
use std::sync::Arc;

type Two = X86<2, 1, 2>;

/// Tickets, and who waits for them. A wait that nobody ends is a deadlock, which the checker reports.
struct Desk {
    /// Per ticket: its page, and whether it was woken.
    tickets: Mutex<Vec<(u64, bool)>>,
    woken: Condvar,
}

impl Desk {
    fn new() -> Arc<Self> {
        Arc::new(Self { tickets: Mutex::new(Vec::new()), woken: Condvar::new() })
    }

    /// Were there any reports?
    fn has_reports(&self) -> bool {
        !self.tickets.lock().expect("no panic is survived").is_empty()
    }
}

impl Watcher for Desk {
    fn announce(&self, report: &Report) -> Ticket {
        let mut tickets = self.tickets.lock().expect("no panic is survived");
        tickets.push((report.addr.align_down().as_u64(), false));
        Ticket(tickets.len() as u64 - 1)
    }

    fn withdraw(&self, _ticket: Ticket) {}

    fn wait(&self, ticket: Ticket) -> Waiting {
        let mut tickets = self.tickets.lock().expect("no panic is survived");
        while !tickets[ticket.0 as usize].1 {
            tickets = self.woken.wait(tickets).expect("no panic is survived");
        }
        Waiting::Over
    }

    fn wake(&self, range: PageRange) {
        let mut tickets = self.tickets.lock().expect("no panic is survived");
        for (page, woken) in tickets.iter_mut() {
            *woken |= range.contains(VirtAddr::new(*page));
        }
        self.woken.notify_all();
    }

    fn is_closed(&self) -> bool {
        false
    }
}

const MISSING: WatchModes = WatchModes { missing: true, minor: false, stores: false };
const STORES: WatchModes = WatchModes { missing: false, minor: false, stores: true };

fn watch(worker: &mut Worker<Two>, space: &Space<Two>, desk: &Arc<Desk>, modes: WatchModes) {
    let watcher: Arc<dyn Watcher> = Arc::clone(desk) as _;
    space.watch(&mut worker.cpu, pages(0, 1), &watcher, modes).expect("private memory");
}

/// Two pages; page 1 was stored to, so that the table is there. Both CPUs run the space.
fn mapped() -> (World<Two>, [Worker<Two>; 2], Space<Two>, Arc<Desk>) {
    let (world, mut workers) = World::<Two>::new::<2>(40);
    let [a, b] = &mut workers;
    let space = a.space();
    a.map(&space, 0, 2, rw());
    a.run(&space);
    b.run(&space);
    assert!(a.write(&space, 1, 0, 1));
    (world, workers, space, Desk::new())
}

fn put(worker: &mut Worker<Two>, space: &Space<Two>, value: u64) -> bool {
    space.copy_in(&mut worker.cpu, VirtAddr::new(0), Fill::Bytes(&value.to_le_bytes()), false).is_ok()
}

scenario! {
    /// A page is put in while a fault asks for it.
    fill (3, 4)
    reaches ["asked", "found"]
    catches [WaitWithoutLook]
    {
        let (world, [mut a, mut b], space, desk) = mapped();
        watch(&mut a, &space, &desk, MISSING);
        let other = space.clone();
        let running = spawn(move || (b.read(&other, 0, 0), b));
        assert!(put(&mut a, &space, 7), "nobody else puts it in");
        desk.wake(pages(0, 1));
        let (seen, b) = running.join();
        assert_eq!(seen, Some(7));
        reach(if desk.has_reports() { "asked" } else { "found" });
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// The watch ends while a fault waits.
    unwatch (3, 4)
    reaches ["asked", "not asked"]
    catches [WaitWithoutLook, UnwatchWithoutWake]
    {
        let (world, [mut a, mut b], space, desk) = mapped();
        watch(&mut a, &space, &desk, MISSING);
        let other = space.clone();
        let running = spawn(move || (b.read(&other, 0, 0), b));
        space.unwatch(&mut a.cpu, pages(0, 1)).expect("memory");
        let (seen, b) = running.join();
        assert_eq!(seen, Some(0), "an ordinary page");
        reach(if desk.has_reports() { "asked" } else { "not asked" });
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// The range is unmapped while a fault waits.
    unmap (3, 4)
    catches [UnwatchWithoutWake]
    {
        let (world, [mut a, mut b], space, desk) = mapped();
        watch(&mut a, &space, &desk, MISSING);
        let other = space.clone();
        let running = spawn(move || (b.read(&other, 0, 0), b));
        a.unmap(&space, 0, 1);
        a.assert_gone(&space, 0);
        let (seen, b) = running.join();
        assert_eq!(seen, None, "nothing is mapped");
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// The space exits while an access from outside waits.
    exit (3, 4)
    catches [UnwatchWithoutWake]
    {
        let (world, [mut a, mut b], space, desk) = mapped();
        watch(&mut a, &space, &desk, MISSING);
        a.leave(&space);
        b.leave(&space);
        let other = space.clone();
        let running = spawn(move || (b.inspect(&other, 0, 0), b));
        a.exit(&space);
        let (seen, b) = running.join();
        assert_eq!(seen, None, "nothing is mapped");
        world.audit([a, b], &[], &[]);
    }
}

scenario! {
    /// A watch begins while a fault is under way: once it has begun, what is missing comes by an answer alone.
    watch_begins (3, 4)
    reaches ["before", "asked"]
    catches [WatchWithoutWait]
    {
        let (world, [mut a, mut b], space, desk) = mapped();
        let other = space.clone();
        let running = spawn(move || (b.write(&other, 0, 1, 5), b));
        watch(&mut a, &space, &desk, MISSING);
        let missing = a.entry(&space, 0).is_none();
        let done = put(&mut a, &space, 7);
        assert_eq!(done, missing, "a fault that nobody was told of put a page in");
        desk.wake(pages(0, 1));
        let (stored, b) = running.join();
        assert!(stored);
        reach(if missing { "asked" } else { "before" });
        assert_eq!(a.read(&space, 0, 1), Some(5));
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// A page is put in while the range is unmapped.
    fill_against_unmap (3, 5)
    reaches ["in", "late"]
    catches [FillWithoutLook]
    {
        let (world, [mut a, mut b], space, desk) = mapped();
        watch(&mut a, &space, &desk, MISSING);
        let other = space.clone();
        let running = spawn(move || (put(&mut b, &other, 7), b));
        a.unmap(&space, 0, 1);
        a.assert_gone(&space, 0);
        let (done, b) = running.join();
        reach(if done { "in" } else { "late" });
        a.assert_gone(&space, 0);
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// A page is put into an object while another is punched out of the same place.
    fill_against_punch (3, 5)
    reaches ["in", "before"]
    catches [PutInClosed]
    {
        let (world, mut workers) = World::<Two>::new::<2>(40);
        let object = workers[0].object(1, 33);
        let space = workers[0].space();
        workers[0].map_object(&space, 0, 1, rw(), Sharing::Shared, &object, 0);
        workers.iter_mut().for_each(|worker| worker.run(&space));
        let [mut a, mut b] = workers;
        watch(&mut a, &space, &Desk::new(), MISSING);
        let other = Arc::clone(&object);
        let running = spawn(move || {
            b.punch(&other, 0);
            b
        });
        let done = put(&mut a, &space, 7);
        let mut b = running.join();
        reach(if done { "in" } else { "before" });
        assert_eq!(b.read_object(&object, 0), Some(if done { 7 } else { 0 }));
        world.audit([a, b], &[&space], &[&object]);
    }
}

scenario! {
    /// A page is marked while it is stored to: once the mark is set, a store waits.
    mark (3, 4)
    reaches ["before", "asked"]
    catches [NoShootdown]
    {
        let (world, [mut a, mut b], space, desk) = mapped();
        assert!(a.write(&space, 0, 0, 1) && b.write(&space, 0, 1, 1));
        watch(&mut a, &space, &desk, STORES);
        let other = space.clone();
        let running = spawn(move || (b.write(&other, 0, 0, 9), b));
        space.mark(&mut a.cpu, pages(0, 1), true).expect("memory");
        let first = a.read(&space, 0, 0);
        let second = a.read(&space, 0, 0);
        assert_eq!(first, second, "a store that nobody was told of");
        space.mark(&mut a.cpu, pages(0, 1), false).expect("memory");
        desk.wake(pages(0, 1));
        let (stored, b) = running.join();
        assert!(stored);
        reach(if first == Some(9) { "before" } else { "asked" });
        assert_eq!(a.read(&space, 0, 0), Some(9));
        world.audit([a, b], &[&space], &[]);
    }
}
