//! What is closed on a thread of its own.
//!
//! The last close of a descriptor can take as long as whoever has chosen it wants: of a socket that lingers (SO_LINGER), or a
//! file of a file system that is a program. A worker that was taken over can send such descriptors to the master, or leave
//! them behind in its channel.

use std::{mem::ManuallyDrop, ops::Deref, thread};

/// Something that was made by a process that need not be trusted. When it is dropped, that happens on another thread.
#[derive(Debug)]
pub struct Apart<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Apart<T> {
    /// It is closed apart from now on.
    pub fn new(what: T) -> Apart<T> {
        Apart(Some(what))
    }
}

impl<T: Send + 'static> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is there until this is dropped")
    }
}

impl<T: Send + 'static> Drop for Apart<T> {
    fn drop(&mut self) {
        // Without a thread it stays open: that costs a descriptor, and closing it here could cost everything.
        if let Some(what) = self.0.take().map(ManuallyDrop::new) {
            let close = move || drop(ManuallyDrop::into_inner(what));
            let _ = thread::Builder::new().name("topnext-close".to_string()).spawn(close);
        }
    }
}
