//! The encoding that a source declares for itself (PEP 263). By hand Python decodes the file by it; here every
//! source is UTF-8. So a declaration that means other text is a fault.

/// Characters that may stand between `coding` and the name.
const MARKS: [char; 2] = [':', '='];

/// Returns the line, the column and what is wrong, when a source declares another encoding than it has.
pub(super) fn fault(source: &str) -> Option<(u32, u32, String)> {
    for (line, number) in source.split('\n').zip(1..=2) {
        if let Some((column, name)) = declared(line) {
            let message = format!(
                "the encoding is declared as {name:?}, expected \"utf-8\" or no declaration"
            );
            return (!is_same_text(name, source)).then_some((number, column, message));
        }
        if !is_blank_or_comment(line) {
            break;
        }
    }
    None
}

/// Returns the name of an encoding that a line declares, and its column.
fn declared(line: &str) -> Option<(u32, &str)> {
    let line = line.strip_prefix('\u{feff}').unwrap_or(line);
    let comment = line.trim_start_matches([' ', '\t', '\x0c']);
    if !comment.starts_with('#') {
        return None;
    }
    comment.match_indices("coding").find_map(|(at, word)| {
        let rest = comment[at + word.len()..].strip_prefix(MARKS)?;
        let name = rest.trim_start_matches([' ', '\t']);
        let end = name
            .find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))
            .unwrap_or(name.len());
        let start = line.len() - name.len();
        let column = u32::try_from(line[..start].chars().count() + 1).ok()?;
        (end > 0).then(|| (column, &name[..end]))
    })
}

/// Returns whether a source has the same text in the declared encoding. ASCII has in the common ones.
fn is_same_text(name: &str, source: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let utf8 = ["utf-8", "utf8", "u8", "utf-8-sig"];
    let supersets = [
        "ascii",
        "us-ascii",
        "latin",
        "iso-8859-",
        "iso8859",
        "cp125",
        "windows-125",
    ];
    utf8.contains(&&*name)
        || (source.is_ascii() && supersets.iter().any(|prefix| name.starts_with(prefix)))
}

fn is_blank_or_comment(line: &str) -> bool {
    let line = line.trim_start_matches(['\u{feff}', ' ', '\t', '\x0c']);
    line.is_empty() || line.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    fn a_declaration_of_other_text_is_a_fault() {
        for (source, place) in [
            ("# coding: latin-1\nx = 'é'\n", (1, 11)),
            ("\u{feff}# -*- coding: cp1252 -*-\nx = 'é'\n", (1, 15)),
            (
                "#!/usr/bin/python\n# vim: set fileencoding=ascii :\nx = 'é'\n",
                (2, 25),
            ),
            ("\n \t# coding=utf-16\n", (2, 12)),
            ("# coding: rot13\n", (1, 11)),
            ("# é coding: no-such\r\nx\n", (1, 13)),
        ] {
            let (line, column, message) = fault(source).unwrap_or_else(|| panic!("{source:?}"));
            assert_eq!((line, column), place, "{source:?}");
            assert!(
                message.ends_with("expected \"utf-8\" or no declaration"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_declaration_of_the_same_text_is_none() {
        for source in [
            "",
            "x = 'é'\n",
            "# -*- coding: UTF_8 -*-\nx = 'é'\n",
            "# coding: latin-1\nx = 1\n",
            "#!/usr/bin/python\n# coding: iso-8859-15\nx = 1\n",
            "x = 'é'\n# coding: latin-1\n",
            "\n\n# coding: latin-1\nx = 'é'\n",
            "# coding é\n",
            "# a coding : latin-1\nx = 'é'\n",
            "coding = 'é'; coding: latin\n",
        ] {
            assert_eq!(fault(source), None, "{source:?}");
        }
    }
}
