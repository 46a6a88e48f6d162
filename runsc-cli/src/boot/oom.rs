//! Whom the host's out-of-memory killer takes first: the stubs, which hold the guest's memory, before the sentry.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

/// How much earlier stubs are taken than the sentry (`/proc/PID/oom_score_adj`, of ±1000).
const STUBS_ABOVE: i32 = 500;

/// This process's `/proc/self/oom_score_adj`, opened while there is a /proc.
pub struct OomScore {
    file: File,
    own: i32,
}

impl OomScore {
    /// None without /proc.
    pub fn open(wanted: i32) -> Option<OomScore> {
        let mut file = File::options().read(true).write(true).open("/proc/self/oom_score_adj").ok()?;
        // Less than it has been given takes CAP_SYS_RESOURCE, which not every root has: then it stays as it is.
        if wanted != 0 {
            let _ = file.write_all(wanted.to_string().as_bytes());
        }
        let mut text = String::new();
        File::open("/proc/self/oom_score_adj").ok()?.read_to_string(&mut text).ok()?;
        Some(OomScore { file, own: text.trim().parse().ok()? })
    }

    /// Does `work` with the score of stubs, which the processes that it makes inherit.
    pub fn as_stub<T>(&self, work: impl FnOnce() -> T) -> T {
        self.set((self.own + STUBS_ABOVE).min(1000));
        let result = work();
        self.set(self.own);
        result
    }

    fn set(&self, score: i32) {
        if let Err(error) = self.file.write_at(score.to_string().as_bytes(), 0) {
            tracing::debug!("oom_score_adj {score}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_taken_first() {
        let Some(score) = OomScore::open(0) else { return };
        let child =
            score.as_stub(|| std::process::Command::new("cat").arg("/proc/self/oom_score_adj").output());
        let child: i32 = String::from_utf8(child.unwrap().stdout).unwrap().trim().parse().unwrap();
        assert_eq!(child, (score.own + STUBS_ABOVE).min(1000));
        let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        assert_eq!(own.trim(), score.own.to_string());
    }
}
