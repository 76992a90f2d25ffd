//! P9: the pages of an object are looked up without a lock; after a truncation returned, no mapping shows a page that
//! was cut off, and nobody gets to see what it held.

use crate::model::*;
use crate::scenario;
use faultless::{PageWriter, Pager, PagerError};
use std::sync::Arc;

type Two = X86<2, 1, 2>;

/// An object of two pages, each beginning with 33, mapped at 0; both CPUs run the space.
fn mapped(sharing: Sharing) -> (World<Two>, [Worker<Two>; 2], Space<Two>, Backed<Two>) {
    let (world, mut workers) = World::<Two>::new::<2>(40);
    let [a, b] = &mut workers;
    let object = a.object(2, 33);
    let space = a.space();
    a.map_object(&space, 0, 2, rw(), sharing, &object, 0);
    a.run(&space);
    b.run(&space);
    (world, workers, space, object)
}

/// `b` reads page 0 while `a` truncates the object to nothing.
fn read_against_truncate(
    (world, [mut a, mut b], space, object): (World<Two>, [Worker<Two>; 2], Space<Two>, Backed<Two>),
) {
    let other = space.clone();
    let running = spawn(move || (b.read(&other, 0, 0), b));
    a.resize(&object, 0);
    a.assert_gone(&space, 0);
    let (seen, b) = running.join();
    reach(if seen.is_some() { "seen" } else { "signal" });
    assert!(seen.is_none() || seen == Some(33), "{seen:?}");
    a.assert_gone(&space, 0);
    assert_eq!(a.read(&space, 0, 0), None, "a page beyond the end");
    world.audit([a, b], &[&space], &[&object]);
}

/// A store to page 0 of a private mapping of which page `mapped_page` is mapped already.
fn store_against_truncate(mapped_page: u64) {
    let (world, [mut a, mut b], space, object) = mapped(Sharing::Private);
    assert_eq!(a.read(&space, mapped_page, 0), Some(33));
    let other = space.clone();
    let running = spawn(move || (b.write(&other, 0, 1, 7), b));
    a.resize(&object, 0);
    a.assert_gone(&space, 0);
    let (stored, b) = running.join();
    reach(if stored { "stored before" } else { "signal" });
    a.assert_gone(&space, 0);
    world.audit([a, b], &[&space], &[&object]);
}

scenario! {
    /// The table is there: page 1 was read.
    read_table_present (4, 6)
    reaches ["seen", "signal"]
    holds_with [NeverQuiet]
    catches [AlwaysQuiet, NoStamp, NoShootdown]
    {
        let (world, [mut a, b], space, object) = mapped(Sharing::Shared);
        assert_eq!(a.read(&space, 1, 0), Some(33));
        read_against_truncate((world, [a, b], space, object));
    }
}

scenario! {
    /// A nonlinear mapping shows the last page in the first place: the truncation finds it there (NL-03).
    nonlinear (3, 5)
    reaches ["seen", "signal"]
    holds_with [NeverQuiet]
    catches [OffsetStays, NoShootdown]
    {
        let (world, [mut a, mut b], space, object) = mapped(Sharing::Shared);
        a.arrange(&space, 0, 1, 1);
        let other = space.clone();
        let running = spawn(move || (b.read(&other, 0, 0), b));
        a.resize(&object, 1);
        a.assert_gone(&space, 0);
        let (seen, b) = running.join();
        reach(if seen.is_some() { "seen" } else { "signal" });
        assert!(seen.is_none() || seen == Some(33), "{seen:?}");
        a.assert_gone(&space, 0);
        assert_eq!(a.read(&space, 0, 0), None, "a page beyond the end");
        world.audit([a, b], &[&space], &[&object]);
    }
}

scenario! {
    /// A page is read while another is put in its place: one of them is seen, then the new one, and the counts are right
    /// whatever was displaced (NL-02).
    rearrange (3, 5)
    reaches ["old", "new"]
    catches [NoShootdown]
    {
        let (world, [mut a, mut b], space, object) = mapped(Sharing::Shared);
        a.write_object(&object, 1, 0, 44);
        a.arrange(&space, 0, 1, 1);
        let other = space.clone();
        let running = spawn(move || (b.read(&other, 0, 0), b));
        a.arrange(&space, 0, 1, 0);
        assert_eq!(a.read(&space, 0, 0), Some(33), "the page that was put there");
        let (seen, mut b) = running.join();
        reach(if seen == Some(44) { "old" } else { "new" });
        assert!(seen == Some(44) || seen == Some(33), "{seen:?}");
        assert_eq!(b.read(&space, 0, 0), Some(33), "the page that was put there");
        world.audit([a, b], &[&space], &[&object]);
    }
}

