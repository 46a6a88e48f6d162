//! Typed arguments: what the six registers of a call mean.

use std::fmt::Write as _;
use std::marker::PhantomData;

use abi::limits::PATH_MAX;
use abi::{Errno, Result};
use sentry::task::{CurrentTask, Outcome};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The type of an argument.
pub trait Argument: Sized {
    /// From the register. Narrow types take the low bits, as Linux's do.
    fn from_register(value: u64) -> Self;

    /// For `--strace`. May read guest memory.
    fn show(&self, task: &CurrentTask) -> String;
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Argument for $type {
            fn from_register(value: u64) -> $type {
                value as $type
            }

            fn show(&self, _task: &CurrentTask) -> String {
                if *self as u64 > 4096 && *self as i64 > 0 { format!("{self:#x}") } else { self.to_string() }
            }
        }
    )*};
}

integers!(i32, u32, i64, u64, usize, u16);

/// An address in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub u64);

impl Argument for Address {
    fn from_register(value: u64) -> Address {
        Address(value)
    }

    fn show(&self, _task: &CurrentTask) -> String {
        if self.0 == 0 { "NULL".to_string() } else { format!("{:#x}", self.0) }
    }
}

/// A pointer to one or more `T` in guest memory; may be null.
pub struct UserPtr<T> {
    /// The address.
    pub addr: u64,
    type_: PhantomData<T>,
}

impl<T> Clone for UserPtr<T> {
    fn clone(&self) -> UserPtr<T> {
        *self
    }
}

impl<T> Copy for UserPtr<T> {}

impl<T> UserPtr<T> {
    /// A pointer to this address.
    pub fn new(addr: u64) -> UserPtr<T> {
        UserPtr { addr, type_: PhantomData }
    }

    /// Is it null?
    pub fn is_null(self) -> bool {
        self.addr == 0
    }

    /// `None` if it is null.
    pub fn non_null(self) -> Option<UserPtr<T>> {
        (!self.is_null()).then_some(self)
    }

    /// The pointer to element `index`. EFAULT when it leaves the address space.
    pub fn at(self, index: usize) -> Result<UserPtr<T>> {
        let offset = index.checked_mul(size_of::<T>()).ok_or(Errno::EFAULT)?;
        Ok(UserPtr::new(self.addr.checked_add(offset as u64).ok_or(Errno::EFAULT)?))
    }
}

impl<T: FromBytes + IntoBytes> UserPtr<T> {
    /// Reads it. EFAULT.
    pub fn read(self, task: &CurrentTask) -> Result<T> {
        task.mm().read_object(self.addr)
    }

    /// Reads `count` elements; the caller has bounded `count`. EFAULT.
    pub fn read_slice(self, task: &CurrentTask, count: usize) -> Result<Vec<T>> {
        task.mm().read_array(self.addr, count)
    }
}

impl<T: IntoBytes + Immutable> UserPtr<T> {
    /// Writes it, as a result of the present call. EFAULT.
    pub fn write(self, task: &CurrentTask, value: &T) -> Result<()> {
        task.mm().write_result(self.addr, value.as_bytes())
    }

    /// Writes it unless the pointer is null. EFAULT.
    pub fn write_if_some(self, task: &CurrentTask, value: &T) -> Result<()> {
        if self.is_null() { Ok(()) } else { self.write(task, value) }
    }
}

impl<T> Argument for UserPtr<T> {
    fn from_register(value: u64) -> UserPtr<T> {
        UserPtr::new(value)
    }

    fn show(&self, task: &CurrentTask) -> String {
        Address(self.addr).show(task)
    }
}

/// A zero-terminated string in guest memory: a path, a name.
#[derive(Clone, Copy, Debug)]
pub struct UserCStr(pub u64);

impl UserCStr {
    /// Reads a path. EFAULT, ENAMETOOLONG from PATH_MAX bytes on.
    pub fn path(self, task: &CurrentTask) -> Result<Vec<u8>> {
        task.mm().read_cstring(self.0, PATH_MAX, Errno::ENAMETOOLONG)
    }

    /// Reads a string of less than `max` bytes; `too_long` if it is longer.
    pub fn read(self, task: &CurrentTask, max: usize, too_long: Errno) -> Result<Vec<u8>> {
        task.mm().read_cstring(self.0, max, too_long)
    }

    /// Is it null?
    pub fn is_null(self) -> bool {
        self.0 == 0
    }
}

impl Argument for UserCStr {
    fn from_register(value: u64) -> UserCStr {
        UserCStr(value)
    }

    fn show(&self, task: &CurrentTask) -> String {
        match self.path(task) {
            Ok(path) => {
                let mut text = String::from("\"");
                for &byte in path.iter().take(128) {
                    let _ = write!(text, "{}", std::ascii::escape_default(byte));
                }
                text.push('"');
                text
            }
            Err(_) => Address(self.0).show(task),
        }
    }
}

/// What a handler may return.
pub trait Return {
    /// As the end of the call.
    fn outcome(self) -> Outcome;
}

impl Return for Outcome {
    fn outcome(self) -> Outcome {
        self
    }
}

impl Return for () {
    fn outcome(self) -> Outcome {
        Outcome::Value(0)
    }
}

macro_rules! returns {
    ($($type:ty),*) => {$(
        impl Return for $type {
            fn outcome(self) -> Outcome {
                Outcome::Value(self as u64)
            }
        }
    )*};
}

returns!(i32, u32, i64, u64, usize);
