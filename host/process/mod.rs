//! Processes and threads.

pub mod worker;