scenario! {
    /// No table yet.
    read_table_absent (3, 4)
    reaches ["seen", "signal"]
    holds_with [NeverQuiet]
    catches [AlwaysQuiet, NoUpperStamp]
    { read_against_truncate(mapped(Sharing::Shared)) }
}

scenario! {
    /// A store to a page that is mapped copies it, or comes too late; private copies are cut off too.
    cow (3, 5)
    reaches ["stored before", "signal"]
    holds_with [NeverQuiet]
    catches [NoShootdown, FreeBeforeFlush]
    { store_against_truncate(0) }
}

scenario! {
    /// A store to a private mapping of a page that is not mapped yet copies at once.
    early_copy (3, 5)
    reaches ["stored before", "signal"]
    catches [AlwaysQuiet, NoStamp]
    { store_against_truncate(1) }
}

scenario! {
    /// The space forks meanwhile: neither it nor the child may show the page afterwards.
    fork (3, 4)
    {
        let (world, [mut a, mut b], space, object) = mapped(Sharing::Private);
        assert_eq!(a.read(&space, 0, 0), Some(33));
        let other = space.clone();
        let running = spawn(move || {
            let child = b.fork(&other);
            (child, b)
        });
        a.resize(&object, 0);
        let (child, b) = running.join();
        a.assert_gone(&space, 0);
        a.assert_gone(&child, 0);
        assert_eq!((a.read(&space, 0, 0), a.inspect(&child, 0, 0)), (None, None), "a page beyond the end");
        world.audit([a, b], &[&space, &child], &[&object]);
    }
}

scenario! {
    /// The space forks and the child stores to the other page at once, copying the table that the truncation sweeps.
    fork_and_unshare (2, 3)
    {
        let (world, [mut a, mut b], space, object) = mapped(Sharing::Private);
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 1, 0)), (Some(33), Some(33)));
        let other = space.clone();
        let running = spawn(move || {
            let child = b.fork(&other);
            assert!(b.store(&child, 0, 1, 8));
            (child, b)
        });
        a.resize(&object, 1);
        let (child, b) = running.join();
        a.assert_gone(&space, 1);
        a.assert_gone(&child, 1);
        assert_eq!((a.read(&space, 0, 0), a.inspect(&child, 0, 1)), (Some(33), Some(8)));
        world.audit([a, b], &[&space, &child], &[&object]);
    }
}

scenario! {
    /// Another sharer of the table stores to a page next to the one that is cut off.
    unshare (3, 4)
    {
        let (world, [mut a, mut b], space, object) = mapped(Sharing::Private);
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 1, 0)), (Some(33), Some(33)));
        let child = a.fork(&space);
        b.leave(&space);
        b.run(&child);
        let other = child.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 8));
            b
        });
        a.resize(&object, 1);
        a.assert_gone(&space, 1);
        a.assert_gone(&child, 1);
        let b = running.join();
        a.assert_gone(&child, 1);
        assert_eq!((a.read(&space, 0, 1), a.inspect(&child, 0, 1)), (Some(0), Some(8)), "isolation");
        world.audit([a, b], &[&space, &child], &[&object]);
    }
}

scenario! {
    /// A space that maps the object exits meanwhile, and its tables with it.
    exit (3, 5)
    {
        let (world, [mut a, mut b], space, object) = mapped(Sharing::Private);
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 1, 0)), (Some(33), Some(33)));
        let child = a.fork(&space);
        b.leave(&space);
        let running = spawn(move || {
            b.exit(&child);
            b.cpu.collect();
            b
        });
        a.resize(&object, 1);
        a.assert_gone(&space, 1);
        let b = running.join();
        assert_eq!(a.read(&space, 0, 0), Some(33));
        world.audit([a, b], &[&space], &[&object]);
    }
}

