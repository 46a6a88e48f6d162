//! `runsc pause` and `runsc resume`.

use anyhow::{Result, anyhow, bail};

use crate::container::Runtime;
use crate::control::Client;
use crate::state::Status;

/// Holds the processes of a running container.
pub fn pause(runtime: &Runtime, id: &str) -> Result<i32> {
    set(runtime, id, Status::Running, Status::Paused, Client::pause)
}

/// Lets them go on.
pub fn resume(runtime: &Runtime, id: &str) -> Result<i32> {
    set(runtime, id, Status::Paused, Status::Running, Client::resume)
}

fn set(
    runtime: &Runtime,
    id: &str,
    from: Status,
    to: Status,
    request: impl FnOnce(&Client) -> Result<()>,
) -> Result<i32> {
    let container = runtime.root.open(id)?;
    let mut state = container.state()?.ok_or_else(|| anyhow!("it was never created"))?;
    match state.status() {
        // As runc: what has ended is "not running", whatever is asked for.
        Status::Stopped => bail!("container not running"),
        status if status != from => bail!("container is {}, not {}", status.as_str(), from.as_str()),
        _ => {}
    }
    let client = Client::connect(&runtime.root.address(&state))?;
    // A command that dies in between must not leave a container held that looks as if it ran.
    state.status = Status::Paused;
    container.save(&state)?;
    let result = request(&client);
    state.status = if result.is_ok() { to } else { from };
    container.save(&state)?;
    result.map(|()| 0)
}
