//! The scoreboard: what each thread of a worker does and has done, in memory that the master sees too, also when the worker
//! has died.
//!
//! ```text
//! word 0          how many threads have had a board
//! then, for each  CELL      who runs (module-api's RunningCell)
//!                 TURN      turns of its loop, and their ends: odd while it turns
//!                 NUMBER    of its loop, plus one; 0 for other threads
//!                 COUNTERS
//!                 REQUEST   the request that it has last called a module for: a number for it, length and start of its line
//!                 ACCOUNTS  what each hook of each module has done (module-api's Account)
//! ```
//!
//! It is large, and sparse: memory that is never touched is never there.
#![allow(unsafe_code)]

use std::{
    cell::Cell,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use topnext_module_api::running::{Account, HOOKS, Hook, Running, RunningCell};

use super::shared_memory::{self, Mapping};

/// Threads that have a place; others have memory of their own, which the master does not see.
pub const MAX_THREADS: usize = 1024;
/// Of these, loops and the thread pool; the others are threads of modules.
pub const MAX_OWN_THREADS: usize = 1000;
const HEADER: usize = 8;

/// The cell, a cache line.
pub const CELL: usize = 0;
/// The turn of the loop.
pub const TURN: usize = 8;
/// The number of the loop.
pub const NUMBER: usize = 9;
/// The first counter.
pub const COUNTERS: usize = 16;
/// The request that modules are called for: see [`note_request`].
const REQUEST: usize = 24;
/// Where its line starts, behind the number of the connection, the number of the request there, and the line's length.
const LINE: usize = REQUEST + 3;
/// The first account.
const ACCOUNTS: usize = 56;
/// Bytes of a request's line that are kept.
pub const MAX_LINE: usize = (ACCOUNTS - LINE) * size_of::<u64>();
/// Accounts of a thread: a row for each slot, which is the number of a module, and in it one for each hook.
pub const ROWS: usize = 128;
const WORDS_OF_ACCOUNT: usize = size_of::<Account>() / size_of::<AtomicU64>();
/// Words of a board.
const BOARD: usize = ACCOUNTS + ROWS * HOOKS * WORDS_OF_ACCOUNT;

const _: () = assert!(size_of::<RunningCell>() == (TURN - CELL) * size_of::<AtomicU64>());
const _: () = assert!(align_of::<RunningCell>() == align_of::<AtomicU64>());
const _: () = assert!(align_of::<Account>() == align_of::<AtomicU64>());
const _: () = assert!(Hook::ALL.len() <= HOOKS);
const _: () = assert!(crate::plugins::running::MAX_MODULES < ROWS);

/// The words of one thread.
pub type Board = &'static [AtomicU64];

/// What modules do is counted and timed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Accounting {
    /// Neither.
    Off = 0,
    /// Calls are counted, and timed in one turn of [`SAMPLE`].
    #[default]
    Sampled = 1,
    /// Both, always.
    All = 2,
}

/// Turns of a loop of which one is timed.
pub const SAMPLE: u64 = 16;

static ACCOUNTING: AtomicU8 = AtomicU8::new(Accounting::Sampled as u8);
/// None if there is no memory for it.
static WORDS: OnceLock<Option<&'static [AtomicU64]>> = OnceLock::new();
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
    if words.len() < HEADER + MAX_THREADS * BOARD || WORDS.set(Some(words)).is_err() {
        return Err(io::Error::other("it is not one, or there is one already"));
    }
    Ok(())
}

thread_local! {
    static MINE: Mine = Mine::new();
    /// The cell of a thread without a board, made when it is asked for, once.
    static OWN: &'static RunningCell = Box::leak(Box::default());
    /// The board, where it is found at less cost; none before the first use, and while the thread ends.
    static NEAR: Cell<Option<Board>> = const { Cell::new(None) };
}

/// A board, given back when the thread ends.
struct Mine(Option<Board>);

impl Mine {
    fn new() -> Mine {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Mine(free.or_else(make))
    }
}

impl Drop for Mine {
    fn drop(&mut self) {
        NEAR.set(None);
        let Some(board) = self.0 else { return };
        for at in [CELL, TURN, NUMBER, REQUEST] {
            board[at].store(0, Ordering::Relaxed);
        }
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(board);
    }
}

/// A board that no thread has had. None for threads that are too many: what they do is not seen.
fn make() -> Option<Board> {
    // A process without a master has a scoreboard of its own.
    let own = || Some(Mapping::new(create().ok()?).ok()?.leak());
    let words = (*WORDS.get_or_init(own))?;
    let number = usize::try_from(words[0].fetch_add(1, Ordering::Relaxed)).ok()?;
    let board = words[HEADER..].chunks_exact(BOARD).take(MAX_THREADS).nth(number)?;
    ALL.lock().unwrap_or_else(PoisonError::into_inner).push(board);
    Some(board)
}

