//! A place in a slab, made small: each connection keeps some, and most of them are optional.

use std::num::NonZeroU32;

/// The index of a place. `Option<Key>` takes four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(NonZeroU32);

impl Key {
    /// The key of a place. A slab of a loop has fewer than `u32::MAX` of them: its sockets and timers would else take more
    /// than a hundred gigabytes.
    pub(super) fn new(index: usize) -> Key {
        let number = u32::try_from(index).ok().and_then(|index| NonZeroU32::MIN.checked_add(index));
        Key(number.expect("fewer places than u32::MAX"))
    }

    /// The index.
    pub(super) fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_whole() {
        assert_eq!(size_of::<Option<Key>>(), 4);
        for index in [0, 1, 1_048_576, u32::MAX as usize - 1] {
            assert_eq!(Key::new(index).index(), index);
        }
    }
}
