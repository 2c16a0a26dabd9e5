//! Text with variables, such as a value of `return` or of a header.
//!
//! Text without a dollar stands for itself. Two texts that compile do so together if nothing becomes a longer name.

#![no_main]

use libfuzzer_sys::fuzz_target;
use topnext::template::Templates;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let mut templates = Templates::default();
    let compiled = templates.compile(text);
    match &compiled {
        Ok(template) => {
            let constant = (!text.contains('$')).then_some(text.as_bytes());
            assert_eq!(templates.constant(*template), constant);
        }
        Err(message) => assert!(text.contains('$') && !message.is_empty() && !message.contains('\n'), "{message}"),
    }
    let (first, second) = text.split_at(text.floor_char_boundary(text.len() / 2));
    let open = second.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '_');
    if !open && templates.compile(first).is_ok() && templates.compile(second).is_ok() {
        assert!(compiled.is_ok(), "{compiled:?}");
    }
});
