//! Finds JSON objects that stand on lines of their own (rules O4, O5), in one pass whatever the text is (O11).
//!
//! A document is an object whose `{` is the first character of a line that is not blank, and whose `}` is the last
//! one of a line; documents inside a document do not count. The pass never goes back: where the text stops to be
//! JSON, every object that is still open is none, since reading again from an inner one's start would stop at the
//! same place. Inside a string no line begins, so the next `{` that opens a line is a fresh start.

use std::ops::Range;

use super::machine::{Machine, Step};
use crate::json::token;

/// Which documents count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// The text is all there: what surrounds a document is noise.
    Whole,
    /// The text may begin or end inside a document (O10): only what can't be a part of one counts.
    Torn,
}

/// What a text holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Documents {
    /// Where the last document is.
    pub(super) last: Option<Range<usize>>,
    /// How many there are.
    pub(super) seen: usize,
}

/// Returns whether the whole text is one JSON value, of any size and depth.
pub(super) fn is_one_value(bytes: &[u8]) -> bool {
    let mut machine = Machine::new(bytes);
    loop {
        if machine.step().is_err() {
            return false;
        }
        if let Some(end) = machine.end() {
            return token::skip_blanks(bytes, end) == bytes.len();
        }
    }
}

/// Finds the documents of `bytes` from `from` on.
pub(super) fn documents(bytes: &[u8], from: usize, trust: Trust) -> Documents {
    let mut search = Search {
        bytes,
        from,
        trust,
        machine: Machine::new(bytes),
        open: Vec::new(),
        found: Documents::default(),
    };
    let mut next = search.start(from);
    while let Some(start) = next {
        let stop = search.follow(start);
        next = search.start(stop);
    }
    search.found
}

struct Search<'a> {
    bytes: &'a [u8],
    from: usize,
    trust: Trust,
    machine: Machine<'a>,
    /// Open objects that begin a line.
    open: Vec<Open>,
    found: Documents,
}

/// An object that may become a document.
struct Open {
    start: usize,
    /// Containers around it.
    depth: usize,
    /// Documents before it.
    seen_before: usize,
}

impl Search<'_> {
    /// Finds the next place where a document may begin: a `{` at `at`, or one that opens a line behind it.
    fn start(&self, mut at: usize) -> Option<usize> {
        loop {
            at = token::skip_blanks(self.bytes, at);
            if *self.bytes.get(at)? == b'{' {
                return Some(at);
            }
            at += self.bytes[at..].iter().position(|&byte| byte == b'\n')?;
        }
    }

    /// Reads from a `{` as far as the text is JSON; returns where to go on.
    fn follow(&mut self, start: usize) -> usize {
        self.machine.restart(start);
        self.open.clear();
        loop {
            match self.machine.step() {
                Ok(Step::ObjectOpened { at }) if self.opens_line(at) => self.open.push(Open {
                    start: at,
                    depth: self.machine.depth() - 1,
                    seen_before: self.found.seen,
                }),
                Ok(Step::ObjectClosed { end }) => self.close(end, self.machine.depth()),
                Ok(_) => {}
                Err(stop) => return stop,
            }
            if let Some(end) = self.machine.end() {
                return end;
            }
        }
    }

    /// Takes the object that ends at `end` for a document, if it is one.
    fn close(&mut self, end: usize, depth: usize) {
        let Some(open) = self.open.pop_if(|open| open.depth == depth) else {
            return;
        };
        if self.closes_line(end) && self.is_trusted(open.start..end) {
            self.found.seen = open.seen_before + 1;
            self.found.last = Some(open.start..end);
        }
    }

    fn is_trusted(&self, document: Range<usize>) -> bool {
        match self.trust {
            Trust::Whole => true,
            Trust::Torn => self.open.is_empty() && self.stands_alone(document),
        }
    }

    /// Returns whether the surroundings rule out that the document is a part of a larger one, whose start or end
    /// is missing.
    fn stands_alone(&self, document: Range<usize>) -> bool {
        let before = self.bytes[self.from..document.start].trim_ascii_end();
        let after = self.bytes[document.end..].trim_ascii_start();
        if before.is_empty() && self.from > 0 {
            return false; // Its line, too, may begin before what we have.
        }
        let element = before.ends_with(b"[") || before.ends_with(b",") || before.ends_with(b"\":");
        let followed = matches!(after.first(), Some(b',' | b']' | b'}'));
        !element && !followed
    }

    fn opens_line(&self, at: usize) -> bool {
        let before = self.bytes[..at].iter().rev();
        before
            .copied()
            .find(|&byte| !is_blank_in_line(byte))
            .is_none_or(|byte| byte == b'\n')
    }

    fn closes_line(&self, end: usize) -> bool {
        let after = self.bytes[end..].iter();
        after
            .copied()
            .find(|&byte| !is_blank_in_line(byte))
            .is_none_or(|byte| byte == b'\n')
    }
}

const fn is_blank_in_line(byte: u8) -> bool {
    token::is_blank(byte) && byte != b'\n'
}
