//! Where a value stands: files, and places in them.
//!
//! An [`Origin`] is twelve bytes and `Copy`; every value and key of the configuration carries one. The name of its file
//! is kept once, in [`Files`], which turns an origin into `plugins.toml:14:1`.

use std::fmt;

/// A place in a file of the configuration. Orders by file (as they were read), line, column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Index into [`Files`].
    pub file: u16,
    /// Line, from 1; 0 stands for the file as a whole.
    pub line: u32,
    /// Column, from 1, counted in characters (not bytes).
    pub column: u32,
}

impl Origin {
    /// Part of no file: a value that comes from a built-in default.
    pub const BUILT_IN: Origin = Origin { file: u16::MAX, line: 0, column: 0 };

    /// The file as a whole.
    pub fn whole_file(file: u16) -> Origin {
        Origin { file, line: 0, column: 0 }
    }
}

/// The names of the files that were read, the main file first.
#[derive(Clone, Debug, Default)]
pub struct Files {
    names: Vec<String>,
}

impl Files {
    /// Adds a name and returns its index; `None` when the table is full (65,535 files).
    pub fn add(&mut self, name: impl Into<String>) -> Option<u16> {
        let index = u16::try_from(self.names.len()).ok().filter(|&index| index < u16::MAX)?;
        self.names.push(name.into());
        Some(index)
    }

    /// The name under which the file was read; `(built-in)` for [`Origin::BUILT_IN`].
    pub fn name(&self, file: u16) -> &str {
        self.names.get(usize::from(file)).map_or("(built-in)", String::as_str)
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// True before the first file.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// `FILE:LINE:COLUMN`, or `FILE` for the whole file.
    pub fn place(&self, origin: Origin) -> Place<'_> {
        Place { name: self.name(origin.file), origin }
    }
}

/// An origin with its file's name, to be displayed.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    name: &'a str,
    origin: Origin,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin.line {
            0 => f.write_str(self.name),
            line => write!(f, "{}:{line}:{}", self.name, self.origin.column),
        }
    }
}

/// Turns byte offsets of one text into lines and columns.
///
/// Both look-ups take a bounded time however long a line is: characters are counted from the nearest of the
/// checkpoints, which stand 256 bytes apart.
#[derive(Debug)]
pub struct LineIndex<'a> {
    text: &'a [u8],
    file: u16,
    line_starts: Vec<usize>,
    /// Number of characters that start before byte `256 * index`.
    checkpoints: Vec<u32>,
}

const CHECKPOINT: usize = 256;

impl<'a> LineIndex<'a> {
    /// Reads the text once. The text must be shorter than 4 GiB for columns to be right.
    pub fn new(text: &'a str, file: u16) -> Self {
        let text = text.as_bytes();
        let mut line_starts = vec![0];
        line_starts.extend(text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1));
        let mut checkpoints = vec![0];
        let mut before = 0u32;
        for block in text.chunks(CHECKPOINT) {
            before = before.saturating_add(starts_in(block));
            checkpoints.push(before);
        }
        LineIndex { text, file, line_starts, checkpoints }
    }

    /// The place of a byte offset; offsets behind the end are taken as the end.
    pub fn origin(&self, offset: usize) -> Origin {
        let offset = offset.min(self.text.len());
        let line = self.line_starts.partition_point(|&start| start <= offset);
        let start = self.line_starts.get(line.wrapping_sub(1)).copied().unwrap_or(0);
        let column = self.chars_before(offset).saturating_sub(self.chars_before(start)).saturating_add(1);
        Origin { file: self.file, line: u32::try_from(line).unwrap_or(u32::MAX), column }
    }

    fn chars_before(&self, offset: usize) -> u32 {
        let block = offset / CHECKPOINT;
        let rest = self.text.get(block * CHECKPOINT..offset).unwrap_or(&[]);
        self.checkpoints.get(block).copied().unwrap_or(0).saturating_add(starts_in(rest))
    }
}

/// Number of bytes that start a UTF-8 character.
fn starts_in(bytes: &[u8]) -> u32 {
    bytes.iter().map(|byte| u32::from(byte & 0xc0 != 0x80)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let index = LineIndex::new("é = \"ü\" # x\r\ny", 0);
        let place = |offset| {
            let origin = index.origin(offset);
            (origin.line, origin.column)
        };
        assert_eq!(place(0), (1, 1));
        assert_eq!(place(2), (1, 2));
        assert_eq!(place(5), (1, 5));
        assert_eq!(place(15), (2, 1));
        assert_eq!(place(9999), (2, 2));
    }

    #[test]
    fn columns_are_right_behind_checkpoints() {
        let text = format!("{}\n{}", "é".repeat(300), "ab".repeat(1000));
        let index = LineIndex::new(&text, 0);
        assert_eq!((index.origin(598).line, index.origin(598).column), (1, 300));
        assert_eq!((index.origin(601 + 1500).line, index.origin(601 + 1500).column), (2, 1501));
    }

    #[test]
    fn a_place_names_its_file() {
        let mut files = Files::default();
        let file = files.add("plugins.toml").unwrap();
        assert_eq!(files.place(Origin { file, line: 3, column: 9 }).to_string(), "plugins.toml:3:9");
        assert_eq!(files.place(Origin::whole_file(file)).to_string(), "plugins.toml");
        assert_eq!(files.place(Origin::BUILT_IN).to_string(), "(built-in)");
    }
}
