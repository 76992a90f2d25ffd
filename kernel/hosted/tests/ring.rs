//! The ring of a pipe against a plain queue.

use std::collections::VecDeque;

use faultless_kernel_hosted::ring::Ring;

/// Puts as much of `bytes` into the ring as fits.
fn put(ring: &mut Ring, bytes: &[u8]) -> usize {
    let mut done = 0;
    while done < bytes.len() {
        let spare = ring.spare(bytes.len() - done).expect("memory is plenty here");
        let count = spare.len();
        if count == 0 {
            break;
        }
        spare.copy_from_slice(&bytes[done..done + count]);
        ring.commit(count);
        done += count;
    }
    done
}

fn take(ring: &mut Ring, count: usize) -> Vec<u8> {
    let (head, tail) = ring.peek();
    let all = [head, tail].concat();
    let count = count.min(all.len());
    ring.consume(count);
    all[..count].to_vec()
}

#[test]
fn it_is_a_bounded_queue() {
    let mut ring = Ring::new(16 << 10);
    let mut model = VecDeque::new();
    let mut seed = 1u64;
    let mut random = |limit: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % limit
    };
    for round in 0..3000 {
        if random(2) == 0 {
            let bytes: Vec<u8> = (0..random(6000)).map(|i| (i + round) as u8).collect();
            let done = put(&mut ring, &bytes);
            assert_eq!(done, bytes.len().min((16 << 10) - model.len()));
            model.extend(&bytes[..done]);
        } else {
            let wanted = random(6000);
            let taken = take(&mut ring, wanted);
            let expected: Vec<u8> = model.drain(..wanted.min(model.len())).collect();
            assert_eq!(taken, expected);
        }
        assert_eq!((ring.len(), ring.room()), (model.len(), (16 << 10) - model.len()));
    }
}

#[test]
fn capacity_changes_keep_the_contents() {
    let mut ring = Ring::new(64 << 10);
    put(&mut ring, &[1; 10_000]);
    take(&mut ring, 9_000);
    put(&mut ring, &[2; 3_000]);
    assert!(!ring.set_capacity(2048));
    assert!(ring.set_capacity(4096));
    assert_eq!((ring.len(), ring.room()), (4000, 96));
    assert_eq!(take(&mut ring, 4000), [vec![1; 1000], vec![2; 3000]].concat());
    assert!(ring.set_capacity(64 << 10));
    assert_eq!(put(&mut ring, &[3; 70_000]), 64 << 10);
}

#[test]
fn what_was_lent_comes_back_to_the_front() {
    for (taken, back) in [(0, 0), (7, 7), (7, 3), (4096, 4096), (5000, 1), (8000, 0)] {
        // So that the bytes run around the end of the buffer.
        let mut ring = Ring::new(8 << 10);
        put(&mut ring, &[0; 8000]);
        take(&mut ring, 7000);
        let bytes: Vec<u8> = (0..7100).map(|i| i as u8).collect();
        assert_eq!(put(&mut ring, &bytes), 7100);
        let all: Vec<u8> = [&[0; 1000][..], &bytes].concat();
        let (head, tail) = ring.peek();
        let lent = [head, tail].concat()[..taken].to_vec();
        ring.lend(taken);
        assert_eq!(ring.room(), 92, "the room is kept");
        assert!(!ring.set_capacity(4096) && put(&mut ring, &[9; 200]) == 92);
        ring.settle(taken, &lent[taken - back..]);
        assert_eq!(ring.room(), taken - back);
        let expected = [&all[taken - back..], &[9; 92]].concat();
        assert_eq!(take(&mut ring, usize::MAX), expected, "{taken} lent, {back} back");
    }
}
