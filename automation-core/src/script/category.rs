//! The category of a classification, compared as helpdesks write it.

use std::fmt;

/// Most characters of a category in metadata.
pub(super) const CATEGORY_CHARS_MAX: usize = 128;

/// A category. Two are equal when they differ only in ASCII case, in space, `_` and `-`, and at the ends.
///
/// Nothing else is folded: accents, other scripts and repeated spaces count.
///
/// # Examples
/// ```
/// use automation_core::script::Category;
///
/// assert_eq!(Category::new("Device Slow"), Category::new("device_slow"));
/// assert_ne!(Category::new("Device Slow"), Category::new("DeviceSlow"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Category(String);

impl Category {
    /// Creates a category from any text; a text that no script can declare equals no script's category.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let folded: String = text
            .chars()
            .map(|character| match character {
                '_' | '-' => ' ',
                other => other.to_ascii_lowercase(),
            })
            .collect();
        // Trimmed after the separators became spaces: else "-a" would equal " a" and not "a".
        Self(folded.trim().to_owned())
    }

    /// Returns the form in which categories are compared.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns whether metadata may declare this category.
pub(super) fn is_declarable(text: &str) -> bool {
    !Category::new(text).as_str().is_empty()
        && text.chars().count() <= CATEGORY_CHARS_MAX
        && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Category, is_declarable};

    #[test]
    fn spellings_of_one_category_are_equal() {
        for text in [
            "Device Slow",
            "device_slow",
            "DEVICE-SLOW",
            " Device Slow\n",
            "_device slow-",
        ] {
            assert_eq!(
                Category::new(text),
                Category::new("device slow"),
                "{text:?}"
            );
        }
    }

    #[test]
    fn other_texts_are_other_categories() {
        for text in [
            "",
            "DeviceSlow",
            "Device  Slow",
            "Device\tSlow",
            "D\u{435}vice Slow",
            "Device\u{a0}Slow",
            "Device Slow\0",
            "disk_cleanup.py",
            "%44evice Slow",
        ] {
            assert_ne!(
                Category::new(text),
                Category::new("device slow"),
                "{text:?}"
            );
        }
        assert_ne!(Category::new("GR\u{d6}SSE"), Category::new("gr\u{f6}sse"));
        assert_ne!(Category::new("\u{212a}"), Category::new("k"));
    }

    #[test]
    fn metadata_refuses_empty_overlong_and_control_characters() {
        assert!(is_declarable("VPN Issue"));
        assert!(is_declarable(&"ä".repeat(128)));
        for text in ["", " ", "-_ ", "a\nb", "a\0", "\u{7f}x", &"a".repeat(129)] {
            assert!(!is_declarable(text), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_is_a_fixed_point(text in any::<String>()) {
            let once = Category::new(&text);
            prop_assert_eq!(Category::new(once.as_str()), once);
        }
    }
}
