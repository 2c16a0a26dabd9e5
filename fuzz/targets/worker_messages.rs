//! What a worker says to its master.
//!
//! The first byte of the input says in pieces of which size the others come. They make the same messages as if they came at
//! once.

#![no_main]

use libfuzzer_sys::fuzz_target;
use topnext::process::{messages::ToMaster, pipe::Messages};

/// The longest message.
const LIMIT: usize = 2048;

fuzz_target!(|data: &[u8]| {
    let Some((size, bytes)) = data.split_first() else { return };
    let whole = all([bytes]);
    let pieces = all(bytes.chunks(usize::from(*size).max(1)));
    assert_eq!(whole, pieces);
});

/// All messages, and at last what is wrong.
fn all<'d>(pieces: impl IntoIterator<Item = &'d [u8]>) -> Vec<String> {
    let mut messages = Messages::new(LIMIT);
    let mut said = Vec::new();
    for piece in pieces {
        messages.put(piece);
        loop {
            match messages.take::<ToMaster>() {
                Ok(Some(message)) => said.push(format!("{message:?}")),
                Ok(None) => break,
                Err(error) => {
                    said.push(error.to_string());
                    return said;
                }
            }
        }
    }
    said
}
