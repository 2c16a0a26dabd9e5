//! Whom the workers run as (nginx: user), and their limits. Taken on before any thread starts.

use std::{
    ffi::CString,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::unistd::{Gid, Group, Uid, User};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use serde::{Deserialize, Serialize};

use crate::{config, error_text::ErrorText};

/// A user of the system, with a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Account {
    name: CString,
    uid: u32,
    gid: u32,
}

impl Account {
    /// Looks a user up in the system's tables. None if this process is not root, and cannot become another.
    pub fn find(user: &config::User) -> Result<Option<Account>, String> {
        let cannot = |what: &str, name: &str, error: nix::Error| {
            format!("the {what} {name:?} cannot be looked up ({})", ErrorText(&error.into()))
        };
        let found = User::from_name(&user.name).map_err(|error| cannot("user", &user.name, error))?;
        let found =
            found.ok_or_else(|| format!("found {:?}, which is not the name of a user of this system", user.name))?;
        let gid = match &user.group {
            None => found.gid,
            Some(name) => {
                let group = Group::from_name(name).map_err(|error| cannot("group", name, error))?;
                group.ok_or_else(|| format!("found {name:?}, which is not the name of a group of this system"))?.gid
            }
        };
        let name = CString::new(found.name).map_err(|_| "the name of the user has a NUL character".to_string())?;
        Ok(Uid::effective().is_root().then_some(Account { name, uid: found.uid.as_raw(), gid: gid.as_raw() }))
    }

    /// The numbers of the user and its group.
    pub fn ids(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }

    /// Becomes this user, for good.
    pub fn assume(&self) -> Result<(), String> {
        GIVEN_UP.store(true, Ordering::Relaxed);
        let cannot = |what: &str, error: nix::Error| {
            format!("cannot become user {:?}: {what}() failed ({})", self.name, ErrorText(&error.into()))
        };
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        nix::unistd::initgroups(&self.name, gid).map_err(|error| cannot("initgroups", error))?;
        nix::unistd::setgid(gid).map_err(|error| cannot("setgid", error))?;
        nix::unistd::setuid(uid).map_err(|error| cannot("setuid", error))?;
        // A process that has changed its user leaves no core dump, unless it says that it may (prctl(2)). As in nginx.
        let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
        Ok(())
    }
}

/// Whether this process was root, and is another user now.
pub fn were_given_up() -> bool {
    GIVEN_UP.load(Ordering::Relaxed)
}

static GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// Sets the limits and the priority that the configuration has for workers.
pub fn set_limits(main: &config::Main) -> Result<(), String> {
    if let Some(priority) = main.worker_priority {
        rustix::process::setpriority_process(None, priority).map_err(|error| {
            let error = ErrorText(&error.into());
            format!("worker_priority cannot be set to {priority} ({error}); only root can go below 0")
        })?;
    }
    let limits = [
        ("worker_rlimit_nofile", Resource::Nofile, main.worker_rlimit_nofile.map(u64::from)),
        ("worker_rlimit_core", Resource::Core, main.worker_rlimit_core),
    ];
    for (name, resource, value) in limits {
        let Some(value) = value else { continue };
        let limit = Rlimit { current: Some(value), maximum: Some(value) };
        rustix::process::setrlimit(resource, limit).map_err(|error| {
            let most = match resource {
                Resource::Nofile => std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default(),
                _ => String::new(),
            };
            let most = match most.trim() {
                "" => String::new(),
                most => format!(", and to no more than fs.nr_open, which is {most}"),
            };
            let error = ErrorText(&error.into());
            format!("{name} cannot be set to {value} ({error}); a limit can be raised by root only{most}")
        })?;
    }
    Ok(())
}
