//! P1: first touch, one compare-exchange, against everything that may happen meanwhile.

use crate::model::*;
use crate::scenario;

type Two = X86<2, 1, 2>;

scenario! {
    /// Two CPUs store to the same untouched page.
    touch_touch (3, 4)
    {
        let (world, [mut a, mut b]) = World::<Two>::new::<2>(24);
        let space = a.space();
        a.map(&space, 0, 1, rw());
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
        world.audit([a, b], &[&space], &[]);
    }
}
