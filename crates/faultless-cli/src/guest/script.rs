//! The `#!` line of a script.
//!
//! Called by `prepare`, which replaces a script by its interpreter before the guest starts, so that what is missing
//! is named on the host. Follows Linux: the rest of the line is one argument, whatever blanks it contains.

/// The most bytes of a first line that count, as on Linux.
const MAX_LINE: usize = 255;

/// What a `#!` line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shebang {
    /// The interpreter's path.
    pub interpreter: String,
    /// Its single argument, if any.
    pub argument: Option<String>,
}

impl Shebang {
    /// Reads the first line of a file; `None` if it is not a `#!` line with an interpreter.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let rest = data.strip_prefix(b"#!")?;
        let line = rest.split(|&byte| byte == b'\n').next()?;
        let line = std::str::from_utf8(&line[..line.len().min(MAX_LINE)]).ok()?;
        let line = line.trim_matches([' ', '\t']);
        let (interpreter, argument) = match line.split_once([' ', '\t']) {
            Some((interpreter, argument)) => (interpreter, Some(argument.trim_start_matches([' ', '\t']))),
            None => (line, None),
        };
        (!interpreter.is_empty())
            .then(|| Shebang { interpreter: interpreter.to_owned(), argument: argument.map(str::to_owned) })
    }

    /// The program that the interpreter will look up by its name, if it is env(1): `python3` of `#!/usr/bin/env python3`,
    /// also with `-S`.
    pub fn looked_up(&self) -> Option<&str> {
        let argument = self.argument.as_deref().filter(|_| self.interpreter.ends_with("/env"))?;
        let word = match argument.strip_prefix("-S") {
            Some(words) => words.split_whitespace().next()?,
            None => argument,
        };
        (!word.starts_with('-') && !word.contains(['=', '/', ' ', '\t'])).then_some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<(String, Option<String>)> {
        Shebang::parse(text.as_bytes()).map(|found| (found.interpreter, found.argument))
    }

    #[test]
    fn the_rest_of_the_line_is_one_argument() {
        let sh = |argument: Option<&str>| Some(("/bin/sh".to_owned(), argument.map(str::to_owned)));
        assert_eq!(parse("#!/bin/sh\necho"), sh(None));
        assert_eq!(parse("#! /bin/sh \t\n"), sh(None));
        assert_eq!(parse("#!/bin/sh -e -u\n"), sh(Some("-e -u")));
        assert_eq!(parse("#!/bin/sh \t -e"), sh(Some("-e")));
    }

    #[test]
    fn env_looks_a_name_up() {
        let name = |text: &str| Shebang::parse(text.as_bytes()).and_then(|found| found.looked_up().map(str::to_owned));
        assert_eq!(name("#!/usr/bin/env python3\n").as_deref(), Some("python3"));
        assert_eq!(name("#!/usr/bin/env -S perl -w\n").as_deref(), Some("perl"));
        for none in
            ["#!/usr/bin/env", "#!/usr/bin/env -i sh", "#!/usr/bin/env A=b", "#!/bin/sh python3", "#!/bin/env a b"]
        {
            assert_eq!(name(none), None, "{none}");
        }
    }

    #[test]
    fn other_files_have_no_interpreter() {
        assert_eq!(parse("echo"), None);
        assert_eq!(parse("#!"), None);
        assert_eq!(parse("#!  \n/bin/sh"), None);
        assert_eq!(parse("\x7fELF"), None);
    }
}