/// The board of this thread. None while the thread ends.
#[inline]
pub fn mine() -> Option<Board> {
    NEAR.get().or_else(first)
}

#[cold]
fn first() -> Option<Board> {
    let board = MINE.try_with(|mine| mine.0).ok().flatten()?;
    NEAR.set(Some(board));
    account_on(board, accounting());
    Some(board)
}

/// This thread's cell.
#[inline]
pub fn cell() -> &'static RunningCell {
    match mine() {
        Some(board) => cell_of(board),
        // There is no board for it; or it ends, and something that is dropped at its end belongs to a module.
        None => OWN.try_with(|own| *own).unwrap_or_else(|_| Box::leak(Box::default())),
    }
}

#[inline]
fn cell_of(board: Board) -> &'static RunningCell {
    // SAFETY: a cell is the atomic words from CELL to TURN, no more and no less, with their alignment (`repr(C)`; checked above),
    // which live as long as the process; any words are a cell, but for the pointer in it, which only `account_on` sets, and which
    // only the process that has set it reads as one.
    unsafe { &*board[CELL..TURN].as_ptr().cast::<RunningCell>() }
}

/// Has a board count.
fn account_on(board: Board, accounting: Accounting) {
    let cell = cell_of(board);
    let accounts = board[ACCOUNTS..].as_ptr().cast_mut().cast::<Account>();
    // SAFETY: behind ACCOUNTS there are so many accounts of atomic words, with their alignment, as long as the process lives.
    unsafe { cell.set_accounts(accounts, ROWS) };
    // Loops say it anew in each turn.
    let is_on = accounting != Accounting::Off;
    cell.set_accounting(is_on, is_on);
}

fn accounting() -> Accounting {
    match ACCOUNTING.load(Ordering::Relaxed) {
        0 => Accounting::Off,
        1 => Accounting::Sampled,
        _ => Accounting::All,
    }
}

/// Says what is counted, on all threads. Called while there is one.
pub fn set_accounting(accounting: Accounting) {
    ACCOUNTING.store(accounting as u8, Ordering::Relaxed);
    all().into_iter().for_each(|board| account_on(board, accounting));
}

/// An account of a board, as the master sees it.
pub fn account(board: &[AtomicU64], slot: usize, hook: usize) -> Option<&Account> {
    let at = ACCOUNTS + (slot * HOOKS + hook) * WORDS_OF_ACCOUNT;
    let words = board.get(at..at + WORDS_OF_ACCOUNT).filter(|_| hook < HOOKS)?;
    // SAFETY: an account is so many atomic words, with their alignment, and any words are one.
    Some(unsafe { &*words.as_ptr().cast::<Account>() })
}

/// A turn of this thread's loop begins, or ends.
#[inline]
pub fn turn() {
    if let Some(board) = mine() {
        let turn = board[TURN].load(Ordering::Relaxed).wrapping_add(1);
        board[TURN].store(turn, Ordering::Relaxed);
        let (count, time) = match accounting() {
            Accounting::Off => (false, false),
            Accounting::Sampled => (true, turn / 2 % SAMPLE == 0),
            Accounting::All => (true, true),
        };
        cell_of(board).set_accounting(count, time);
    }
}

/// Notes which request modules are called for from here on: the number of its connection, which request it is there, and its line,
/// which is asked for if another request was noted before. So a crash and a loop that is stuck can be told with their request.
#[inline]
pub fn note_request(connection: u64, request: u32, line: impl FnOnce(&mut dyn FnMut(&[u8]))) {
    let Some(board) = mine() else { return };
    let is_known = board[REQUEST].load(Ordering::Relaxed) == connection
        && board[REQUEST + 1].load(Ordering::Relaxed) == u64::from(request);
    if is_known {
        return;
    }
    board[REQUEST].store(connection, Ordering::Relaxed);
    board[REQUEST + 1].store(request.into(), Ordering::Relaxed);
    line(&mut |line| {
        let line = &line[..line.len().min(MAX_LINE)];
        board[REQUEST + 2].store(line.len() as u64, Ordering::Relaxed);
        let (whole, rest) = line.as_chunks::<8>();
        for (word, bytes) in board[LINE..ACCOUNTS].iter().zip(whole) {
            word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        }
        if !rest.is_empty() {
            let mut bytes = [0; 8];
            bytes[..rest.len()].copy_from_slice(rest);
            board[LINE + whole.len()].store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
    });
}

/// The request of a board: the number of its connection, and the start of its line. None if there was none yet.
pub fn request(board: &[AtomicU64]) -> Option<(u64, Vec<u8>)> {
    let connection = word(board, REQUEST);
    let length = usize::try_from(word(board, REQUEST + 2)).unwrap_or(0).min(MAX_LINE);
    let mut line: Vec<u8> =
        board[LINE..ACCOUNTS].iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
    line.truncate(length);
    (connection != 0).then_some((connection, line))
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
