//! Checks that need nothing but a description: would this host load the module, and is it the one that was declared.

use std::path::Path;

use topnext_module_api::{ABI_EPOCH, API_VERSION, TARGET};

use super::Declared;
use super::description::{self, Description, hex};
use super::report::{Refusal, RefusalKind};

/// This host's module-api, as refusals name it.
pub fn host_api() -> String {
    format!("module-api {API_VERSION} (abi {ABI_EPOCH})")
}

/// A module's module-api, as refusals name it.
pub fn module_api(description: &Description) -> String {
    format!("module-api {} (abi {}), built by {}", description.api, description.epoch, description.rustc)
}

/// Whether this host could load it: the same major version and epoch of module-api, the same target, unwinding panics.
pub fn host(description: &Description) -> Result<(), Refusal> {
    let major = API_VERSION.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0u64);
    let both = |kind, host: &str, module: &str| {
        let refusal = description::refusal(Path::new(&description.file), kind);
        refusal.line("host", host).line("module", module)
    };
    if description.api.major != major {
        let upgrade = if description.api.major > major { ", or upgrade topnext" } else { "" };
        return Err(both(RefusalKind::Major, &host_api(), &module_api(description))
            .line("fix", format!("rebuild it against module-api {major}.x{upgrade}")));
    }
    if description.epoch != u64::from(ABI_EPOCH) {
        let upgrade = if description.epoch > u64::from(ABI_EPOCH) { ", or upgrade topnext" } else { "" };
        return Err(both(RefusalKind::Epoch, &host_api(), &module_api(description))
            .line("fix", format!("rebuild it against the module-api of this topnext{upgrade}")));
    }
    if description.target != TARGET {
        return Err(both(RefusalKind::Target, TARGET, &description.target)
            .line("fix", format!("build it with --target {TARGET}")));
    }
    if description.panic != "unwind" {
        let module = format!("panic = {:?}", description.panic);
        return Err(both(RefusalKind::PanicStrategy, "panic = \"unwind\": a panic costs one request", &module)
            .line("fix", "remove panic = \"abort\" from its profile in Cargo.toml, and from RUSTFLAGS"));
    }
    Ok(())
}

/// Whether it is the module that was declared: its name, its version, and the digest of its file.
pub fn declaration(description: &Description, declared: &Declared) -> Result<(), Refusal> {
    let refuse = |kind| description::refusal(&description.file, kind);
    if description.name != declared.name {
        let fix = match &declared.alias {
            Some(_) => format!("write name = {:?}", description.name),
            None => format!("write name = {0:?}, or name = {0:?} and as = {1:?}", description.name, declared.name),
        };
        return Err(refuse(RefusalKind::Name)
            .line("wanted", format!("name = {:?}", declared.name))
            .line("module", format!("name = {:?}", description.name))
            .line("fix", fix));
    }
    if let Some(version) = &declared.version
        && !version.matches(&description.version)
    {
        return Err(refuse(RefusalKind::Version)
            .line("wanted", format!("version = \"{version}\""))
            .line("module", format!("version {}", description.version))
            .line("fix", "install a version that fits, or change the requirement"));
    }
    if let Some(pinned) = &declared.sha256 {
        let found = description.sha256().map_err(|error| {
            let fix = "make it a file that this user may read";
            refuse(RefusalKind::NotReadable).line("found", error.to_string()).line("fix", fix)
        })?;
        if found != *pinned {
            return Err(refuse(RefusalKind::Sha256)
                .line("wanted", format!("sha256 = \"{}\"", hex(pinned)))
                .line("module", format!("sha256 = \"{}\"", hex(&found)))
                .line("fix", "install the pinned file, or, if this one is meant, change the pin"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Folder, module};
    use super::*;

    fn read(name: &str, changed: &[&str]) -> Description {
        let folder = Folder::new(&format!("check_{name}"));
        Description::read(&folder.file("libx.so", &module(changed))).unwrap()
    }

    /// Kind and lines without the file.
    fn lines(result: Result<(), Refusal>) -> (RefusalKind, String) {
        let refusal = result.unwrap_err();
        let lines: Vec<String> = refusal.lines[1..].iter().map(|(label, text)| format!("{label} {text}")).collect();
        (refusal.kind, lines.join("; "))
    }

    #[test]
    fn a_module_of_this_host_passes_also_if_its_minor_version_is_another() {
        let major = API_VERSION.split('.').next().unwrap();
        assert_eq!(host(&read("good", &[])), Ok(()));
        assert_eq!(host(&read("newer", &[&format!("api = \"{major}.99.0\"")])), Ok(()));
    }

    #[test]
    fn refuses_by_major_then_epoch_then_target_then_panic() {
        let all = ["api = \"99.0.0\"", "epoch = 99", "target = \"t\"", "panic = \"abort\""];
        let kinds = [RefusalKind::Major, RefusalKind::Epoch, RefusalKind::Target, RefusalKind::PanicStrategy];
        for (i, kind) in kinds.into_iter().enumerate() {
            assert_eq!(lines(host(&read(kind.name(), &all[i..]))).0, kind);
        }
    }

    #[test]
    fn names_both_sides_and_the_fix() {
        let epoch = ABI_EPOCH;
        assert_eq!(
            lines(host(&read("major", &["api = \"99.1.0\""]))).1,
            format!(
                "host module-api {API_VERSION} (abi {epoch}); module module-api 99.1.0 (abi {epoch}), built by rustc 1.2.3; fix rebuild it against module-api 1.x, or upgrade topnext"
            )
        );
        assert_eq!(
            lines(host(&read("older", &["api = \"0.9.0\""]))).1,
            format!(
                "host module-api {API_VERSION} (abi {epoch}); module module-api 0.9.0 (abi {epoch}), built by rustc 1.2.3; fix rebuild it against module-api 1.x"
            )
        );
        assert_eq!(
            lines(host(&read("panic", &["panic = \"abort\""]))).1,
            "host panic = \"unwind\": a panic costs one request; module panic = \"abort\"; fix remove panic = \"abort\" from its profile in Cargo.toml, and from RUSTFLAGS"
        );
    }

    #[test]
    fn checks_the_declaration() {
        let folder = Folder::new("check_declaration");
        let description = Description::read(&folder.file("libx.so", &module(&[]))).unwrap();
        let declared = Declared { name: "x".into(), ..Declared::default() };
        assert_eq!(declaration(&description, &declared), Ok(()));
        let other = Declared { name: "y".into(), ..Declared::default() };
        assert_eq!(
            lines(declaration(&description, &other)),
            (
                RefusalKind::Name,
                "wanted name = \"y\"; module name = \"x\"; fix write name = \"x\", or name = \"x\" and as = \"y\""
                    .into()
            )
        );
        let newer = Declared { version: Some("^1.2".parse().unwrap()), ..declared.clone() };
        assert_eq!(
            lines(declaration(&description, &newer)),
            (
                RefusalKind::Version,
                "wanted version = \"^1.2\"; module version 0.1.0; fix install a version that fits, or change the requirement"
                    .into()
            )
        );
        let right = Declared { sha256: Some(description.sha256().unwrap()), ..declared.clone() };
        assert_eq!(declaration(&description, &right), Ok(()));
        let pinned = Declared { sha256: Some([0xab; 32]), ..declared };
        let (kind, text) = lines(declaration(&description, &pinned));
        assert_eq!(kind, RefusalKind::Sha256);
        assert!(text.starts_with(&format!("wanted sha256 = \"{}\"; module sha256 = \"", "ab".repeat(32))), "{text}");
    }
}
