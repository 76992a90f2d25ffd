//! Sizes as people write them: `512M`, `2GiB`, `65536`.
//!
//! Called by the command line only. Units are powers of two, as in QEMU's `-m`; decimal units do not exist here.

use std::fmt;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// Why a text is not a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeError {
    /// There is no number in front.
    NoNumber,
    /// The letters after the number are not a known unit.
    UnknownUnit,
    /// More than 2^64 - 1 bytes.
    TooLarge,
}

impl Size {
    /// A size of `bytes` bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Size(bytes)
    }

    /// A size of `mib` times 2^20 bytes.
    pub const fn from_mib(mib: u64) -> Self {
        Size(mib << 20)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of whole MiB, rounded up.
    pub const fn mib_rounded_up(self) -> u64 {
        self.0.div_ceil(1 << 20)
    }

    /// Reads a size: digits, then nothing or one of `K M G T`, each optionally followed by `B` or `iB`, in any case.
    ///
    /// # Errors
    ///
    /// [`SizeError`] says which part was not understood.
    pub fn parse(text: &str) -> Result<Self, SizeError> {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        if digits.is_empty() {
            return Err(SizeError::NoNumber);
        }
        let number: u64 = digits.parse().map_err(|_| SizeError::TooLarge)?;
        let shift = unit_shift(unit.trim())?;
        number.checked_mul(1 << shift).map(Size).ok_or(SizeError::TooLarge)
    }
}

fn unit_shift(unit: &str) -> Result<u32, SizeError> {
    match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Ok(0),
        "k" | "kb" | "kib" => Ok(10),
        "m" | "mb" | "mib" => Ok(20),
        "g" | "gb" | "gib" => Ok(30),
        "t" | "tb" | "tib" => Ok(40),
        _ => Err(SizeError::UnknownUnit),
    }
}

impl fmt::Display for Size {
    /// One decimal from MiB up, so that `1.5 GiB` stays readable and `512 MiB` stays short.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        for (shift, name) in UNITS {
            let unit = 1u64 << shift;
            if self.0 >= unit {
                let whole = self.0 / unit;
                let tenth = (self.0 % unit) * 10 / unit;
                return match tenth {
                    0 => write!(f, "{whole} {name}"),
                    _ => write!(f, "{whole}.{tenth} {name}"),
                };
            }
        }
        write!(f, "{} bytes", self.0)
    }
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SizeError::NoNumber => "a size starts with a number, for example 512M",
            SizeError::UnknownUnit => "the unit must be K, M, G or T (powers of two), for example 512M",
            SizeError::TooLarge => "that is more than this machine can address",
        })
    }
}

impl std::error::Error for SizeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two() {
        let cases = [
            ("65536", 65536),
            ("4k", 4096),
            ("512M", 512 << 20),
            ("512MiB", 512 << 20),
            ("2 G", 2 << 30),
            ("1t", 1 << 40),
        ];
        for (text, bytes) in cases {
            assert_eq!(Size::parse(text), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_says_which_part() {
        assert_eq!(Size::parse("M"), Err(SizeError::NoNumber));
        assert_eq!(Size::parse("-1"), Err(SizeError::NoNumber));
        assert_eq!(Size::parse("5 parsecs"), Err(SizeError::UnknownUnit));
        assert_eq!(Size::parse("1.5G"), Err(SizeError::UnknownUnit));
        assert_eq!(Size::parse("99999999999T"), Err(SizeError::TooLarge));
        assert_eq!(Size::parse("18446744073709551616"), Err(SizeError::TooLarge));
    }

    #[test]
    fn sizes_print_short() {
        assert_eq!(Size::from_mib(512).to_string(), "512 MiB");
        assert_eq!(Size::from_mib(1536).to_string(), "1.5 GiB");
        assert_eq!(Size::from_bytes(100).to_string(), "100 bytes");
    }
}
