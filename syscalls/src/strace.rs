//! `--strace`: each call as a line of the log, with its arguments and result.

use abi::{Result, sysno};
use sentry::task::{CurrentTask, Outcome};

use crate::table::{Row, carry_out};

pub(crate) fn traced(
    task: &CurrentTask,
    row: Option<&'static Row>,
    number: u64,
    args: [u64; 6],
) -> Result<Outcome> {
    let name = sysno::name(number).map_or_else(|| format!("syscall_{number}"), str::to_string);
    let only = &task.kernel().strace_only;
    if !only.is_empty() && !only.contains(&name) {
        return carry_out(task, row, number, args);
    }
    let comm = String::from_utf8_lossy(&task.comm()).into_owned();
    let head = format!("[{:>4}:{:>4}] {comm}", task.tgid(), task.tid());
    let text = match row {
        Some(row) => (row.show)(task, args),
        None => args.map(|a| format!("{a:#x}")).join(", "),
    };
    // Written before it is carried out: it may never return.
    tracing::info!(target: "strace", "{head} E {name}({text})");
    let start = task.kernel().clock.monotonic();
    let result = carry_out(task, row, number, args);
    let micros = (task.kernel().clock.monotonic().saturating_sub(start)) as f64 / 1000.0;
    let shown = match &result {
        Ok(Outcome::Value(value)) if *value > 4096 => format!("{value:#x}"),
        Ok(Outcome::Value(value)) => value.to_string(),
        Ok(Outcome::Context) => "(registers replaced)".to_string(),
        Ok(Outcome::Exit(status)) => format!("(exit {status:#x})"),
        Err(e) => format!("-1 {e:?} ({e})"),
    };
    tracing::info!(target: "strace", "{head} X {name} = {shown} ({micros:.1} µs)");
    result
}
