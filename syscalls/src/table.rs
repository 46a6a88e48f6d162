//! Rows, and the table that they make up.

use std::sync::LazyLock;

use abi::{Errno, Result, sysno};
use sentry::task::{CurrentTask, Outcome, SyscallTable};

use crate::arguments::{Argument, Return};

/// How much of a call is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// As on Linux.
    Full,
    /// With the exceptions that the note names.
    Partial,
    /// Returns an error that Linux returns too when it is built or run without the feature. Counted.
    Missing,
}

/// A system call.
pub struct Row {
    /// The number.
    pub number: u64,
    /// How much of it is there.
    pub support: Support,
    /// What is missing.
    pub note: &'static str,
    /// Carries it out.
    pub call: fn(&CurrentTask, [u64; 6]) -> Result<Outcome>,
    /// Its arguments as text.
    pub show: fn(&CurrentTask, [u64; 6]) -> String,
}

impl Row {
    /// The name.
    pub fn name(&self) -> &'static str {
        sysno::name(self.number).unwrap_or("?")
    }
}

/// A function that can be a handler; `A` is the tuple of its arguments.
pub trait Handler<A> {
    /// Decodes the arguments and calls it.
    fn call(&self, task: &CurrentTask, args: [u64; 6]) -> Result<Outcome>;

    /// The arguments as text.
    fn show(task: &CurrentTask, args: [u64; 6]) -> String;
}

macro_rules! handlers {
    ($(($($arg:ident $index:literal),*);)*) => {$(
        impl<F, R: Return, $($arg: Argument),*> Handler<($($arg,)*)> for F
        where
            F: Fn(&CurrentTask, $($arg),*) -> Result<R>,
        {
            #[allow(unused_variables, reason = "without arguments")]
            fn call(&self, task: &CurrentTask, args: [u64; 6]) -> Result<Outcome> {
                self(task, $($arg::from_register(args[$index])),*).map(Return::outcome)
            }

            #[allow(unused_variables, reason = "without arguments")]
            fn show(task: &CurrentTask, args: [u64; 6]) -> String {
                let shown: Vec<String> = vec![$($arg::from_register(args[$index]).show(task)),*];
                shown.join(", ")
            }
        }
    )*};
}

handlers! {
    ();
    (A 0);
    (A 0, B 1);
    (A 0, B 1, C 2);
    (A 0, B 1, C 2, D 3);
    (A 0, B 1, C 2, D 3, E 4);
    (A 0, B 1, C 2, D 3, E 4, G 5);
}

/// Text of the arguments, by the type of the handler.
pub fn show_of<A, H: Handler<A>>(_handler: &H, task: &CurrentTask, args: [u64; 6]) -> String {
    H::show(task, args)
}

/// The rows of a family: `NUMBER => handler;`, or with what is missing, `NUMBER => handler, Partial, "note";`.
#[macro_export]
macro_rules! rows {
    ($($number:ident => $handler:path $(, $support:ident, $note:literal)?;)*) => {
        &[$($crate::table::Row {
            number: abi::sysno::$number,
            support: $crate::rows!(@support $($support)?),
            note: $crate::rows!(@note $($note)?),
            call: |task, args| $crate::table::Handler::call(&$handler, task, args),
            show: |task, args| $crate::table::show_of(&$handler, task, args),
        }),*]
    };
    (@support) => { $crate::table::Support::Full };
    (@support $support:ident) => { $crate::table::Support::$support };
    (@note) => { "" };
    (@note $note:literal) => { $note };
}

/// Every family's rows.
const FAMILIES: &[&[Row]] = &[
    crate::absent::ROWS,
    crate::administration::ROWS,
    crate::aio::ROWS,
    crate::clock::ROWS,
    crate::credentials::ROWS,
    crate::descriptors::ROWS,
    crate::files::ROWS,
    crate::futex::ROWS,
    crate::handles::ROWS,
    crate::inotify::ROWS,
    crate::inspect::ROWS,
    crate::io::ROWS,
    crate::io_control::ROWS,
    crate::keys::ROWS,
    crate::memory::ROWS,
    crate::messages::ROWS,
    crate::mount_api::ROWS,
    crate::mount_list::ROWS,
    crate::mounts::ROWS,
    crate::mqueue::ROWS,
    crate::numa::ROWS,
    crate::poll::ROWS,
    crate::prctl::ROWS,
    crate::process::ROWS,
    crate::ptrace::ROWS,
    crate::seccomp::ROWS,
    crate::signals::ROWS,
    crate::sockets::ROWS,
    crate::splice::ROWS,
    crate::system::ROWS,
    crate::sysv::ROWS,
    crate::xattr::ROWS,
];

/// Rows by number.
static ROWS: LazyLock<Vec<Option<&'static Row>>> = LazyLock::new(|| {
    let mut rows = vec![None; sysno::MAX as usize + 1];
    for row in FAMILIES.iter().flat_map(|family| family.iter()) {
        rows[row.number as usize] = Some(row);
    }
    rows
});

/// The table.
pub struct Table;

/// The one table.
pub static TABLE: Table = Table;

impl Table {
    /// The row of a number.
    pub fn row(&self, number: u64) -> Option<&'static Row> {
        ROWS.get(usize::try_from(number).ok()?).copied().flatten()
    }
}

impl SyscallTable for Table {
    fn call(&self, task: &CurrentTask, number: u64, args: [u64; 6]) -> Result<Outcome> {
        let row = self.row(number);
        if task.kernel().strace {
            return crate::strace::traced(task, row, number, args);
        }
        carry_out(task, row, number, args)
    }
}

pub(crate) fn carry_out(
    task: &CurrentTask,
    row: Option<&'static Row>,
    number: u64,
    args: [u64; 6],
) -> Result<Outcome> {
    match row {
        Some(row) => {
            if row.support == Support::Missing {
                task.kernel().count_unimplemented(row.name());
            }
            (row.call)(task, args)
        }
        None => {
            match sysno::name(number) {
                Some(name) => task.kernel().count_unimplemented(name),
                None => task.kernel().count_unimplemented(&format!("syscall_{number}")),
            }
            Err(Errno::ENOSYS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_has_two_rows() {
        let mut seen = std::collections::BTreeSet::new();
        for row in FAMILIES.iter().flat_map(|f| f.iter()) {
            assert!(seen.insert(row.number), "{} has two rows", row.name());
            assert_ne!(row.name(), "?");
        }
    }

    #[test]
    fn every_call_of_linux_has_a_row_and_what_is_missing_a_reason() {
        for number in 0..=sysno::MAX {
            let Some(name) = sysno::name(number) else { continue };
            let row = TABLE.row(number).unwrap_or_else(|| panic!("{name} has no row"));
            assert_eq!(row.number, number);
            assert_eq!(row.support == Support::Full, row.note.is_empty(), "{name}: {}", row.note);
        }
    }
}
