//! Where scripts come from, and the index that is valid now. Reads; never executes.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use thiserror::Error as ThisError;

use super::folder::{self, ScriptFile};
use super::index::{Candidate, ScriptIndex};
use super::{Diagnostic, Inspection, Script, ScriptName};

/// The scripts of a folder, or of memory, and the present index of them.
///
/// # Examples
/// ```
/// use automation_core::{Script, ScriptRegistry};
///
/// let script = Script::parse("hello.py", b"print('{}')\n").unwrap();
/// let registry = ScriptRegistry::from_scripts([script]);
/// assert!(registry.index().script("hello.py").is_some());
/// ```
pub struct ScriptRegistry {
    origin: Origin,
    index: ArcSwap<ScriptIndex>,
    /// Held while an index is made, so that an older reading never replaces a newer one.
    turn: Mutex<()>,
}

enum Origin {
    Folder(PathBuf),
    Memory(Vec<Script>),
}

impl ScriptRegistry {
    /// Reads a folder: its files that end in `.py`, without those that start with `_` or `.`, and no folder
    /// within it. Blocks.
    ///
    /// Each file is read once: what is hashed, checked and later executed are the same bytes. A symbolic link
    /// and a file that everyone can change are invalid scripts.
    ///
    /// # Errors
    /// [`RegistryError`] when the folder can't be read or everyone can change it; a broken script is listed as
    /// invalid and blocks nothing.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self, RegistryError> {
        let registry = Self::new(Origin::Folder(folder.as_ref().to_owned()));
        registry.refresh(|_| Ok::<_, RegistryError>(Inspection::default()))?;
        Ok(registry)
    }

    /// Creates a registry of scripts that are in memory. Scripts whose names are equal but for case are invalid,
    /// as they are in a folder.
    #[must_use]
    pub fn from_scripts(scripts: impl IntoIterator<Item = Script>) -> Self {
        let scripts: Vec<_> = scripts.into_iter().collect();
        let Ok(index) = ScriptIndex::build(in_memory(&scripts), &ScriptIndex::default(), |_| {
            Ok::<_, Infallible>(Inspection::default())
        });
        let registry = Self::new(Origin::Memory(scripts));
        registry.index.store(Arc::new(index));
        registry
    }

    /// Reads the scripts again, hands each that reads well to `inspect`, and swaps the index at once. Blocks;
    /// `inspect` must not refresh the same registry.
    ///
    /// A script with an error among what `inspect` returns becomes invalid; warnings are kept on it. What `run` takes
    /// becomes the parameters of a script whose metadata block has no table of them. A script
    /// that did not change keeps its [`Arc`], and with it what others have cached for it. Runs that were accepted
    /// hold their version.
    ///
    /// # Errors
    /// The first error of `inspect`, or [`RegistryError`] when the folder can't be read; the former index stays.
    ///
    /// # Examples
    /// ```
    /// use automation_core::script::{Diagnostic, RegistryError};
    /// use automation_core::{Script, ScriptRegistry};
    ///
    /// let script = Script::parse("hello.py", b"print('{}')\n").unwrap();
    /// let registry = ScriptRegistry::from_scripts([script]);
    /// let index = registry.refresh(|script| {
    ///     let problem = Diagnostic::error(script.name(), "nobody greets here");
    ///     Ok::<_, RegistryError>(vec![problem].into())
    /// })?;
    /// assert!(index.script("hello.py").is_none());
    /// assert_eq!(index.invalid()[0].name, "hello.py");
    /// # Ok::<_, RegistryError>(())
    /// ```
    pub fn refresh<E: From<RegistryError>>(
        &self,
        inspect: impl FnMut(&Script) -> Result<Inspection, E>,
    ) -> Result<Arc<ScriptIndex>, E> {
        let _turn = self.turn.lock();
        let candidates = match &self.origin {
            Origin::Folder(path) => folder::read(path)?
                .into_iter()
                .map(|file| candidate(path, file))
                .collect(),
            Origin::Memory(scripts) => in_memory(scripts),
        };
        let index = Arc::new(ScriptIndex::build(candidates, &self.index(), inspect)?);
        self.index.store(Arc::clone(&index));
        Ok(index)
    }

    /// Returns the present index.
    #[must_use]
    pub fn index(&self) -> Arc<ScriptIndex> {
        self.index.load_full()
    }

    /// Returns the folder; `None` for scripts in memory.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match &self.origin {
            Origin::Folder(path) => Some(path),
            Origin::Memory(_) => None,
        }
    }

    fn new(origin: Origin) -> Self {
        Self {
            origin,
            index: ArcSwap::default(),
            turn: Mutex::new(()),
        }
    }
}

impl fmt::Debug for ScriptRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptRegistry")
            .field("folder", &self.folder())
            .field(
                "scripts",
                &self
                    .index()
                    .scripts()
                    .map(|script| script.name())
                    .collect::<Vec<_>>(),
            )
            .finish_non_exhaustive()
    }
}

fn in_memory(scripts: &[Script]) -> Vec<Candidate> {
    scripts
        .iter()
        .map(|script| Candidate {
            name: script.name().to_owned(),
            script: Ok(script.clone()),
        })
        .collect()
}

/// Parses a file. A name outside the grammar is reported before anything that is inside the file.
fn candidate(folder: &Path, file: ScriptFile) -> Candidate {
    let ScriptFile {
        name,
        bytes,
        warning,
    } = file;
    let script = match ScriptName::parse(&name) {
        Err(fault) => Err(vec![Diagnostic::error(&name, fault.to_string())]),
        Ok(_) => bytes
            .map_err(|fault| vec![fault])
            .and_then(|bytes| Script::parse(folder.join(&name), &bytes))
            .map(|mut script| {
                script.warnings.extend(warning);
                script
            }),
    };
    Candidate { name, script }
}

/// Why the scripts could not be read.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum RegistryError {
    /// The folder can't be read.
    #[error("scripts folder {} can't be read: {source}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Everyone on this machine can put a script into the folder.
    #[error("everyone can change scripts folder {} (mode {mode}), expected `chmod o-w`", folder.display())]
    Writable {
        /// The folder.
        folder: PathBuf,
        /// Its permissions in octal.
        mode: String,
    },
}
