//! P11: a mapping moves with its pages: each store before it is at the new place, none after it is at the old, and
//! nobody sees the page at both places or at neither (ZP-10).

use crate::model::*;
use crate::scenario;

type Two = X86<2, 1, 2>;

/// Pages 0 and 1, of which `touched` have contents (5 + page, 0), known to both CPUs' MMUs. Nothing at pages 2 and 3.
fn mapped(touched: &[u64]) -> (World<Two>, [Worker<Two>; 2], Space<Two>) {
    let (world, mut workers) = World::<Two>::new::<2>(40);
    let space = workers[0].space();
    workers[0].map(&space, 0, 2, rw());
    workers.iter_mut().for_each(|worker| worker.run(&space));
    for page in touched {
        assert!(workers[0].write(&space, *page, 0, 5 + page));
        for worker in &mut workers {
            assert_eq!((worker.read(&space, *page, 0), worker.write(&space, *page, 1, 0)), (Some(5 + page), true));
        }
    }
    (world, workers, space)
}

/// `b` stores to page `page` while `a` moves `count` pages from page `page` on to page `to`.
fn store_against_move(
    (world, [mut a, mut b], space): (World<Two>, [Worker<Two>; 2], Space<Two>),
    others: &[&Space<Two>],
    (page, count, to): (u64, u64, u64),
    contents: u64,
) {
    let other = space.clone();
    let running = spawn(move || (b.write(&other, page, 1, 7), b));
    a.move_pages(&space, page, count, to, false);
    a.assert_gone(&space, page);
    let (stored, b) = running.join();
    reach(if stored { "before" } else { "signal" });
    a.assert_gone(&space, page);
    assert_eq!(a.read(&space, page, 0), None, "nothing is mapped at the old place");
    assert_eq!(a.read(&space, to, 0), Some(contents), "the page did not come along");
    assert_eq!(a.read(&space, to, 1), Some(if stored { 7 } else { 0 }), "lost store");
    for holder in others {
        assert_eq!((a.inspect(holder, page, 0), a.inspect(holder, page, 1)), (Some(contents), Some(0)), "isolation");
    }
    let spaces: Vec<_> = std::iter::once(&space).chain(others.iter().copied()).collect();
    world.audit([a, b], &spaces, &[]);
}

scenario! {
    /// Entry by entry; the page is there and the store goes through the TLB.
    store (3, 5)
    reaches ["before", "signal"]
    catches [NoShootdown]
    { store_against_move(mapped(&[0, 1]), &[], (0, 1, 3), 5) }
}

scenario! {
    /// Entry by entry; the store is a first touch.
    touch (3, 5)
    reaches ["before", "signal"]
    catches [MoveWithoutClose, MoveWithoutWait]
    { store_against_move(mapped(&[1]), &[], (0, 1, 3), 0) }
}

scenario! {
    /// Entry by entry; the store has to copy.
    cow (2, 3)
    reaches ["before", "signal"]
    {
        let (world, [mut a, b], space) = mapped(&[0, 1]);
        let holder = a.hold(&space, 0, 1);
        store_against_move((world, [a, b], space), &[&holder], (0, 1, 3), 5);
    }
}

scenario! {
    /// The whole table; the store goes through the TLB.
    store_in_table (3, 5)
    reaches ["before", "signal"]
    catches [NoShootdown]
    { store_against_move(mapped(&[0, 1]), &[], (0, 2, 2), 5) }
}

scenario! {
    /// The whole table; the store is a first touch.
    touch_in_table (3, 4)
    reaches ["before", "signal"]
    { store_against_move(mapped(&[1]), &[], (0, 2, 2), 0) }
}

scenario! {
    /// Nothing is there to move, not even a table.
    touch_without_table (2, 4)
    reaches ["before", "signal"]
    catches [MoveWithoutClose]
    { store_against_move(mapped(&[]), &[], (0, 2, 2), 0) }
}

scenario! {
    /// A whole table that a child shares, which the store copies.
    shared_table (2, 3)
    reaches ["before", "signal"]
    {
        let (world, [mut a, b], space) = mapped(&[0, 1]);
        let child = a.fork(&space);
        store_against_move((world, [a, b], space), &[&child], (0, 2, 2), 5);
    }
}

scenario! {
    /// The child that shares the table stores to it meanwhile.
    shared_with_writer (2, 3)
    {
        let (world, [mut a, mut b], space) = mapped(&[0, 1]);
        let child = a.fork(&space);
        b.leave(&space);
        b.run(&child);
        let other = child.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 7));
            b
        });
        a.move_pages(&space, 0, 2, 2, false);
        let b = running.join();
        assert_eq!((a.read(&space, 2, 0), a.read(&space, 2, 1), a.read(&space, 3, 0)), (Some(5), Some(0), Some(6)));
        assert_eq!((a.inspect(&child, 0, 0), a.inspect(&child, 0, 1)), (Some(5), Some(7)), "isolation");
        world.audit([a, b], &[&space, &child], &[]);
    }
}

