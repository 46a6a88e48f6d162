//! The command lines of this crate's programs: names, `--flag`, `--flag VALUE` and `--flag=VALUE`.

use anyhow::{Context, Result};

/// What is left of this program's command line.
pub struct Arguments {
    rest: std::iter::Skip<std::env::Args>,
    flag: String,
    value: Option<String>,
}

impl Arguments {
    /// All of it.
    pub fn of_program() -> Arguments {
        Arguments { rest: std::env::args().skip(1), flag: String::new(), value: None }
    }

    /// The next name or flag, without a value that is joined to it.
    pub fn next_key(&mut self) -> Option<String> {
        let arg = self.rest.next()?;
        (self.flag, self.value) = match arg.split_once('=') {
            Some((key, value)) if key.starts_with("--") => (key.to_string(), Some(value.to_string())),
            _ => (arg, None),
        };
        Some(self.flag.clone())
    }

    /// The value of the last flag. An error if there is none.
    pub fn value(&mut self) -> Result<String> {
        self.value.take().or_else(|| self.rest.next()).with_context(|| format!("{} needs a value", self.flag))
    }
}
