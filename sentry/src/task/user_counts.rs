//! How many objects of a kind each user has (kernel/ucount.c).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The counts of one kind, by kernel uid.
#[derive(Default)]
pub struct UserCounts(Mutex<HashMap<u32, u64>>);

impl UserCounts {
    /// Counts one more of `uid`'s, as long as the result lives. `None` if there are `max` already.
    pub fn charge(self: &Arc<UserCounts>, uid: u32, max: i64) -> Option<Charge> {
        let mut counts = self.0.lock();
        let count = counts.entry(uid).or_default();
        if *count >= u64::try_from(max).unwrap_or(0) {
            if *count == 0 {
                counts.remove(&uid);
            }
            return None;
        }
        *count += 1;
        Some(Charge { counts: self.clone(), uid })
    }
}

/// An object that is counted, until this is dropped.
pub struct Charge {
    counts: Arc<UserCounts>,
    uid: u32,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock();
        if let Some(count) = counts.get_mut(&self.uid) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_a_limit() {
        let counts = Arc::new(UserCounts::default());
        let (a, b) = (counts.charge(1, 2).unwrap(), counts.charge(1, 2).unwrap());
        assert!(counts.charge(1, 2).is_none() && counts.charge(2, 0).is_none());
        let other = counts.charge(2, 1).unwrap();
        drop(a);
        let c = counts.charge(1, 2).unwrap();
        drop((b, c, other));
        assert!(counts.0.lock().is_empty());
    }
}
