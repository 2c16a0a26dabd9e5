//! The scoreboard: what each thread of a worker does and has done, in memory that the master sees too, also when the worker
//! has died.
//!
//! ```text
//! word 0          how many threads have had a board
//! then, for each  CELL    who runs (module-api's RunningCell)
//!                 TURN    turns of its loop, times two; odd while it turns
//!                 NUMBER  of its loop, plus one; 0 for other threads
//!                 COUNTERS
//! ```

use std::{
    cell::Cell,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use topnext_module_api::running::{Hook, Running};

use super::shared_memory::{self, Mapping};

/// Threads that have a place; others have memory of their own, which the master does not see.
pub const MAX_THREADS: usize = 256;
/// Words of a thread: a cache line for what other threads of the process never read, and one for counters.
const BOARD: usize = 16;
const HEADER: usize = 8;

/// Words of a board.
pub const CELL: usize = 0;
/// The turn of the loop.
pub const TURN: usize = 4;
/// The number of the loop.
pub const NUMBER: usize = 5;
/// The first counter.
pub const COUNTERS: usize = 8;
/// How many counters there are.
pub const MAX_COUNTERS: usize = 8;

/// The words of one thread.
pub type Board = &'static [AtomicU64];

static WORDS: OnceLock<&'static [AtomicU64]> = OnceLock::new();
/// Places of threads that have ended. Their counters go on counting.
static FREE: Mutex<Vec<Board>> = Mutex::new(Vec::new());
/// All that this process has given out.
static ALL: Mutex<Vec<Board>> = Mutex::new(Vec::new());

/// The scoreboard of a worker that is to be started.
pub fn create() -> io::Result<OwnedFd> {
    shared_memory::create("topnext scoreboard", ((HEADER + MAX_THREADS * BOARD) * size_of::<AtomicU64>()) as u64)
}

/// Uses a scoreboard, before any thread has asked for its board.
pub fn join(fd: impl AsFd) -> io::Result<()> {
    let words = Mapping::new(fd)?.leak();
    if words.len() < HEADER + MAX_THREADS * BOARD || WORDS.set(words).is_err() {
        return Err(io::Error::other("it is not one, or there is one already"));
    }
    Ok(())
}

thread_local! {
    static MINE: Mine = Mine::new();
    /// The same, where it is found at less cost; none before the first use, and while the thread ends.
    static NEAR: Cell<Option<Board>> = const { Cell::new(None) };
}

/// A board, given back when the thread ends.
struct Mine(Board);

impl Mine {
    fn new() -> Mine {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Mine(free.unwrap_or_else(make))
    }
}

impl Drop for Mine {
    fn drop(&mut self) {
        NEAR.set(None);
        for word in &self.0[..COUNTERS] {
            word.store(0, Ordering::Relaxed);
        }
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self.0);
    }
}

fn make() -> Board {
    let shared = WORDS.get().and_then(|words| {
        let number = usize::try_from(words[0].fetch_add(1, Ordering::Relaxed)).ok()?;
        words[HEADER..].chunks_exact(BOARD).take(MAX_THREADS).nth(number)
    });
    // Without a master, or for too many threads. Leaked, as boards are: threads are few, and places are used again.
    let board = shared.unwrap_or_else(|| Box::leak((0..BOARD).map(|_| AtomicU64::new(0)).collect()));
    ALL.lock().unwrap_or_else(PoisonError::into_inner).push(board);
    board
}

/// The board of this thread. None while the thread ends.
#[inline]
pub fn mine() -> Option<Board> {
    NEAR.get().or_else(first)
}

#[cold]
fn first() -> Option<Board> {
    let board = MINE.try_with(|mine| mine.0).ok();
    NEAR.set(board);
    board
}

/// A turn of this thread's loop begins, or ends.
#[inline]
pub fn turn() {
    if let Some(board) = mine() {
        board[TURN].store(board[TURN].load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

/// This thread has the loop with this number.
pub fn number_loop(number: usize) {
    if let Some(board) = mine() {
        board[NUMBER].store(number as u64 + 1, Ordering::Relaxed);
    }
}

/// All boards of this process.
pub fn all() -> Vec<Board> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The scoreboard of another process: what the master sees.
#[derive(Debug)]
pub struct View(Mapping);

impl View {
    /// Looks at a scoreboard.
    pub fn new(fd: impl AsFd) -> io::Result<View> {
        Ok(View(Mapping::new(fd)?))
    }

    /// The boards of all threads that there have been.
    pub fn boards(&self) -> impl Iterator<Item = &[AtomicU64]> {
        let words = self.0.words();
        let count = usize::try_from(words[0].load(Ordering::Relaxed)).unwrap_or(MAX_THREADS).min(MAX_THREADS);
        words[HEADER..].chunks_exact(BOARD).take(count)
    }
}

/// A word of a board.
pub fn word(board: &[AtomicU64], at: usize) -> u64 {
    board[at].load(Ordering::Relaxed)
}

/// Who runs: the module's slot, or 0, and the hook.
pub fn running(board: &[AtomicU64]) -> (u32, Hook) {
    let running = Running::of_word(word(board, CELL));
    (running.module, running.hook)
}
