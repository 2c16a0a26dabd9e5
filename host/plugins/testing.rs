//! For the unit tests of this folder: a folder that goes away, and ELF files made by hand.

use std::fs;
use std::path::{Path, PathBuf};

use super::description::SECTION;

/// A folder for one test, removed when it is dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// `name` is unique among the tests.
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("topnext_plugins_{}_{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// A folder in it.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A file in it.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The text of a good description for this host, with the keys in `changed` replaced (`key = value`) or added.
pub fn description(changed: &[&str]) -> String {
    let mut lines = vec![
        "format = 1".to_string(),
        "name = \"x\"".into(),
        "version = \"0.1.0\"".into(),
        "about = \"A test\"".into(),
        format!("api = \"{}\"", topnext_module_api::API_VERSION),
        format!("epoch = {}", topnext_module_api::ABI_EPOCH),
        "rustc = \"rustc 1.2.3\"".into(),
        format!("target = \"{}\"", topnext_module_api::TARGET),
        "panic = \"unwind\"".into(),
        "always = false".into(),
        "after = []".into(),
        "before = []".into(),
        "provides = [\"filter\", ]".into(),
        "phases = []".into(),
        "server_parameters = []".into(),
        "variables = []".into(),
        "config = []".into(),
    ];
    for line in changed {
        let key = line.split('=').next().unwrap();
        match lines.iter_mut().find(|old| old.starts_with(key)) {
            Some(old) => *old = line.to_string(),
            None => lines.push(line.to_string()),
        }
    }
    lines.join("\n") + "\n"
}

/// A shared object of this machine with these sections, and nothing to run in it.
pub fn shared_object(sections: &[(&str, &[u8])]) -> Vec<u8> {
    // Section 0 is empty, the last one holds the names.
    let mut names = vec![0];
    let mut headers = vec![[0; 64]];
    let mut contents = Vec::new();
    let all = sections.iter().copied().chain([(".shstrtab", &[][..])]);
    for (i, (name, bytes)) in all.enumerate() {
        let name_at = u32::try_from(names.len()).unwrap();
        names.extend(name.bytes().chain([0]));
        let last = i == sections.len();
        let bytes = if last { names.clone() } else { bytes.to_vec() };
        let mut header = [0; 64];
        header[0..4].copy_from_slice(&name_at.to_ne_bytes());
        header[4..8].copy_from_slice(&if last { 3u32 } else { 1 }.to_ne_bytes());
        header[24..32].copy_from_slice(&(64 + contents.len() as u64).to_ne_bytes());
        header[32..40].copy_from_slice(&(bytes.len() as u64).to_ne_bytes());
        headers.push(header);
        contents.extend(bytes);
    }
    contents.resize(contents.len().next_multiple_of(8), 0);
    let mut file = vec![0; 64];
    let order = if cfg!(target_endian = "little") { 1 } else { 2 };
    file[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, order, 1]);
    file[16..18].copy_from_slice(&3u16.to_ne_bytes());
    // The machine is that of this test's own program.
    file[18..20].copy_from_slice(&fs::read(std::env::current_exe().unwrap()).unwrap()[18..20]);
    file[20..24].copy_from_slice(&1u32.to_ne_bytes());
    file[40..48].copy_from_slice(&(64 + contents.len() as u64).to_ne_bytes());
    file[52..54].copy_from_slice(&64u16.to_ne_bytes());
    file[58..60].copy_from_slice(&64u16.to_ne_bytes());
    file[60..62].copy_from_slice(&u16::try_from(headers.len()).unwrap().to_ne_bytes());
    file[62..64].copy_from_slice(&u16::try_from(headers.len() - 1).unwrap().to_ne_bytes());
    file.extend(contents);
    file.extend(headers.concat());
    file
}

/// A file that says this about itself; see [`description`].
pub fn module(changed: &[&str]) -> Vec<u8> {
    shared_object(&[(".text", b"\x90"), (SECTION, description(changed).as_bytes())])
}
