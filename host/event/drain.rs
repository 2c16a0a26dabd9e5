//! Draining: a loop whose worker is to end finishes what it has.

use std::rc::Rc;

use super::{Loop, Source};

/// The call when no connection is left.
pub(super) type Emptied = (Rc<dyn Source>, u64);

impl Loop {
    /// Tells all sources that they are to come to an end. When there is no connection any more, `source.posted(code)` is called,
    /// once.
    pub fn drain(&self, source: Rc<dyn Source>, code: u64) {
        self.draining_since.set(Some(self.now_ms()));
        self.emptied.replace(Some((source, code)));
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
        if self.connections() == 0
            && let Some((source, code)) = self.emptied.take()
        {
            // Handled in the next turn, which comes at once.
            self.post(source, code);
            self.remote.wake();
        }
    }
}
