//! Tests of the room as a whole: what an author sees when a script is read.

mod metadata;
mod output;
mod parameters;
mod registry;
mod signature;

use super::{Diagnostic, Script};

/// Returns a source whose metadata block holds `toml`; its first line is line 3 of the file.
fn source(toml: &str) -> String {
    let content: String = toml
        .lines()
        .map(|line| format!("# {line}").trim_end().to_owned() + "\n")
        .collect();
    format!("#!/usr/bin/env python3\n# /// script\n{content}# ///\nprint('{{}}')\n")
}

fn parse(toml: &str) -> Result<Script, Vec<Diagnostic>> {
    Script::parse("x.py", source(toml).as_bytes())
}

/// Returns what is wrong, as it is shown.
fn errors(toml: &str) -> Vec<String> {
    match parse(toml) {
        Ok(script) => panic!("valid: {:?}", script.metadata()),
        Err(diagnostics) => diagnostics.iter().map(ToString::to_string).collect(),
    }
}

fn warnings(toml: &str) -> Vec<String> {
    parse(toml)
        .unwrap()
        .warnings()
        .iter()
        .map(ToString::to_string)
        .collect()
}
