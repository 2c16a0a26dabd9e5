//! What a module says about itself: TOML text in an ELF section of its own, read without loading the file.
//!
//! ```text
//! name = "gzip"
//! api = "1.0.0"
//! provides = ["filter", "variables", ]
//! ```
//!
//! The file is not trusted: sizes and counts are bounded, and only the parts that are needed are read.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::error_text::ErrorText;

use object::elf;
use object::read::ReadCache;
use object::read::elf::{FileHeader as _, SectionHeader as _};
use semver::Version;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
pub use topnext_module_api::description::{FORMAT, SECTION};

use super::report::{Refusal, RefusalKind};

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 512 << 20;

/// The largest description, in bytes.
const MAX_SECTION: u64 = 1 << 20;

/// The most sections that a file may have. A module has about thirty.
const MAX_SECTIONS: u32 = 4096;

/// The ELF header of this host's word size.
#[cfg(target_pointer_width = "64")]
type Header = elf::FileHeader64<object::Endianness>;
#[cfg(target_pointer_width = "32")]
type Header = elf::FileHeader32<object::Endianness>;

/// What a module says about itself, and facts about its file.
#[derive(Clone, Debug)]
pub struct Description {
    /// The file that was read.
    pub file: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Which file it was.
    pub identity: Identity,
    /// The whole text, which also holds the schema of the module's configuration.
    pub text: String,
    /// The module's own name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// What it does, in one line; may be empty.
    pub about: String,
    /// The version of module-api that it was built with.
    pub api: Version,
    /// The ABI epoch that it was built with.
    pub epoch: u64,
    /// The compiler: `rustc 1.95.0 (...)`.
    pub rustc: String,
    /// The target: `x86_64-unknown-linux-gnu`.
    pub target: String,
    /// `unwind` or `abort`.
    pub panic: String,
    /// Whether it is active wherever it can be, without configuration.
    pub always: bool,
    /// Whether its table holds inside the level in which it stands.
    pub inherit: bool,
    /// Modules that a response must meet before this one.
    pub after: Vec<String>,
    /// Modules that a response must meet after this one.
    pub before: Vec<String>,
    /// What it provides: `filter`, `phases`, `content`, `upstream`, `balancer`, `variables`.
    pub provides: BTreeSet<String>,
    /// The phases of its handlers.
    pub phases: Vec<String>,
    /// The server parameters that its balancer honours.
    pub server_parameters: Vec<String>,
    /// The variables that it provides, without `$`.
    pub variables: Vec<String>,
}

/// Which file it was: device, inode, size, and time of the last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity(u64, u64, u64, (i64, i64));

impl Identity {
    /// The identity of the file with these metadata.
    pub fn of(metadata: &Metadata) -> Identity {
        let changed = (metadata.mtime(), metadata.mtime_nsec());
        Identity(metadata.dev(), metadata.ino(), metadata.len(), changed)
    }

    /// The identity of the file that is there now.
    pub fn at(path: &Path) -> io::Result<Identity> {
        Ok(Identity::of(&std::fs::metadata(path)?))
    }

    /// Device and inode: two names of one file have the same.
    pub fn file(self) -> (u64, u64) {
        (self.0, self.1)
    }
}

impl Description {
    /// Reads the description in the ELF file at `path`.
    pub fn read(path: &Path) -> Result<Description, Refusal> {
        let refuse = |kind| refusal(path, kind);
        let unreadable = |found: &str| {
            let fix = "make it a file that this user may read, of at most 512 MiB";
            refuse(RefusalKind::NotReadable).line("found", found).line("fix", fix)
        };
        // Opening a pipe or a device might block, so its kind is asked first.
        let metadata = std::fs::metadata(path).map_err(|error| unreadable(&ErrorText(&error).to_string()))?;
        if !metadata.is_file() {
            return Err(unreadable("not an ordinary file"));
        }
        let file = File::open(path).map_err(|error| unreadable(&ErrorText(&error).to_string()))?;
        let metadata = file.metadata().map_err(|error| unreadable(&ErrorText(&error).to_string()))?;
        if metadata.len() > MAX_FILE {
            return Err(unreadable(&format!("a file of {} bytes", metadata.len())));
        }
        let text = section(path, file)?;
        parse(path, text, &metadata)
    }

