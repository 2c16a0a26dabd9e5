//! Draining: a loop whose worker is to end finishes what it has.

use std::rc::Rc;

use super::{Loop, Source};

/// So many sockets are none that keep the loop; and the call when no others are left.
pub(super) type Emptied = (usize, Rc<dyn Source>, u64);

impl Loop {
    /// Tells all sources that they are to come to an end. When no more than `fixed` sockets are left, `source.posted(code)` is
    /// called, once.
    pub fn drain(&self, fixed: usize, source: Rc<dyn Source>, code: u64) {
        self.draining_since.set(Some(self.now_ms()));
        self.emptied.replace(Some((fixed, source, code)));
        let sources: Vec<Rc<dyn Source>> = self.sources.borrow().iter().map(|(_, source)| source.clone()).collect();
        for source in sources {
            source.drain();
        }
        self.tell_emptied();
    }

    /// Since when the loop drains, on its clock.
    pub fn draining_since(&self) -> Option<u64> {
        self.draining_since.get()
    }

    /// Looked at when a turn ends.
    pub(super) fn tell_emptied(&self) {
        if self.draining_since.get().is_none() {
            return;
        }
        let is_empty = self.emptied.borrow().as_ref().is_some_and(|(fixed, ..)| self.connections() <= *fixed);
        if is_empty && let Some((_, source, code)) = self.emptied.take() {
            // Handled in the next turn, which comes at once.
            self.post(source, code);
            self.remote.wake();
        }
    }
}
