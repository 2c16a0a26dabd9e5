//! Processes and threads.

pub mod signals;

pub mod worker;
