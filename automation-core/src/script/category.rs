//! The category of a classification, compared as helpdesks write it.

/// A category. Two are equal when they differ only in ASCII case and in space, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Category(String);
