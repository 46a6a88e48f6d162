//! Kernel parameters (sysctl(8)): numbers that `/proc/sys` shows and may change.
//!
//! A [`Parameter`] says what a parameter is; its values are kept only where they were changed, in the [`Parameters`] of
//! the kernel or of a namespace.

use std::collections::BTreeMap;

use abi::{Errno, Result};
use parking_lot::RwLock;

/// What a parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The sandbox.
    System,
    /// A network namespace.
    Net,
    /// An IPC namespace.
    Ipc,
}

/// A parameter: one or several numbers.
#[derive(Debug)]
pub struct Parameter {
    /// Its name, as in sysctl.conf(5).
    pub name: &'static str,
    /// Where its values are kept.
    pub scope: Scope,
    /// Its values at the start.
    pub default: &'static [i64],
    /// The least that each may be.
    pub min: i64,
    /// The most that each may be.
    pub max: i64,
}

impl Parameter {
    /// All values.
    pub fn values(&self, of: &Parameters) -> Vec<i64> {
        of.0.read().get(self.name).cloned().unwrap_or_else(|| self.default.to_vec())
    }

    /// The first value.
    pub fn get(&self, of: &Parameters) -> i64 {
        let set = of.0.read().get(self.name).and_then(|values| values.first().copied());
        set.or(self.default.first().copied()).unwrap_or(0)
    }

    /// Replaces the first values. EINVAL, and no change, if one is out of range or there are too many.
    pub fn set(&self, of: &Parameters, new: &[i64]) -> Result<()> {
        if new.len() > self.default.len() || new.iter().any(|v| !(self.min..=self.max).contains(v)) {
            return Err(Errno::EINVAL);
        }
        let mut all = of.0.write();
        let values = all.entry(self.name).or_insert_with(|| self.default.to_vec());
        for (value, new) in values.iter_mut().zip(new) {
            *value = *new;
        }
        Ok(())
    }
}

/// Values that were changed.
#[derive(Debug, Default)]
pub struct Parameters(RwLock<BTreeMap<&'static str, Vec<i64>>>);

#[cfg(test)]
mod tests {
    use super::*;

    const SEM: Parameter = Parameter {
        name: "kernel.sem",
        scope: Scope::Ipc,
        default: &[32000, 1_024_000_000, 500, 32000],
        min: 0,
        max: i32::MAX as i64,
    };

    #[test]
    fn values_are_kept_where_they_were_set() {
        let (one, other) = (Parameters::default(), Parameters::default());
        SEM.set(&one, &[1, 2]).unwrap();
        assert_eq!(SEM.values(&one), [1, 2, 500, 32000]);
        assert_eq!(SEM.values(&other), SEM.default);
        assert_eq!((SEM.get(&one), SEM.get(&other)), (1, 32000));
        assert_eq!(SEM.set(&one, &[-1]), Err(Errno::EINVAL));
        assert_eq!(SEM.set(&one, &[1, 2, 3, 4, 5]), Err(Errno::EINVAL));
        assert_eq!(SEM.get(&one), 1);
    }
}
