//! The bound on the connections of a loop (worker_connections), and the room that idle ones make for others.
//!
//! nginx keeps its idle connections in a list, from which the oldest go first. Here nothing is kept, so that being idle
//! costs no memory, and becoming busy no time. Where room is short, some sources are looked at, from where the last look
//! ended, as the hand of a clock goes; of the idle ones among them those go that have been idle for longest.

use super::Loop;

/// Sources that one look takes in: what a connection costs that comes when room is short.
const LOOK: usize = 256;
/// The most that are closed at once, and the part of those found that is (nginx: ngx_drain_connections).
const MAX_CLOSED: usize = 32;
const PART_CLOSED: usize = 8;
/// Room is short when less than this part of it is left.
const RESERVE: usize = 16;
/// How often it is said that connections are closed for want of room, in milliseconds.
const WARN_EVERY: u64 = 1000;

/// What came of asking for room for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is enough.
    Enough,
    /// There is, since idle connections have been closed, or will be soon.
    Short {
        /// It was not said lately.
        warn: bool,
    },
    /// There is none.
    Full,
}

impl Loop {
    /// Sets the greatest number of sockets, those that listen included, as nginx counts them.
    pub fn set_max_connections(&self, max: usize) {
        self.max_connections.set(max);
    }

    /// The greatest number of sockets.
    pub fn max_connections(&self) -> usize {
        self.max_connections.get()
    }

    /// The sockets that the loop has, but for those of [`Loop::leave_uncounted`].
    pub fn connections(&self) -> usize {
        self.sources.borrow().len().saturating_sub(self.removed.borrow().len() + self.uncounted.get())
    }

    /// Those that are there now are no connections: signals, and what the process has of its own.
    pub fn leave_uncounted(&self) {
        self.uncounted.set(self.sources.borrow().len());
    }

    /// Whether there is room for one more connection. Idle ones are closed when it is short.
    pub fn room(&self) -> Room {
        let max = self.max_connections.get();
        if max.saturating_sub(self.connections()) > max / RESERVE {
            return Room::Enough;
        }
        let closed = self.close_idle();
        if self.connections() >= max {
            return Room::Full;
        }
        let warn = closed > 0 && self.now_ms() >= self.warned_ms.get().saturating_add(WARN_EVERY);
        if warn {
            self.warned_ms.set(self.now_ms());
        }
        Room::Short { warn }
    }

    /// Closes some idle connections: how many. Their descriptors are free in the next turn.
    pub fn close_idle(&self) -> usize {
        let mut idle = self.look();
        idle.sort_unstable();
        idle.truncate((idle.len() / PART_CLOSED).clamp(1, MAX_CLOSED));
        for (_, key) in &idle {
            let source = self.sources.borrow().get(*key).cloned();
            if let Some(source) = source {
                source.give_way();
            }
        }
        idle.len()
    }

    /// The next idle sources: since when each is idle, and its key.
    fn look(&self) -> Vec<(u64, usize)> {
        let sources = self.sources.borrow();
        let places = sources.capacity();
        let start = self.hand.get();
        let look = LOOK.min(places);
        self.hand.set((start + look) % places.max(1));
        let keys = (start..start + look).map(|key| key % places);
        keys.filter_map(|key| Some((sources.get(key)?.idle_since()?, key))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use mio::net::UnixStream;

    use super::*;
    use crate::event::{Ready, SocketId, Source};

    struct Connection {
        socket: std::cell::RefCell<UnixStream>,
        lp: Rc<Loop>,
        id: Cell<Option<SocketId>>,
        since: Option<u64>,
    }

    impl Source for Connection {
        fn ready(self: Rc<Self>, _: Ready) {}

        fn idle_since(&self) -> Option<u64> {
            self.id.get().and(self.since)
        }

        fn give_way(self: Rc<Self>) {
            if let Some(id) = self.id.take() {
                self.lp.deregister(&mut *self.socket.borrow_mut(), id);
            }
        }
    }

    fn add(lp: &Rc<Loop>, since: Option<u64>) -> Rc<Connection> {
        let (socket, _) = UnixStream::pair().unwrap();
        let connection = Rc::new(Connection { socket: socket.into(), lp: lp.clone(), id: Cell::new(None), since });
        let id = lp.register(&mut *connection.socket.borrow_mut(), connection.clone()).unwrap();
        connection.id.set(Some(id));
        connection
    }

    #[test]
    fn idle_connections_give_way_oldest_first() {
        let lp = Loop::new().unwrap();
        lp.set_max_connections(32);
        let list: Vec<_> = (0..30).map(|n| add(&lp, (n >= 10).then_some(1000 - n))).collect();
        // Two places are the reserve: a sixteenth.
        assert_eq!(lp.room(), Room::Short { warn: true });
        let gone = |n: usize| list[n].id.get().is_none();
        // An eighth of the 20 that are idle: those idle for longest.
        assert_eq!((0..30).filter(|n| gone(*n)).collect::<Vec<_>>(), [28, 29]);
        assert_eq!((lp.connections(), lp.room()), (28, Room::Enough));
        let more: Vec<_> = (0..2).map(|_| add(&lp, None)).collect();
        assert_eq!(lp.room(), Room::Short { warn: false }, "it was said before");
        drop(more);
    }

    #[test]
    fn busy_connections_stay() {
        let lp = Loop::new().unwrap();
        lp.set_max_connections(16);
        let list: Vec<_> = (0..15).map(|_| add(&lp, None)).collect();
        assert_eq!(lp.room(), Room::Short { warn: false });
        let last = add(&lp, None);
        assert_eq!(lp.room(), Room::Full);
        assert!(list.iter().chain([&last]).all(|connection| connection.id.get().is_some()));
    }

    #[test]
    fn every_idle_connection_is_found_in_the_end() {
        let lp = Loop::new().unwrap();
        lp.set_max_connections(4096);
        let list: Vec<_> = (0..1500).map(|n| add(&lp, (n % 300 == 0).then_some(n))).collect();
        let looks = list.len().next_power_of_two() / LOOK + 1;
        // At least one at each look that finds any.
        let closed: usize = (0..5 * looks).map(|_| lp.close_idle()).sum();
        assert_eq!(closed, 5);
    }
}