scenario! {
    /// The object is mapped, and read, by a space that the truncation has looked at already.
    map (3, 5)
    {
        let (world, [mut a, mut b]) = World::<Two>::new::<2>(40);
        let object = a.object(1, 33);
        let space = a.space();
        b.run(&space);
        let (other, shown) = (space.clone(), object.clone());
        let running = spawn(move || {
            b.map_object(&other, 0, 1, rw(), Sharing::Shared, &shown, 0);
            b.read(&other, 0, 0);
            b
        });
        a.resize(&object, 0);
        let b = running.join();
        a.assert_gone(&space, 0);
        world.audit([a, b], &[&space], &[&object]);
    }
}

scenario! {
    /// read(2) while the page is dropped and its frame used by somebody else.
    lookup (4, 6)
    reaches ["seen", "end"]
    catches [NoPageRecheck]
    {
        let (world, [mut a, mut b]) = World::<Two>::new::<2>(40);
        let object = a.object(1, 33);
        let space = a.space();
        a.map(&space, 0, 2, rw());
        a.run(&space);
        assert!(a.write(&space, 1, 0, 1)); // the table is there, so that the next frame is a page
        let shown = object.clone();
        let running = spawn(move || {
            let seen = b.read_object(&shown, 0);
            assert!(seen.is_none() || seen == Some(33) || seen == Some(0), "{seen:?}: somebody else's contents");
            reach(if seen == Some(33) { "seen" } else { "end" });
            b
        });
        a.resize(&object, 0);
        assert!(a.write(&space, 0, 0, 99));
        let b = running.join();
        assert_eq!(a.read(&space, 0, 0), Some(99), "corrupted");
        world.audit([a, b], &[&space], &[&object]);
    }
}

scenario! {
    /// write(2) while the page is dropped and its frame used by somebody else.
    write (4, 5)
    catches [RelaxedDrop]
    {
        let (world, [mut a, mut b]) = World::<Two>::new::<2>(40);
        let object = a.object(1, 33);
        let space = a.space();
        a.map(&space, 0, 1, rw());
        a.run(&space);
        let shown = object.clone();
        let running = spawn(move || {
            b.write_object(&shown, 0, 1, 77);
            b
        });
        a.resize(&object, 0);
        assert!(a.write(&space, 0, 0, 99));
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (Some(99), Some(0)), "corrupted");
        let mut b = running.join();
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (Some(99), Some(0)), "corrupted");
        let seen = b.read_object(&object, 0);
        assert!(seen.is_none() || seen == Some(0), "{seen:?}: cut off, and back again");
        world.audit([a, b], &[&space], &[&object]);
    }
}

scenario! {
    /// Two CPUs bring the same page in: one wins, both see the same.
    fill_fill (4, 6)
    catches []
    {
        let (world, [mut a, mut b]) = World::<Two>::new::<2>(40);
        let object = a.cpu.vm().new_memory(4096, "model").expect("memory");
        let space = a.space();
        a.map_object(&space, 0, 1, rw(), Sharing::Shared, &object, 0);
        a.run(&space);
        b.run(&space);
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 22));
            b
        });
        assert!(a.write(&space, 0, 0, 11));
        let b = running.join();
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 0, 1)), (Some(11), Some(22)), "lost store");
        world.audit([a, b], &[&space], &[&object]);
    }
}

/// A file whose backing store knows 33 for each page, for ever.
struct Store;

impl Pager for Store {
    fn fill(&self, _index: u64, page: &mut PageWriter<'_>) -> Result<(), PagerError> {
        page.write(0, &33u64.to_le_bytes());
        Ok(())
    }
}

scenario! {
    /// A page is read from the pager while the file is truncated and extended again: what was cut off must not come
    /// back.
    fill_against_truncate (4, 5)
    reaches ["seen", "zero"]
    catches [AbsentKeepsValue]
    {
        let (world, [mut a, mut b]) = World::<Two>::new::<2>(40);
        let object = a.cpu.vm().new_file(4096, Arc::new(Store), "model").expect("memory");
        let shown = object.clone();
        let running = spawn(move || {
            let seen = b.read_object(&shown, 0);
            reach(if seen == Some(33) { "seen" } else { "zero" });
            b
        });
        a.resize(&object, 0);
        a.resize(&object, 1);
        assert_eq!(a.read_object(&object, 0), Some(0), "cut off, and back again");
        let b = running.join();
        assert_eq!(a.read_object(&object, 0), Some(0), "cut off, and back again");
        world.audit([a, b], &[], &[&object]);
    }
}