scenario! {
    /// The other CPU looks at the new place: there is nothing yet, or the page.
    new_place (3, 5)
    reaches ["page", "signal"]
    catches [MoveOpensEarly]
    {
        let (world, [mut a, mut b], space) = mapped(&[0, 1]);
        let other = space.clone();
        let running = spawn(move || (b.read(&other, 3, 0), b));
        a.move_pages(&space, 0, 1, 3, false);
        let (seen, b) = running.join();
        reach(if seen.is_some() { "page" } else { "signal" });
        assert!(seen.is_none() || seen == Some(5), "{seen:?}");
        assert_eq!(a.read(&space, 3, 0), Some(5));
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// Its MMU finds the page at the new place: from then on the old one must be gone for it.
    one_place (3, 5)
    reaches ["page"]
    catches [MoveBeforeFlush]
    {
        let (world, [mut a, b], space) = mapped(&[0, 1]);
        let running = spawn(move || {
            if b.peek(3, 0).is_some() {
                reach("page");
                assert!(b.peek(0, 0).is_none(), "the page is at two places");
            }
            b
        });
        a.move_pages(&space, 0, 1, 3, false);
        let b = running.join();
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// The same for a whole table.
    one_place_in_table (3, 5)
    reaches ["page"]
    catches [MoveBeforeFlush]
    {
        let (world, [mut a, b], space) = mapped(&[0, 1]);
        let running = spawn(move || {
            if b.peek(3, 0).is_some() {
                reach("page");
                assert!(b.peek(1, 0).is_none(), "the page is at two places");
            }
            b
        });
        a.move_pages(&space, 0, 2, 2, false);
        let b = running.join();
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// The old mapping stays, without its pages (MREMAP_DONTUNMAP): a store is at one of both places.
    keep (3, 4)
    reaches ["moved", "after"]
    {
        let (world, [mut a, mut b], space) = mapped(&[0, 1]);
        let other = space.clone();
        let running = spawn(move || {
            assert!(b.write(&other, 0, 1, 7));
            b
        });
        a.move_pages(&space, 0, 1, 3, true);
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 3, 0)), (Some(0), Some(5)), "the page is where it was");
        let b = running.join();
        let places = (a.read(&space, 0, 1), a.read(&space, 3, 1));
        reach(if places.1 == Some(7) { "moved" } else { "after" });
        assert!(places == (Some(0), Some(7)) || places == (Some(7), Some(0)), "{places:?}");
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// A store from outside: where it found the page.
    remote_store (3, 5)
    reaches ["before", "gone"]
    {
        let (world, [mut a, mut b], space) = mapped(&[0, 1]);
        b.leave(&space);
        let other = space.clone();
        let running = spawn(move || (b.store(&other, 0, 1, 7), b));
        a.move_pages(&space, 0, 1, 3, false);
        let (stored, b) = running.join();
        reach(if stored { "before" } else { "gone" });
        assert_eq!(a.read(&space, 3, 1), Some(if stored { 7 } else { 0 }), "lost store");
        world.audit([a, b], &[&space], &[]);
    }
}

scenario! {
    /// A child has the page at one of both places.
    fork (2, 4)
    reaches ["before", "after"]
    {
        let (world, [mut a, mut b], space) = mapped(&[0, 1]);
        let other = space.clone();
        let running = spawn(move || (b.fork(&other), b));
        a.move_pages(&space, 0, 1, 3, false);
        let (child, b) = running.join();
        let places = (a.inspect(&child, 0, 0), a.inspect(&child, 3, 0));
        reach(if places.0.is_some() { "before" } else { "after" });
        assert!(places == (Some(5), None) || places == (None, Some(5)), "{places:?}");
        world.audit([a, b], &[&space, &child], &[]);
    }
}

scenario! {
    /// The object is truncated while its mapping moves: neither place shows the page afterwards.
    truncate (3, 4)
    {
        let (world, [mut a, mut b]) = World::<Two>::new::<2>(40);
        let object = a.object(1, 33);
        let space = a.space();
        a.map_object(&space, 0, 1, rw(), Sharing::Shared, &object, 0);
        a.run(&space);
        b.run(&space);
        assert_eq!((a.read(&space, 0, 0), b.read(&space, 0, 0)), (Some(33), Some(33)));
        let shown = object.clone();
        let running = spawn(move || {
            b.resize(&shown, 0);
            b
        });
        a.move_pages(&space, 0, 1, 3, false);
        let b = running.join();
        a.assert_gone(&space, 0);
        a.assert_gone(&space, 3);
        assert_eq!((a.read(&space, 0, 0), a.read(&space, 3, 0)), (None, None));
        world.audit([a, b], &[&space], &[&object]);
    }
}
