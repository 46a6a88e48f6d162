//! What a sandbox bears: crowds of threads and processes, programs that take all they can get, killed processes, bad
//! input. It answers throughout, says what is wrong, and nothing of it is left behind.

mod crowds;
mod fuzz;
mod hostile;
mod idle;
mod input;
mod killed;
mod life;
mod programs;
mod sandbox;
