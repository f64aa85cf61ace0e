//! The in-process executor, embedded: what scripts see, how they end, what they can't do to each other.

#![expect(missing_docs, reason = "tests")]

mod support;

mod streams;
