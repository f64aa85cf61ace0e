//! How messages show values and suggest names, so that every finding of this room reads alike.

use serde_json::Value;

/// Most characters of a value or a name that a message shows.
const SHOWN_CHARS: usize = 64;
/// Most names that a message lists.
const LISTED_NAMES: usize = 24;

/// Shortens a text to what a message can show.
pub(super) fn clip(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Shows a text in quotes, shortened, without control characters.
pub(super) fn quote(text: &str) -> String {
    format!("{:?}", clip(text))
}

/// Shows a JSON value, containers by their kind only.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(text) => format!("string {}", quote(text)),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// Lists names for an "expected one of", shortened.
pub(super) fn list<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<_> = names
        .into_iter()
        .map(|name| name.as_ref().to_owned())
        .collect();
    match names.len().checked_sub(LISTED_NAMES) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..LISTED_NAMES].join(", ")),
    }
}

/// Returns what to write instead of an unknown name: the nearest of `known` where one is near, else all of them.
pub(super) fn instead<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let known: Vec<_> = known.into_iter().collect();
    match nearest(name, &known) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("expected one of {}", list(known)),
    }
}

/// Returns the name that `word` was probably meant to be.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = plain(&clip(word));
    known
        .iter()
        .map(|name| (strsim::osa_distance(&word, &plain(name)), *name))
        .filter(|(distance, name)| *distance <= name.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

fn plain(name: &str) -> String {
    name.to_lowercase().replace(['-', '_', ' '], "")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{clip, instead, nearest, quote, show};

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "é".repeat(65);
        assert_eq!(clip(&text), format!("{}…", "é".repeat(64)));
        assert_eq!(clip(&text[2..]), text[2..]);
    }

    #[test]
    fn values_are_shown_without_control_characters_and_with_bounded_length() {
        assert_eq!(quote("a\u{1b}[31m\n"), r#""a\u{1b}[31m\n""#);
        assert!(show(&json!("x".repeat(100_000))).len() < 100);
        assert_eq!(show(&json!(["secret"])), "an array");
    }

    #[test]
    fn near_names_are_suggested_and_far_ones_listed() {
        let known = ["category", "timeout_seconds", "risk"];
        assert_eq!(nearest("timeout-second", &known), Some("timeout_seconds"));
        assert_eq!(nearest("Catgeory", &known), Some("category"));
        assert_eq!(nearest("rick", &known), Some("risk"));
        assert_eq!(nearest("memory", &known), None);
        assert_eq!(
            instead("memory", known),
            "expected one of category, timeout_seconds, risk"
        );
    }
}
