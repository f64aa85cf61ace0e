//! The folder as an index: what is let in, what is left out, and what a refresh keeps.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, Mode, mkfifoat};
use tempfile::TempDir;

use super::super::{Diagnostic, Inspection, RegistryError, Script, ScriptRegistry};
use super::source;
use crate::limits::SCRIPT_BYTES_MAX;

const PLAIN: &str = "print('{}')\n";

fn write(folder: &TempDir, name: &str, content: impl AsRef<[u8]>) {
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    chmod(&path, 0o644);
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        write(&folder, name, content);
    }
    folder
}

fn names(registry: &ScriptRegistry) -> Vec<String> {
    let index = registry.index();
    index
        .scripts()
        .map(|script| script.name().to_owned())
        .collect()
}

/// Returns what is wrong with each invalid script, as it is shown.
fn invalid(registry: &ScriptRegistry) -> Vec<String> {
    let index = registry.index();
    let all = index
        .invalid()
        .iter()
        .flat_map(|script| &script.diagnostics);
    all.map(ToString::to_string).collect()
}

fn nothing(_: &Script) -> Result<Inspection, RegistryError> {
    Ok(Inspection::default())
}

#[test]
fn a_folder_becomes_an_index_by_name_and_category() {
    let metadata = |category: &str, order: i32| {
        source(&format!(
            "[tool.automation]\ncategory = \"{category}\"\norder = {order}"
        ))
    };
    let folder = folder(&[
        ("c.py", &metadata("Device Slow", 100)),
        ("a.py", &metadata("device_slow", 100)),
        ("z.py", &metadata("DEVICE-SLOW", 1)),
        ("other.py", &metadata("VPN Issue", 1)),
        ("manual.py", PLAIN),
    ]);
    let registry = ScriptRegistry::load(folder.path()).unwrap();
    assert_eq!(
        names(&registry),
        ["a.py", "c.py", "manual.py", "other.py", "z.py"]
    );
    let index = registry.index();
    for category in ["Device Slow", "device slow", "Device_Slow "] {
        let order: Vec<_> = index
            .for_category(category)
            .iter()
            .map(|s| s.name())
            .collect();
        assert_eq!(order, ["z.py", "a.py", "c.py"]);
    }
    for category in ["", "-", "manual.py", "Device", "../Device Slow"] {
        assert!(index.for_category(category).is_empty(), "{category}");
    }
    assert!(index.script("A.py").is_none() && index.script("./a.py").is_none());
    assert_eq!(
        index.script("a.py").unwrap().path(),
        folder.path().join("a.py")
    );
    assert_eq!(registry.folder(), Some(folder.path()));
    assert!(index.invalid().is_empty());
}

#[test]
fn helpers_folders_and_other_files_are_left_out_silently() {
    let folder = folder(&[
        ("a.py", PLAIN),
        ("_helper.py", "\0"),
        (".hidden.py", "\0"),
        ("README.md", "\0"),
        ("a.pyc", "\0"),
    ]);
    fs::create_dir(folder.path().join("folder.py")).unwrap();
    fs::create_dir(folder.path().join("tests")).unwrap();
    fs::write(folder.path().join("tests/b.py"), PLAIN).unwrap();
    let registry = ScriptRegistry::load(folder.path()).unwrap();
    assert_eq!(names(&registry), ["a.py"]);
    assert_eq!(invalid(&registry), [""; 0]);
}

#[test]
fn a_broken_script_is_listed_and_blocks_no_other() {
    let folder = folder(&[
        ("good.py", PLAIN),
        ("bad.py", &source("[tool.automation]\nrisk = 3")),
        ("two words.py", PLAIN),
        ("upper.PY", PLAIN),
    ]);
    write(&folder, "latin.py", b"x = '\xe9'\n");
    write(&folder, "huge.py", vec![b'#'; SCRIPT_BYTES_MAX + 1]);
    let registry = ScriptRegistry::load(folder.path()).unwrap();
    assert_eq!(names(&registry), ["good.py"]);
    let grammar = "expected a letter or a digit, then at most 63 letters, digits, _ or -, then .py";
    assert_eq!(
        invalid(&registry),
        [
            "bad.py:4:10: [tool.automation]: risk is 3, expected \"low\" or \"high\"".to_owned(),
            "huge.py: larger than 256 KiB, expected a smaller file".to_owned(),
            "latin.py:1: byte 0xe9 is not UTF-8, expected a file saved as UTF-8".to_owned(),
            format!("two words.py: \"two words.py\" is not a script's name: {grammar}"),
            format!("upper.PY: \"upper.PY\" is not a script's name: {grammar}"),
        ]
    );
}

