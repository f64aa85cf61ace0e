//! The `.env` file, read as the `dotenv` of Node reads it: `NAME=VALUE` lines with comments, quotes and an
//! `export` before the name, and nothing in a value stands for something else. The file may belong to other
//! programs too: their lines are nobody's business here.

use std::collections::HashMap;
use std::path::Path;

use crate::variables::is_ours;

/// What a `.env` file says of our variables, and a sentence for each line of ours that can't be read; sentences
/// show no values. A file that is not there is empty.
pub(crate) fn read(path: &Path) -> (HashMap<String, String>, Vec<String>) {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            let sentence = format!("{} can't be read: {error}", path.display());
            return (HashMap::new(), vec![sentence]);
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut values = HashMap::new();
    let mut sentences = Vec::new();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let Some((name, rest)) = name_of(line) else {
            continue;
        };
        match value_of(rest) {
            Ok(value) => {
                values.insert(name.to_owned(), value);
            }
            Err(problem) => sentences.push(format!(
                "{name} in line {} of {} can't be read: {problem}",
                index + 1,
                path.display()
            )),
        }
    }
    (values, sentences)
}

/// Returns a line's name and what follows it, if the name is ours.
fn name_of(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let line = match line.strip_prefix("export") {
        Some(rest) if rest.starts_with(char::is_whitespace) => rest.trim_start(),
        _ => line,
    };
    let in_name = |c: char| c.is_alphanumeric() || "_.-".contains(c);
    let end = line.find(|c| !in_name(c)).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    is_ours(name).then_some((name, rest.trim_start()))
}

/// Reads what follows a name.
fn value_of(rest: &str) -> Result<String, &'static str> {
    let value = rest
        .strip_prefix('=')
        .ok_or("= is missing after the name")?;
    if value.contains(char::REPLACEMENT_CHARACTER) {
        return Err("it is not UTF-8");
    }
    let value = value.trim();
    let Some(quote) = value.chars().next().filter(|c| "\"'`".contains(*c)) else {
        let end = value.find('#').unwrap_or(value.len());
        return Ok(value[..end].trim_end().to_owned());
    };
    let (inner, after) =
        split_at_quote(&value[1..], quote).ok_or("its quote does not end in its line")?;
    let after = after.trim_start();
    if !after.is_empty() && !after.starts_with('#') {
        return Err("something follows its quote");
    }
    Ok(if quote == '"' {
        inner.replace("\\n", "\n").replace("\\r", "\r")
    } else {
        inner.to_owned()
    })
}

/// Splits at the first quote that has no backslash before it.
fn split_at_quote(text: &str, quote: char) -> Option<(&str, &str)> {
    let mut quotes = text.match_indices(quote);
    let (end, _) = quotes.find(|(at, _)| !text[..*at].ends_with('\\'))?;
    Some((&text[..end], &text[end + 1..]))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::read;

    fn read_bytes(bytes: &[u8]) -> (HashMap<String, String>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        std::fs::write(&path, bytes).unwrap();
        read(&path)
    }

    #[test]
    fn an_absent_file_is_empty_and_a_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(&folder.path().join(".env")), Default::default());
        let (_, sentences) = read(folder.path());
        assert!(sentences[0].contains("can't be read"), "{sentences:?}");
    }

    #[test]
    fn values_are_nodes() {
        for (line, value) in [
            ("AUTOMATION_LOG=info", "info"),
            ("  AUTOMATION_LOG = info  ", "info"),
            ("export AUTOMATION_LOG=info\r", "info"),
            ("export\tAUTOMATION_LOG=info", "info"),
            ("AUTOMATION_LOG=", ""),
            ("AUTOMATION_LOG=info # a comment", "info"),
            ("AUTOMATION_LOG=pa$HOME${x}\\n", "pa$HOME${x}\\n"),
            ("AUTOMATION_LOG=\"a # b $c\" # d", "a # b $c"),
            ("AUTOMATION_LOG=\"a\\nb\\\"c\"", "a\nb\\\"c"),
            ("AUTOMATION_LOG='a\\nb \"c\"'", "a\\nb \"c\""),
            ("AUTOMATION_LOG=`it's`", "it's"),
            ("AUTOMATION_LOG=a=b", "a=b"),
            ("AUTOMATION_LOG=it's", "it's"),
            ("\u{feff}AUTOMATION_LOG=info", "info"),
            ("AUTOMATION_LOG=first\nAUTOMATION_LOG=info", "info"),
        ] {
            let (values, sentences) = read_bytes(line.as_bytes());
            assert_eq!(sentences, Vec::<String>::new(), "{line}");
            assert_eq!(values["AUTOMATION_LOG"], value, "{line}");
        }
    }

    #[test]
    fn lines_of_others_are_nobodys_business() {
        let (values, sentences) = read_bytes(
            b"# AUTOMATION_PORT=1\nMAIL_FROM=IT Support <x@y>\nKEY=\"-----BEGIN\nabc=\n-----END\"\n\
              nonsense\n=\n'\nexport\nLATIN=\xe9\nX_AUTOMATION_PORT=2\nNODE_ENV=test\n",
        );
        assert_eq!(sentences, Vec::<String>::new());
        assert_eq!(
            values,
            HashMap::from([("NODE_ENV".to_owned(), "test".to_owned())])
        );
    }

    #[test]
    fn a_line_of_ours_is_named_by_its_number_and_shows_no_value() {
        for line in [
            &b"AUTOMATION_SECRET_X=\"hunter2"[..],
            b"AUTOMATION_SECRET_X='hunter2' hunter2",
            b"AUTOMATION_SECRET_X hunter2",
            b"AUTOMATION_SECRET_X: hunter2",
            b"AUTOMATION_SECRET_X=hunter2\xe9",
        ] {
            let (values, sentences) =
                read_bytes(&[b"\nA=1\n", line, b"\nNODE_ENV=test\n"].concat());
            let [sentence] = &sentences[..] else {
                panic!("{sentences:?}")
            };
            assert!(
                sentence.starts_with("AUTOMATION_SECRET_X in line 3 of "),
                "{sentence}"
            );
            assert!(!sentence.contains("hunter2"), "{sentence}");
            assert_eq!(values["NODE_ENV"], "test", "the rest is read");
        }
    }
}
