//! The battery clock, read once at boot for the time of day.
//!
//! Absent on purpose: waiting for the end of an update. An emulated clock changes all its registers at
//! once.

use super::cpu::{port_in, port_out};

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;
const STATUS_B: u8 = 0x0b;

/// Seconds since 1970; zero if there is no plausible clock.
pub fn unix_seconds() -> u64 {
    // Three readings, always: a run that counts instructions must not depend on when it reads. The
    // clock ticks between at most two of them. If the first two agree, it did not tick there; if not,
    // it did, and the third is whole.
    let [first, second, third] = [(); 3].map(|()| [0, 2, 4, 7, 8, 9].map(register));
    let fields = if first == second { first } else { third };
    decode(fields, register(STATUS_B)).unwrap_or(0)
}

fn register(index: u8) -> u8 {
    port_out(INDEX, index);
    port_in(DATA)
}

/// From second, minute, hour, day, month, year of the century and the format bits.
fn decode(fields: [u8; 6], format: u8) -> Option<u64> {
    let binary = format & 4 != 0;
    let value = |raw: u8| -> u64 {
        let raw = u64::from(raw);
        if binary { raw } else { (raw >> 4) * 10 + (raw & 15) }
    };
    let [second, minute, raw_hour, day, month, year] = fields;
    let mut hour = value(raw_hour & 0x7f);
    if format & 2 == 0 {
        hour = hour % 12 + if raw_hour & 0x80 != 0 { 12 } else { 0 };
    }
    let (day, month, year) = (value(day), value(month), 2000 + value(year));
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 {
        return None;
    }
    let days = days_before_year(year) + days_before_month(year, month) + day - 1;
    Some(((days * 24 + hour) * 60 + value(minute)) * 60 + value(second))
}

/// Days from 1970-01-01 to the start of `year`, for years from 2000.
fn days_before_year(year: u64) -> u64 {
    let since = year - 1970;
    // Leap years 1972, 1976, ...; 2000 is one, 2100 is not and out of a two-digit clock's reach.
    since * 365 + (since + 1) / 4
}

fn days_before_month(year: u64, month: u64) -> u64 {
    const DAYS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = u64::from(year.is_multiple_of(4) && month > 2);
    DAYS[..month as usize - 1].iter().sum::<u64>() + leap
}
