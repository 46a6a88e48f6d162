//! Client and server together: every operation against the same one done directly, hostile peers, attempts to get out
//! of a mount, and the confined process.

mod confined;
mod escape;
mod hostile;
mod model;
mod nodes;
mod operations;
mod serving;