#[test]
fn only_regular_files_are_opened() {
    let folder = folder(&[("good.py", PLAIN)]);
    let path = |name: &str| folder.path().join(name);
    symlink(path("good.py"), path("link.py")).unwrap();
    symlink("/nowhere", path("dangling.py")).unwrap();
    symlink("/", path("tree.py")).unwrap();
    let _socket = UnixListener::bind(path("socket.py")).unwrap();
    mkfifoat(CWD, path("pipe.py"), Mode::RUSR).unwrap();
    let registry = ScriptRegistry::load(folder.path()).unwrap();
    assert_eq!(names(&registry), ["good.py"]);
    assert_eq!(
        invalid(&registry),
        [
            "dangling.py: a symbolic link, expected the file itself",
            "link.py: a symbolic link, expected the file itself",
            "pipe.py: not a regular file",
            "socket.py: not a regular file",
            "tree.py: a symbolic link, expected the file itself",
        ]
    );
}

#[test]
fn names_that_are_not_utf8_are_invalid() {
    use std::os::unix::ffi::OsStrExt;

    let folder = folder(&[("good.py", PLAIN)]);
    let name = std::ffi::OsStr::from_bytes(b"b\xff.py");
    fs::write(folder.path().join(name), PLAIN).unwrap();
    let registry = ScriptRegistry::load(folder.path()).unwrap();
    assert_eq!(names(&registry), ["good.py"]);
    assert!(invalid(&registry)[0].contains("\"b\\u{fffd}.py\" is not a script's name"));
}

#[test]
fn names_equal_but_for_case_are_both_refused() {
    let folder = folder(&[("Disk.py", PLAIN), ("disk.py", "\0"), ("other.py", PLAIN)]);
    let registry = ScriptRegistry::load(folder.path()).unwrap();
    assert_eq!(names(&registry), ["other.py"]);
    assert_eq!(
        invalid(&registry),
        [
            "Disk.py: Disk.py and disk.py are equal but for case, expected one of them",
            "disk.py: Disk.py and disk.py are equal but for case, expected one of them",
        ]
    );
    let script = Script::parse("a.py", b"").unwrap();
    let registry = ScriptRegistry::from_scripts([script.clone(), script]);
    assert_eq!((names(&registry).len(), invalid(&registry).len()), (0, 2));
}

#[test]
fn what_everyone_can_change_is_refused_and_what_a_group_can_is_doubted() {
    let folder = folder(&[("open.py", PLAIN), ("group.py", PLAIN)]);
    chmod(&folder.path().join("open.py"), 0o666);
    chmod(&folder.path().join("group.py"), 0o664);
    let registry = ScriptRegistry::load(folder.path()).unwrap();
    assert_eq!(
        invalid(&registry),
        ["open.py: everyone can change it (mode 666), expected `chmod o-w`"]
    );
    let index = registry.index();
    let script = index.script("group.py").unwrap();
    assert_eq!(
        script.warnings()[0].to_string(),
        "group.py: its group can change it (mode 664), expected `chmod g-w`"
    );

    chmod(folder.path(), 0o777);
    let error = ScriptRegistry::load(folder.path()).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("(mode 777), expected `chmod o-w`"),
        "{error}"
    );
    assert!(registry.refresh(nothing).is_err());
    assert_eq!(names(&registry), ["group.py"], "the former index stays");
    chmod(folder.path(), 0o770);
    assert!(registry.refresh(nothing).is_ok());
}

#[test]
fn an_unreadable_file_is_invalid_and_an_unreadable_folder_is_an_error() {
    let folder = folder(&[("secret.py", PLAIN)]);
    let path = folder.path().join("secret.py");
    chmod(&path, 0o000);
    let registry = ScriptRegistry::load(folder.path()).unwrap();
    // Root reads everything.
    if fs::read(&path).is_err() {
        assert_eq!(
            invalid(&registry),
            ["secret.py: can't be read: Permission denied (os error 13)"]
        );
    }
    for missing in [folder.path().join("missing"), path] {
        let error = ScriptRegistry::load(&missing).unwrap_err();
        assert!(matches!(error, RegistryError::Folder { .. }), "{error}");
        assert!(error.to_string().contains(&missing.display().to_string()));
    }
}

#[test]
fn a_refresh_swaps_the_index_and_keeps_unchanged_scripts() {
    let folder = folder(&[
        ("same.py", PLAIN),
        ("changed.py", PLAIN),
        ("gone.py", PLAIN),
    ]);
    let registry = ScriptRegistry::load(folder.path()).unwrap();
    let before = registry.index();
    write(&folder, "changed.py", "print(1)\n");
    write(&folder, "new.py", PLAIN);
    fs::remove_file(folder.path().join("gone.py")).unwrap();
    assert_eq!(
        names(&registry),
        ["changed.py", "gone.py", "same.py"],
        "not before a refresh"
    );

    let after = registry.refresh(nothing).unwrap();
    assert!(Arc::ptr_eq(&after, &registry.index()));
    assert_eq!(names(&registry), ["changed.py", "new.py", "same.py"]);
    let same = |name| Arc::ptr_eq(before.script(name).unwrap(), after.script(name).unwrap());
    assert!(same("same.py") && !same("changed.py"));
    assert_eq!(before.script("gone.py").unwrap().source().as_ref(), PLAIN);
}

