//! What a handler asks for: a path, opened from the cache, at once, or by the pool.

use std::{io, rc::Rc, sync::Arc};

use rustix::io::Errno;
use topnext_module_api::Opened;

use super::{How, NoWait, OpenFile, Symlinks, cache, open_blocking, open_nowait};
use crate::{
    error_text::ErrorText,
    event::{Answer, Reply},
    log::error::Level,
    log_line,
    plugins::services::bufs,
    request::{JOB_DONE, Opening, Request},
};

/// How the files of a place are looked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// The cache, if there is one (nginx: open_file_cache).
    pub cache: Option<cache::Rules>,
    /// What becomes of symbolic links (nginx: disable_symlinks).
    pub symlinks: Symlinks,
    /// The template of the part of a path in which they are followed.
    pub from: Option<u32>,
    /// The kernel is told that large files will be read from start to end (nginx: read_ahead).
    pub read_ahead: bool,
}

impl Rules {
    fn how(&self, r: &Rc<Request>, path: &[u8]) -> How {
        let plain = How { symlinks: self.symlinks, from: 0, read_ahead: self.read_ahead };
        let Some(from) = self.from.filter(|_| self.symlinks != Symlinks::Follow) else { return plain };
        let text;
        let from = match r.site.templates.constant(from) {
            Some(text) => text,
            None => {
                text = r.text_owned(r.site.templates.eval(from, r));
                &text
            }
        };
        match trusted(path, from) {
            Some(len) if len == path.len() => How { symlinks: Symlinks::Follow, ..plain },
            len => How { from: len.unwrap_or(0), ..plain },
        }
    }
}

/// How much of the start of `path` is covered by `from`: whole names only.
fn trusted(path: &[u8], from: &[u8]) -> Option<usize> {
    let rest = path.strip_prefix(from).filter(|_| !from.is_empty())?;
    if rest.is_empty() || rest.starts_with(b"/") {
        return Some(from.len());
    }
    from.ends_with(b"/").then(|| from.len() - 1)
}

/// Opens a file for a handler. `Pending`: the hook that `code` names is woken when it is there.
pub fn open(r: &Rc<Request>, path: &[u8], code: u64) -> Opened {
    match of_pool(r, path) {
        Some(Some((how, result))) => return found(r, path, how, result),
        Some(None) => return Opened::Pending,
        None => (),
    }
    if path.contains(&0) {
        return failed(r, path, Errno::NOENT.into());
    }
    let rules = &r.place().files;
    let how = rules.how(r, path);
    if let Some(cache) = &rules.cache
        && let Some(known) = cache::find(&r.conn.lp, path, how, cache)
    {
        return match known {
            Ok(file) => Opened::File(bufs::handle(file)),
            Err(error) => failed(r, path, error.into()),
        };
    }
    match open_nowait(path, how) {
        Ok(NoWait::Done(file)) => found(r, path, how, Ok(file)),
        Err(error) => found(r, path, how, Err(error)),
        Ok(NoWait::WouldBlock) => open_on_pool(r, path, how, code),
    }
}

/// What the pool has opened, if it was asked for this path; `Some(None)` while it works.
#[allow(clippy::option_option, reason = "the two are answers to two questions")]
fn of_pool(r: &Rc<Request>, path: &[u8]) -> Option<Option<(How, io::Result<OpenFile>)>> {
    let slot = &r.extra.get()?.opening;
    let opening = slot.take()?;
    // What was found in one way is not what another location, with other rules for links, would find.
    if opening.path != path || opening.how != r.place().files.how(r, path) {
        return None;
    }
    let result = opening.result.take();
    if result.is_none() {
        slot.replace(Some(opening));
        return Some(None);
    }
    Some(result.map(|result| (opening.how, result)))
}

fn open_on_pool(r: &Rc<Request>, path: &[u8], how: How, code: u64) -> Opened {
    let reply = Reply::new(r.conn.lp.remote(), r.announce(), code | JOB_DONE);
    let owned = path.to_vec();
    let result = match Answer::ask(&r.site.pool, reply, move || open_blocking(&owned, how)) {
        Ok(result) => result,
        Err(error) => {
            log_line!(Level::Error, "*{} {}{}", r.conn.number, ErrorText(&error), r.log_tail());
            return Opened::Failed;
        }
    };
    r.extra().job_started();
    r.extra().opening.replace(Some(Opening { path: path.to_vec(), how, result }));
    Opened::Pending
}

/// Takes a result into the cache, and hands it out.
fn found(r: &Rc<Request>, path: &[u8], how: How, result: io::Result<OpenFile>) -> Opened {
    let found = match result {
        Ok(file) => Ok(Arc::new(file)),
        Err(error) => match Errno::from_io_error(&error).filter(|errno| is_about_path(*errno)) {
            Some(errno) => Err(errno),
            None => return failed(r, path, error),
        },
    };
    let found = match &r.place().files.cache {
        Some(cache) => cache::add(&r.conn.lp, path, how, found, cache),
        None => found,
    };
    match found {
        Ok(file) => Opened::File(bufs::handle(file)),
        Err(errno) => failed(r, path, errno.into()),
    }
}

/// Whether an error says something of the path, rather than of the state that the server is in.
fn is_about_path(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::ACCESS | Errno::LOOP | Errno::MLINK)
}

#[cold]
fn failed(r: &Request, path: &[u8], error: io::Error) -> Opened {
    r.extra().open_error.set(error.raw_os_error().unwrap_or(0));
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Opened::NotFound,
        Some(Errno::ACCESS | Errno::LOOP | Errno::MLINK) => Opened::Forbidden,
        _ => {
            let (path, error) = (String::from_utf8_lossy(path), ErrorText(&error));
            log_line!(Level::Crit, "*{} open() \"{path}\" failed ({error}){}", r.conn.number, r.log_tail());
            Opened::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::trusted;

    #[test]
    fn only_whole_names_are_trusted() {
        assert_eq!(trusted(b"/a/b", b"/a"), Some(2));
        assert_eq!(trusted(b"/a/b", b"/a/"), Some(2));
        assert_eq!(trusted(b"/ab", b"/a"), None);
        assert_eq!(trusted(b"/a", b"/a"), Some(2));
        assert_eq!(trusted(b"/a", b""), None);
        assert_eq!(trusted(b"/a", b"/a/b"), None);
    }
}
