//! The recount finds a single frame that is lost, or that two have.

use super::Bench;
use crate::frame::Kind;
use std::string::{String, ToString};

fn complaint(bench: &mut Bench) -> String {
    bench.vm.audit(&mut bench.cpu, &[&bench.space], &[]).unwrap_err().to_string()
}

#[test]
fn a_frame_that_nobody_has_is_found() {
    let mut bench = Bench::new(64);
    bench.map(0, 1);
    bench.touch(0);
    let lost = bench.cpu.ctx().alloc(Kind::Anon).unwrap();
    assert_eq!(complaint(&mut bench), std::format!("{:?} (Anon) is nobody's\n", lost.id()));
    bench.cpu.ctx().free(lost);
    let lost = bench.cpu.ctx().cpu.cached_frame().unwrap();
    assert_eq!(complaint(&mut bench), "1 frames are in no CPU's cache, on no list and not in use\n");
    bench.cpu.ctx().cpu.fill(lost);
    bench.finish(&[]);
}

#[test]
fn a_frame_that_is_free_twice_is_found() {
    let mut bench = Bench::new(64);
    bench.map(0, 1);
    bench.touch(0);
    let twice = bench.cpu.ctx().cpu.cached_frame().unwrap();
    bench.cpu.ctx().cpu.fill(twice);
    bench.cpu.ctx().cpu.fill(twice);
    let number = twice.as_u64();
    let words = std::format!("free twice: frames ({number}, 1) and ({number}, 1)\n");
    assert_eq!(complaint(&mut bench), words);
    bench.cpu.ctx().cpu.cached_frame().unwrap();
    bench.finish(&[]);
}
