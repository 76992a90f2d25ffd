//! What is written can be read.

use super::*;
use crate::generate::{Shape, generate};
use faultless_hosted::Rng;

#[test]
fn text_comes_back_as_it_was() {
    for seed in 0..50 {
        let scenario = generate(&mut Rng::new(seed), &Shape::everything(200));
        let text = scenario.to_string();
        assert_eq!(Scenario::parse(&text).as_ref(), Ok(&scenario), "{text}");
    }
}

#[test]
fn errors_name_the_line() {
    let error = |text: &str| Scenario::parse(text).expect_err("no scenario").to_string();
    assert_eq!(error("files 0 0 0\n\np0 jump +0x0\n"), "line 3: `jump` is no call");
    assert_eq!(error("p0 load +0x0 3"), "line 1: 3 is no width");
    assert_eq!(error("p9 load +0x0 1"), "line 1: `p9` is no process");
    assert_eq!(error("p0 munmap +0x0"), "line 1: something is missing at the end");
    assert_eq!(error("p0 munmap +0x0 1 2"), "line 1: `2` is too much");
    assert_eq!(error("p0 mmap +0x0 1 rwx private|anan none 0"), "line 1: `anan` is no number");
}
