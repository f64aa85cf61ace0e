//! Which scripts there are at one moment: by name, by category, and those that can't run, with the reason.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Category, Diagnostic, Inspection, Script, ScriptName};

/// What the registry knew at one moment. It never changes; a later moment has an index of its own.
#[derive(Debug, Default)]
pub struct ScriptIndex {
    scripts: BTreeMap<ScriptName, Arc<Script>>,
    categories: HashMap<Category, Vec<Arc<Script>>>,
    invalid: Vec<InvalidScript>,
}

/// A script that can't run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidScript {
    /// The file's name.
    pub name: String,
    /// Why: at least one error, and warnings.
    pub diagnostics: Vec<Diagnostic>,
}

/// A script, or why it is none, on its way into an index.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) name: String,
    pub(super) script: Result<Script, Vec<Diagnostic>>,
}

impl ScriptIndex {
    /// Builds an index. A script that is in `former` with the same version, warnings and schema is taken from there.
    ///
    /// # Errors
    /// The first error of `inspect`.
    pub(super) fn build<E>(
        candidates: Vec<Candidate>,
        former: &Self,
        mut inspect: impl FnMut(&Script) -> Result<Inspection, E>,
    ) -> Result<Self, E> {
        let mut index = Self::default();
        for Candidate { name, script } in without_clashes(candidates) {
            let admitted = match script {
                Ok(script) => {
                    let inspection = inspect(&script)?;
                    script.admit(inspection)
                }
                Err(diagnostics) => Err(diagnostics),
            };
            match admitted {
                Ok(script) => index.add(former.same(&script).unwrap_or_else(|| Arc::new(script))),
                Err(diagnostics) => index.invalid.push(InvalidScript { name, diagnostics }),
            }
        }
        index.sort();
        Ok(index)
    }

    /// Returns the valid scripts, by name.
    pub fn scripts(&self) -> impl Iterator<Item = &Arc<Script>> {
        self.scripts.values()
    }

    /// Returns the invalid scripts, by name.
    #[must_use]
    pub fn invalid(&self) -> &[InvalidScript] {
        &self.invalid
    }

    /// Returns a valid script. The name is a key: case counts, and no path is made of it.
    #[must_use]
    pub fn script(&self, name: &str) -> Option<&Arc<Script>> {
        self.scripts.get(name)
    }

    /// Returns the valid scripts of a category, by their order and then by name. Spellings that
    /// [`Category`] takes for equal select the same scripts.
    #[must_use]
    pub fn for_category(&self, category: &str) -> &[Arc<Script>] {
        self.categories
            .get(&Category::new(category))
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    fn add(&mut self, script: Arc<Script>) {
        if let Some(category) = &script.metadata().category {
            let scripts = self.categories.entry(Category::new(category)).or_default();
            scripts.push(Arc::clone(&script));
        }
        self.scripts.insert(script.name.clone(), script);
    }

    fn sort(&mut self) {
        self.invalid.sort_by(|a, b| a.name.cmp(&b.name));
        for scripts in self.categories.values_mut() {
            scripts.sort_by(|a, b| place(a).cmp(&place(b)));
        }
    }

    fn same(&self, script: &Script) -> Option<Arc<Script>> {
        self.script(script.name())
            .filter(|former| {
                former.version() == script.version()
                    && former.warnings() == script.warnings()
                    && former.parameters().schema() == script.parameters().schema()
            })
            .cloned()
    }
}

/// Returns a script's place among those of its category.
fn place(script: &Script) -> (i32, &str) {
    (script.metadata().order, script.name())
}

/// Refuses scripts whose names are equal but for case: which of them runs must not depend on it.
fn without_clashes(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    let mut names: HashMap<_, Vec<_>> = HashMap::new();
    for candidate in &candidates {
        let folded = candidate.name.to_ascii_lowercase();
        names
            .entry(folded)
            .or_default()
            .push(candidate.name.clone());
    }
    for candidate in &mut candidates {
        let same = &names[&candidate.name.to_ascii_lowercase()];
        if same.len() > 1 {
            let message = format!(
                "{} are equal but for case, expected one of them",
                same.join(" and ")
            );
            candidate.script = Err(vec![Diagnostic::error(&candidate.name, message)]);
        }
    }
    candidates
}
