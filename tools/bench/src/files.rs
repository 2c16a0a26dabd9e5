//! The files that both servers have below their `root`.
//!
//! ```text
//! 1k 100k 1m      bytes that do not repeat
//! page.html       30 KB of text with tags, which compresses as text does
//! list/           1,000 files with a few bytes
//! ```

use std::fs;
use std::path::Path;

/// Names and sizes (bytes) of the files that do not repeat.
const FILES: [(&str, usize); 3] = [("1k", 1024), ("100k", 100 * 1024), ("1m", 1024 * 1024)];

/// Size of `page.html`, in bytes.
const PAGE: usize = 30 * 1024;

/// How many files are in `list/`.
pub const LISTED: usize = 1000;

/// Writes all of them below `root`, which it makes.
pub fn write(root: &Path) -> Result<(), String> {
    let list = root.join("list");
    fs::create_dir_all(&list).map_err(|error| format!("{}: {error}", list.display()))?;
    let write = |name: &str, content: &[u8]| {
        let path = root.join(name);
        fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))
    };
    FILES.iter().try_for_each(|&(name, size)| write(name, &noise(size)))?;
    write("page.html", &page(PAGE))?;
    (0..LISTED).try_for_each(|number| write(&format!("list/{}", listed(number)), &noise(number % 100)))
}

/// The name of a file in `list/`; some need escapes in HTML or in a URL.
pub fn listed(number: usize) -> String {
    match number % 50 {
        0 => format!("a&b <{number:04}>.txt"),
        1 => format!("größe {number:04}.html"),
        _ => format!("file-{number:04}.txt"),
    }
}

/// Bytes that are printable, and not the same at two places a small distance apart, so that a body with a piece missing or
/// doubled differs.
pub fn noise(size: usize) -> Vec<u8> {
    let mut random = random();
    std::iter::repeat_with(|| b'!' + (random() % 94) as u8).take(size).collect()
}

/// HTML: paragraphs of words, short ones more often than long ones, with a link here and there.
pub fn page(size: usize) -> Vec<u8> {
    let mut random = random();
    let words: Vec<String> = (0..600)
        .map(|_| {
            (0..2 + random() % 8).map(|_| char::from(b"etaoinshrdlucmfwypvbgkjqxz"[(random() % 26) as usize])).collect()
        })
        .collect();
    let mut text = "<!DOCTYPE html>\n<html>\n<head><title>A page</title></head>\n<body>\n".to_owned();
    while text.len() < size {
        text.push_str("<p class=\"text\">");
        for _ in 0..30 + random() % 60 {
            // The product favours the first words, as languages do.
            let word = &words[(random() % 600 * (random() % 600) / 600) as usize];
            match random() % 25 {
                0 => text.push_str(&format!("<a href=\"/{word}.html\">{word}</a> ")),
                _ => text.push_str(&format!("{word} ")),
            }
        }
        text.push_str("</p>\n");
    }
    text.truncate(size);
    text.into_bytes()
}

/// A linear congruential generator (the constants of C's classic rand); its upper bits are the better ones.
fn random() -> impl FnMut() -> u32 {
    let mut state: u32 = 1;
    move || {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        state >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_printable_and_does_not_repeat_early() {
        let bytes = noise(4096);
        assert_eq!(bytes.len(), 4096);
        assert!(bytes.iter().all(u8::is_ascii_graphic));
        assert_ne!(bytes[..1024], bytes[1024..2048]);
    }

    #[test]
    fn the_page_compresses_as_text_does() {
        use std::io::Write;
        let page = page(PAGE);
        assert_eq!(page.len(), PAGE);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        gzip.write_all(&page).unwrap();
        let ratio = PAGE as f64 / gzip.finish().unwrap().len() as f64;
        assert!((2.0..6.0).contains(&ratio), "{ratio}");
    }
}
