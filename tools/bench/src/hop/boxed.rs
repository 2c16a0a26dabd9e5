//! The same filters in one binary, as a trait object each, to compare with: without anything, with the cell that says
//! which module runs, and with the panic guard as well, which is all that a module's hook has.

use topnext::plugins::running;
use topnext_module_api::running::Hook;

/// A header filter. The count stands for what a real one would look at.
pub trait Header {
    /// Passes on, or ends.
    fn call(&self, count: &mut u64) -> i32;
}

/// What is around each filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Around {
    Nothing,
    Cell,
    CellAndGuard,
}

impl Around {
    pub const ALL: [Around; 3] = [Around::Nothing, Around::Cell, Around::CellAndGuard];

    pub const fn name(self) -> &'static str {
        match self {
            Around::Nothing => "Box<dyn>",
            Around::Cell => "Box<dyn>, cell",
            Around::CellAndGuard => "Box<dyn>, cell, guard",
        }
    }
}

struct End;

struct Plain(Box<dyn Header>);

struct WithCell(Box<dyn Header>);

struct WithGuard(Box<dyn Header>);

/// A chain of so many filters, and an end.
pub fn chain(around: Around, filters: usize) -> Box<dyn Header> {
    (0..filters).fold(Box::new(End), |next: Box<dyn Header>, _| match around {
        Around::Nothing => Box::new(Plain(next)),
        Around::Cell => Box::new(WithCell(next)),
        Around::CellAndGuard => Box::new(WithGuard(next)),
    })
}

impl Header for End {
    fn call(&self, count: &mut u64) -> i32 {
        *count += 1;
        0
    }
}

impl Header for Plain {
    fn call(&self, count: &mut u64) -> i32 {
        // Something is left to do behind the call; else it would be a jump.
        self.0.call(count).wrapping_add(1)
    }
}

impl Header for WithCell {
    fn call(&self, count: &mut u64) -> i32 {
        running::as_hook(Hook::HEADER_FILTER, false, || self.0.call(count)).unwrap_or(-1)
    }
}

impl Header for WithGuard {
    fn call(&self, count: &mut u64) -> i32 {
        running::as_hook(Hook::HEADER_FILTER, true, || self.0.call(count)).unwrap_or(-1)
    }
}