    /// The SHA-256 of the file, as it is now. Reads all of it.
    pub fn sha256(&self) -> io::Result<[u8; 32]> {
        let mut file = File::open(&self.file)?.take(MAX_FILE);
        let mut hasher = Sha256::new();
        let mut block = vec![0; 1 << 16];
        loop {
            match file.read(&mut block) {
                Ok(0) => return Ok(hasher.finalize().into()),
                Ok(n) => hasher.update(&block[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether it provides this kind of thing.
    pub fn provides(&self, kind: &str) -> bool {
        self.provides.contains(kind)
    }
}

/// A digest in hexadecimal digits.
pub fn hex(digest: &[u8; 32]) -> String {
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A refusal of a file; where it is known which declaration it belongs to, the caller adds that.
pub fn refusal(path: &Path, kind: RefusalKind) -> Refusal {
    let name = path.file_name().unwrap_or(path.as_os_str());
    Refusal::new(name.to_string_lossy(), kind).line("file", path.display().to_string())
}

/// The text in the section.
fn section(path: &Path, file: File) -> Result<String, Refusal> {
    let refuse = |kind| refusal(path, kind);
    let cache = ReadCache::new(file);
    let data = &cache;
    check_ident(path, data)?;
    let damaged = |found: &str| {
        let fix = "build or install it again: the file is damaged";
        refuse(RefusalKind::NotElf).line("found", format!("an ELF file, but: {found}")).line("fix", fix)
    };
    let broken = |error: object::read::Error| damaged(&error.to_string());
    let header = Header::parse(data).map_err(broken)?;
    let endian = header.endian().map_err(broken)?;
    let count = header.shnum(endian, data).map_err(broken)?;
    if count > MAX_SECTIONS {
        return Err(damaged(&format!("{count} sections, where at most {MAX_SECTIONS} are expected")));
    }
    let sections = header.sections(endian, data).map_err(broken)?;
    let mut found = Vec::new();
    for section in sections.iter() {
        if sections.section_name(endian, section).map_err(broken)? == SECTION.as_bytes() {
            found.push(section);
        }
    }
    let section = match found[..] {
        [section] => section,
        [] => {
            let fix = "name a module, which export_module! makes of a cdylib; strip may remove symbols, not sections";
            return Err(refuse(RefusalKind::NoDescription)
                .line("found", format!("a shared library without the section {SECTION}"))
                .line("fix", fix));
        }
        _ => {
            return Err(refuse(RefusalKind::SeveralDescriptions)
                .line("found", format!("{} sections {SECTION}, where one is expected", found.len()))
                .line("fix", "link one module into a file: a module must not depend on another one's crate"));
        }
    };
    let size = section.file_range(endian).map_or(0, |(_, size)| size);
    if size > MAX_SECTION {
        return Err(bad(path, &format!("{size} bytes, where at most {MAX_SECTION} are expected")));
    }
    let bytes = section.data(endian, data).map_err(broken)?;
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.trim_end_matches('\0').to_owned()),
        Err(error) => Err(bad(path, &error.to_string())),
    }
}

/// Checks the first bytes: an ELF shared object for this host's processor.
fn check_ident(path: &Path, data: &ReadCache<File>) -> Result<(), Refusal> {
    use object::read::ReadRef as _;
    let refuse = |kind| refusal(path, kind);
    let Some(ident) = data.read_bytes_at(0, 20).ok().filter(|bytes| bytes.starts_with(&elf::ELFMAG)) else {
        let found = "a file that does not start as an ELF file does";
        return Err(refuse(RefusalKind::NotElf).line("found", found).line("fix", "name the .so file of a module"));
    };
    let (class, order) = (ident[4], ident[5]);
    let word = |at: usize| {
        let bytes = [ident[at], ident[at + 1]];
        if order == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    };
    let ours = (usize::BITS, if cfg!(target_endian = "big") { 2 } else { 1 }, own_machine());
    let theirs = (if class == 2 { 64 } else { 32 }, order, word(18));
    if theirs.0 != ours.0 || theirs.1 != ours.1 || ours.2.is_some_and(|machine| machine != theirs.2) {
        let host = architecture(ours.0, ours.1, std::env::consts::ARCH);
        return Err(refuse(RefusalKind::Architecture)
            .line("host", host)
            .line("module", architecture(theirs.0, theirs.1, &machine_name(theirs.2)))
            .line("fix", format!("build it for {}", topnext_module_api::TARGET)));
    }
    if word(16) != 3 {
        let found = match word(16) {
            1 => "an object file",
            2 => "a program",
            4 => "a core dump",
            _ => "an ELF file of another type",
        };
        let fix = "name a shared library: crate-type = [\"cdylib\"] in Cargo.toml";
        return Err(refuse(RefusalKind::NotShared).line("found", found).line("fix", fix));
    }
    Ok(())
}

fn architecture(bits: u32, order: u8, machine: &str) -> String {
    let order = if order == 2 { "big" } else { "little" };
    format!("{machine}, {bits} bits, {order} endian")
}

/// ELF's numbers for processors (e_machine), with Rust's names.
const MACHINES: &[(u16, &str)] = &[
    (3, "x86"),
    (8, "mips"),
    (20, "powerpc"),
    (21, "powerpc64"),
    (22, "s390x"),
    (40, "arm"),
    (43, "sparc64"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv64"),
    (258, "loongarch64"),
];

/// The number of the processor that this host was built for, if it is known here.
fn own_machine() -> Option<u16> {
    MACHINES.iter().find(|(_, name)| *name == std::env::consts::ARCH).map(|(number, _)| *number)
}

fn machine_name(number: u16) -> String {
    let known = MACHINES.iter().find(|(other, _)| *other == number);
    known.map_or_else(|| format!("processor {number}"), |(_, name)| (*name).to_owned())
}

fn bad(path: &Path, found: &str) -> Refusal {
    let fix = "build it again with an unaltered module-api";
    refusal(path, RefusalKind::BadDescription).line("found", found).line("fix", fix)
}

fn parse(path: &Path, text: String, metadata: &Metadata) -> Result<Description, Refusal> {
    let bad = |found: &str| bad(path, found);
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| bad(error.to_string().trim_end()))?;
    let integer = |key: &str| match table.get(key) {
        Some(toml::Value::Integer(number)) => u64::try_from(*number).map_err(|_| bad(&format!("{key} = {number}"))),
        other => Err(bad(&expected(key, "an integer", other))),
    };
    let string = |key: &str| match table.get(key) {
        Some(toml::Value::String(text)) => Ok(text.clone()),
        other => Err(bad(&expected(key, "a string", other))),
    };
    let version = |key: &str| {
        let text = string(key)?;
        Version::parse(&text).map_err(|error| bad(&format!("{key} = {text:?}, which is no version: {error}")))
    };
    let words = |key: &str| match table.get(key) {
        Some(toml::Value::Array(list)) => list
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect::<Option<Vec<String>>>()
            .ok_or_else(|| bad(&expected(key, "a list of strings", table.get(key)))),
        other => Err(bad(&expected(key, "a list of strings", other))),
    };
    let format = integer("format")?;
    if format != u64::from(FORMAT) {
        return Err(refusal(path, RefusalKind::Format)
            .line("host", format!("descriptions of format {FORMAT}"))
            .line("module", format!("a description of format {format}"))
            .line("fix", "rebuild it against the module-api of this topnext, or upgrade topnext"));
    }
    let always = match table.get("always") {
        Some(toml::Value::Boolean(flag)) => *flag,
        other => return Err(bad(&expected("always", "true or false", other))),
    };
    // Descriptions of earlier states do not say it.
    let inherit = match table.get("inherit") {
        None => true,
        Some(toml::Value::Boolean(flag)) => *flag,
        other => return Err(bad(&expected("inherit", "true or false", other))),
    };
    Ok(Description {
        file: path.to_owned(),
        size: metadata.len(),
        identity: Identity::of(metadata),
        name: string("name")?,
        version: version("version")?,
        about: string("about")?,
        api: version("api")?,
        epoch: integer("epoch")?,
        rustc: string("rustc")?,
        target: string("target")?,
        panic: string("panic")?,
        always,
        inherit,
        after: words("after")?,
        before: words("before")?,
        provides: words("provides")?.into_iter().collect(),
        phases: words("phases")?,
        server_parameters: words("server_parameters")?,
        variables: words("variables")?,
        text,
    })
}

fn expected(key: &str, what: &str, found: Option<&toml::Value>) -> String {
    match found {
        Some(value) => format!("{key} = {value}, expected {what}"),
        None => format!("{key} is missing, expected {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Folder, description, module, shared_object};
    use super::*;

    /// Kind and last but one line of the refusal of a file with these bytes.
    fn refused(name: &str, bytes: &[u8]) -> (RefusalKind, String) {
        let folder = Folder::new(&format!("description_{name}"));
        let path = folder.file("libx.so", bytes);
        let refusal = Description::read(&path).unwrap_err();
        assert_eq!(refusal.module, "libx.so");
        assert_eq!(refusal.lines[0], ("file", path.display().to_string()));
        assert_eq!(refusal.lines.last().unwrap().0, "fix");
        (refusal.kind, refusal.lines[refusal.lines.len() - 2].1.clone())
    }

    #[test]
    fn reads_what_a_module_says() {
        let folder = Folder::new("description_good");
        let path = folder.file("libx.so", &module(&["after = [\"a\", ]", "provides = [\"filter\", \"phases\", ]"]));
        let description = Description::read(&path).unwrap();
        assert_eq!((description.name.as_str(), description.version.to_string().as_str()), ("x", "0.1.0"));
        assert_eq!(description.after, ["a"]);
        assert!(description.provides("phases") && !description.provides("content"));
        assert_eq!(description.size, std::fs::metadata(&path).unwrap().len());
        assert!(description.text.starts_with("format = 1\n"));
        folder.file("libx.so", b"abc");
        let digest = hex(&description.sha256().unwrap());
        assert_eq!(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn refuses_what_is_no_shared_library() {
        let elf = module(&[]);
        let with = |at: usize, byte: u8| {
            let mut bytes = elf.clone();
            bytes[at] = byte;
            bytes
        };
        assert_eq!(refused("empty", b"").0, RefusalKind::NotElf);
        assert_eq!(refused("text", b"#!/bin/sh\necho this is no library\n").0, RefusalKind::NotElf);
        assert_eq!(refused("cut", &elf[..elf.len() - 100]).0, RefusalKind::NotElf);
        assert_eq!(refused("program", &with(16, 2)), (RefusalKind::NotShared, "a program".into()));
        let (kind, module) = refused("s390x", &with(18, 22));
        assert_eq!((kind, module.as_str()), (RefusalKind::Architecture, "s390x, 64 bits, little endian"));
        assert_eq!(refused("class", &with(4, 1)).0, RefusalKind::Architecture);
        assert_eq!(refused("order", &with(5, 2)).0, RefusalKind::Architecture);
    }

    #[test]
    fn a_file_cut_anywhere_is_refused_without_panic() {
        let folder = Folder::new("description_cuts");
        let elf = module(&[]);
        for length in 0..elf.len() {
            let path = folder.file("libx.so", &elf[..length]);
            assert!(Description::read(&path).is_err(), "{length}");
        }
    }

    #[test]
    fn wants_one_section() {
        let text = description(&[]);
        let section = (SECTION, text.as_bytes());
        assert_eq!(refused("none", &shared_object(&[(".text", b"x")])).0, RefusalKind::NoDescription);
        let (kind, found) = refused("two", &shared_object(&[section, section]));
        assert_eq!(
            (kind, found.as_str()),
            (RefusalKind::SeveralDescriptions, "2 sections .topnext, where one is expected")
        );
    }

    #[test]
    fn bounds_sections_and_their_number() {
        let large = vec![b' '; (MAX_SECTION + 1) as usize];
        assert_eq!(
            refused("large", &shared_object(&[(SECTION, &large)])),
            (RefusalKind::BadDescription, "1048577 bytes, where at most 1048576 are expected".into())
        );
        let many = vec![(".a", &b""[..]); 5000];
        assert_eq!(
            refused("many", &shared_object(&many)),
            (RefusalKind::NotElf, "an ELF file, but: 5002 sections, where at most 4096 are expected".into())
        );
    }

    #[test]
    fn refuses_what_it_cannot_understand() {
        let with = |changed: &[&str]| module(changed);
        assert_eq!(refused("utf8", &shared_object(&[(SECTION, b"\xff")])).0, RefusalKind::BadDescription);
        assert_eq!(refused("toml", &shared_object(&[(SECTION, b"=")])).0, RefusalKind::BadDescription);
        assert_eq!(
            refused("version", &with(&["version = \"one\""])),
            (
                RefusalKind::BadDescription,
                "version = \"one\", which is no version: unexpected character 'o' while parsing major version number"
                    .into()
            )
        );
        assert_eq!(refused("missing", &shared_object(&[(SECTION, b"")])).1, "format is missing, expected an integer");
        assert_eq!(refused("words", &with(&["after = [1]"])).1, "after = [1], expected a list of strings");
        assert_eq!(refused("epoch", &with(&["epoch = -1"])).1, "epoch = -1");
        assert_eq!(
            refused("format", &with(&["format = 2", "name = 1"])),
            (RefusalKind::Format, "a description of format 2".into())
        );
        let deep = format!("config = {}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(refused("deep", &with(&[&deep])).0, RefusalKind::BadDescription);
    }

    #[test]
    fn refuses_what_is_no_file() {
        let folder = Folder::new("description_folder");
        let refusal = Description::read(folder.path()).unwrap_err();
        assert_eq!((refusal.kind, refusal.lines[1].1.as_str()), (RefusalKind::NotReadable, "not an ordinary file"));
        let absent = Description::read(&folder.path().join("no.so")).unwrap_err();
        assert_eq!(absent.kind, RefusalKind::NotReadable);
    }
}
