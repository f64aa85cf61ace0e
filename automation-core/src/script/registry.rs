//! The folder of scripts as an index of names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error as ThisError;

use super::{Diagnostic, Script};

/// A folder of scripts, read once.
#[derive(Debug)]
pub struct ScriptRegistry {
    folder: PathBuf,
}

/// What the registry knew at one moment.
#[derive(Debug, Default)]
pub struct ScriptIndex;

/// A script that can't run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidScript {
    /// The file's name.
    pub name: String,
    /// Why.
    pub diagnostics: Vec<Diagnostic>,
}

impl ScriptRegistry {
    /// Reads a folder.
    ///
    /// # Errors
    /// [`RegistryError`] when the folder can't be read; a broken script is listed as invalid and blocks nothing.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self, RegistryError> {
        let _ = folder.as_ref();
        unimplemented!("filled by the script room's commit")
    }

    /// Creates a registry of scripts that are in memory.
    #[must_use]
    pub fn from_scripts(scripts: impl IntoIterator<Item = Script>) -> Self {
        let _ = scripts.into_iter();
        unimplemented!("filled by the script room's commit")
    }

    /// Reads the folder again and swaps the index at once; runs that were accepted keep their version.
    ///
    /// # Errors
    /// [`RegistryError`] when the folder can't be read; the former index stays.
    pub fn reload(&self) -> Result<Arc<ScriptIndex>, RegistryError> {
        unimplemented!("filled by the script room's commit")
    }

    /// x
    pub fn refresh(&self, _i: &dyn Fn(&Script) -> Vec<Diagnostic>) -> Result<(), RegistryError> {
        Ok(())
    }
    /// Returns the present index.
    #[must_use]
    pub fn index(&self) -> Arc<ScriptIndex> {
        unimplemented!("filled by the script room's commit")
    }

    /// Returns the folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl ScriptIndex {
    /// Returns the valid scripts, by name.
    pub fn scripts(&self) -> impl Iterator<Item = &Arc<Script>> {
        std::iter::empty()
    }

    /// Returns the invalid scripts, by name.
    #[must_use]
    pub fn invalid(&self) -> &[InvalidScript] {
        &[]
    }

    /// Returns a valid script.
    #[must_use]
    pub fn script(&self, name: &str) -> Option<&Arc<Script>> {
        let _ = name;
        None
    }

    /// Returns the valid scripts of a category, in their order.
    #[must_use]
    pub fn for_category(&self, category: &str) -> &[Arc<Script>] {
        let _ = category;
        &[]
    }
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
}