#[test]
fn an_inspection_demotes_and_warns_and_is_forgotten_by_the_next() {
    let folder = folder(&[("bad.py", PLAIN), ("fine.py", PLAIN), ("odd.py", PLAIN)]);
    let registry = ScriptRegistry::load(folder.path()).unwrap();
    let inspect = |script: &Script| {
        let found = match script.name() {
            "bad.py" => vec![
                Diagnostic::warning("bad.py", "odd"),
                Diagnostic::error("bad.py", "invalid syntax").at(3, 7),
            ],
            "odd.py" => vec![Diagnostic::warning("odd.py", "no guard")],
            _ => Vec::new(),
        };
        Ok::<_, RegistryError>(Inspection::from(found))
    };
    let loaded = registry.index();
    let first = registry.refresh(inspect).unwrap();
    assert_eq!(names(&registry), ["fine.py", "odd.py"]);
    assert_eq!(
        invalid(&registry),
        ["bad.py: odd", "bad.py:3:7: invalid syntax"]
    );
    assert_eq!(
        first.script("odd.py").unwrap().warnings()[0].message,
        "no guard"
    );
    assert!(Arc::ptr_eq(
        loaded.script("fine.py").unwrap(),
        first.script("fine.py").unwrap()
    ));

    let second = registry.refresh(inspect).unwrap();
    assert!(Arc::ptr_eq(
        first.script("odd.py").unwrap(),
        second.script("odd.py").unwrap()
    ));
    assert_eq!(
        second.script("odd.py").unwrap().warnings().len(),
        1,
        "warnings do not pile up"
    );

    let third = registry.refresh(nothing).unwrap();
    assert_eq!(names(&registry), ["bad.py", "fine.py", "odd.py"]);
    assert!(third.script("odd.py").unwrap().warnings().is_empty());
}

#[test]
fn a_failed_inspection_leaves_the_former_index() {
    let script = |name| Script::parse(name, PLAIN.as_bytes()).unwrap();
    let registry = ScriptRegistry::from_scripts([script("a.py"), script("b.py")]);
    let before = registry.index();
    let failed = registry.refresh(|script| match script.name() {
        "a.py" => Ok(vec![Diagnostic::error("a.py", "bad")].into()),
        _ => Err(RegistryError::Folder {
            folder: "x".into(),
            source: std::io::ErrorKind::Other.into(),
        }),
    });
    assert!(failed.is_err());
    assert!(Arc::ptr_eq(&before, &registry.index()));
    assert_eq!(registry.folder(), None);
}

#[test]
fn nothing_of_a_script_is_executed() {
    let canary = tempfile::tempdir().unwrap();
    let fired = canary.path().join("fired");
    let act = format!("open({fired:?}, 'w').close()\n");
    let code = format!(
        "{act}class M(type):\n    def __new__(*a): {act}@M\ndef run(ctx, x={}): pass\n",
        act.trim_end()
    );
    let folder = folder(&[
        (
            "a.py",
            &format!("{}{code}", source("[tool.automation]\nentry = \"run\"")),
        ),
        ("bomb.py", &"(".repeat(100_000)),
    ]);
    let registry = ScriptRegistry::load(folder.path()).unwrap();
    assert_eq!(names(&registry), ["a.py", "bomb.py"]);
    assert!(!fired.exists());
}

#[test]
fn what_is_hashed_is_what_is_kept_while_files_are_swapped() {
    let folder = folder(&[("a.py", "x = 0\n")]);
    let stop = AtomicBool::new(false);
    let registry = ScriptRegistry::load(folder.path()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0_u32.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                write(&folder, "next", format!("x = {round}\n"));
                fs::rename(folder.path().join("next"), folder.path().join("a.py")).unwrap();
            }
        });
        for _ in 0..500 {
            let index = registry.refresh(nothing).unwrap();
            let script = index.script("a.py").unwrap();
            let again = Script::parse("a.py", script.source().as_bytes()).unwrap();
            assert_eq!(script.version(), again.version());
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn refreshes_at_the_same_time_end_with_the_latest_reading() {
    let folder = folder(&[("a.py", PLAIN)]);
    let registry = ScriptRegistry::load(folder.path()).unwrap();
    std::thread::scope(|scope| {
        let refresh = || (0..50).for_each(|_| drop(registry.refresh(nothing).unwrap()));
        for _ in 0..4 {
            scope.spawn(refresh);
        }
    });
    write(&folder, "b.py", PLAIN);
    registry.refresh(nothing).unwrap();
    assert_eq!(names(&registry), ["a.py", "b.py"]);
}

#[test]
fn an_index_in_debug_shows_names_and_no_sources() {
    let registry = ScriptRegistry::from_scripts([Script::parse("a.py", b"SECRET = 1").unwrap()]);
    let shown = format!("{registry:?}");
    assert!(
        shown.contains("a.py") && !shown.contains("SECRET"),
        "{shown}"
    );
}
