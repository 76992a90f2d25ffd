//! Command lines: `--name value` pairs with defaults, and the line that repeats a run.
//!
//! Called first by every program but `vmbench`. Absent on purpose: positional arguments
//! and short options, which the programs do not need.

/// One option a program takes.
pub struct Opt {
    /// Name without the leading dashes.
    pub name: &'static str,
    /// Value when the option is not given.
    pub default: &'static str,
    /// One line of help.
    pub help: &'static str,
}

/// Short hand for an [`Opt`].
#[must_use]
pub const fn opt(name: &'static str, default: &'static str, help: &'static str) -> Opt {
    Opt { name, default, help }
}

/// The parsed command line of a program.
#[derive(Debug)]
pub struct Args {
    program: &'static str,
    values: Vec<(&'static str, String)>,
}

impl Args {
    /// Parses the command line of this process. `--seed` is added to `options`.
    ///
    /// Ends the process with status 2 and a message when the line is wrong, and with
    /// status 0 after printing help.
    #[must_use]
    pub fn parse(program: &'static str, about: &str, options: &[Opt]) -> Self {
        let seed = opt("seed", "1", "seed of every random decision");
        let options: Vec<&Opt> = options.iter().chain([&seed]).collect();
        let mut args = Self { program, values: options.iter().map(|o| (o.name, o.default.to_owned())).collect() };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            if word == "--help" || word == "-h" {
                args.help(about, &options);
            }
            if let Err(message) = args.take(&word, &mut words) {
                eprintln!("{program}: {message}; `{program} --help` lists the options");
                std::process::exit(2);
            }
        }
        args
    }

    /// The value of a text option.
    ///
    /// # Panics
    ///
    /// If the program has no such option.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        let found = self.values.iter().find(|(known, _)| *known == name);
        &found.expect("an option of this program").1
    }

    /// The value of a number: decimal, `0x` hexadecimal, or with a suffix K, M, G or T.
    ///
    /// Ends the process with status 2 if the value is no number.
    ///
    /// # Panics
    ///
    /// If the program has no such option.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        let text = self.text(name);
        number(text).unwrap_or_else(|| {
            eprintln!("{}: --{name} {text}: not a number", self.program);
            std::process::exit(2);
        })
    }

    /// As [`Args::number`], for a count or a size.
    ///
    /// # Panics
    ///
    /// If the program has no such option.
    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        self.number(name) as usize
    }

    /// Whether the list option `only` names `part`. "all" and a missing list name everything.
    ///
    /// # Panics
    ///
    /// If the program has no option `only`.
    #[must_use]
    pub fn wants(&self, part: &str) -> bool {
        self.text("only").split(',').any(|word| word == part || word == "all")
    }

    /// Ends the process with status 2 if the list option `only` names a part that is not
    /// in `parts`: a misspelled part must not pass as "nothing to check, all well".
    ///
    /// # Panics
    ///
    /// If the program has no option `only`.
    pub fn known_parts(&self, parts: &[&str]) {
        for word in self.text("only").split(',') {
            if word != "all" && !parts.contains(&word) {
                eprintln!("{}: --only {word}: parts are {}", self.program, parts.join(", "));
                std::process::exit(2);
            }
        }
    }

    /// Name of the program.
    #[must_use]
    pub const fn program(&self) -> &'static str {
        self.program
    }

    /// The command line that repeats this run.
    #[must_use]
    pub fn repeat(&self) -> String {
        let mut line = self.program.to_owned();
        for (name, value) in &self.values {
            line.push_str(&format!(" --{name} {value}"));
        }
        line
    }

    fn take(&mut self, word: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), String> {
        let option = word.strip_prefix("--").ok_or(format!("unexpected argument {word}"))?;
        let (name, given) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (option, None),
        };
        let slot = self.values.iter_mut().find(|(known, _)| *known == name);
        let slot = slot.ok_or(format!("unknown option --{name}"))?;
        slot.1 = given.or_else(|| rest.next()).ok_or(format!("--{name} needs a value"))?;
        Ok(())
    }

    fn help(&self, about: &str, options: &[&Opt]) -> ! {
        println!("{}: {about}\n", self.program);
        for option in options {
            println!("  --{:<10} {} [{}]", option.name, option.help, option.default);
        }
        std::process::exit(0);
    }
}

fn number(text: &str) -> Option<u64> {
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok();
    }
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        b'T' => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}
