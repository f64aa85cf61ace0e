//! A push-down automaton for JSON of any depth, one token a step. Knows the grammar, and nothing of lines, limits
//! or values.

use crate::json::token;

/// What holds the present token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Object,
    Array,
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Value,
    ValueOrClose,
    Key,
    KeyOrClose,
    Colon,
    CommaOrClose,
    Nothing,
}

/// What a step passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A `{`.
    ObjectOpened {
        /// Where it is.
        at: usize,
    },
    /// A `}`.
    ObjectClosed {
        /// Behind it.
        end: usize,
    },
    /// Any other token.
    Other,
}

/// Reads one value, and then another from elsewhere.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    next: Next,
    open: Vec<Container>,
}

impl<'a> Machine<'a> {
    /// Begins to read at the start of `bytes`.
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            next: Next::Value,
            open: Vec::new(),
        }
    }

    /// Begins anew at `at`; keeps the memory, since a hostile text makes us begin at every other byte.
    pub(super) fn restart(&mut self, at: usize) {
        self.open.clear();
        self.pass(at, Next::Value);
    }

    /// Returns how many containers are open.
    pub(super) const fn depth(&self) -> usize {
        self.open.len()
    }

    /// Returns where the value ended, if it did.
    pub(super) fn end(&self) -> Option<usize> {
        (self.next == Next::Nothing).then_some(self.at)
    }

    /// Passes one token, or answers where the text stops to be JSON: at a byte that can't be right, or at its end.
    pub(super) fn step(&mut self) -> Result<Step, usize> {
        use Container::{Array, Object};
        use Next::{Colon, CommaOrClose, Key, KeyOrClose, Value, ValueOrClose};
        self.at = token::skip_blanks(self.bytes, self.at);
        let byte = *self.bytes.get(self.at).ok_or(self.at)?;
        match (self.next, byte, self.open.last()) {
            (Value | ValueOrClose, b'{', _) => {
                let at = self.at;
                self.enter(Object, KeyOrClose);
                return Ok(Step::ObjectOpened { at });
            }
            (KeyOrClose, b'}', _) | (CommaOrClose, b'}', Some(Object)) => {
                self.leave();
                return Ok(Step::ObjectClosed { end: self.at });
            }
            (Value | ValueOrClose, b'[', _) => self.enter(Array, ValueOrClose),
            (ValueOrClose, b']', _) | (CommaOrClose, b']', Some(Array)) => self.leave(),
            (CommaOrClose, b',', Some(Object)) => self.pass(self.at + 1, Key),
            (CommaOrClose, b',', Some(Array)) => self.pass(self.at + 1, Value),
            (Colon, b':', _) => self.pass(self.at + 1, Value),
            (Key | KeyOrClose, b'"', _) => {
                let end = token::string(self.bytes, self.at)?.inner.end + 1;
                self.pass(end, Colon);
            }
            (Value | ValueOrClose, b'"', _) => {
                let end = token::string(self.bytes, self.at)?.inner.end + 1;
                self.pass(end, self.after_value());
            }
            (Value | ValueOrClose, _, _) => {
                let (_, end) = token::scalar(self.bytes, self.at)?;
                self.pass(end, self.after_value());
            }
            _ => return Err(self.at),
        }
        Ok(Step::Other)
    }

    const fn pass(&mut self, end: usize, next: Next) {
        self.at = end;
        self.next = next;
    }

    fn enter(&mut self, container: Container, next: Next) {
        self.open.push(container);
        self.pass(self.at + 1, next);
    }

    fn leave(&mut self) {
        self.open.pop();
        self.pass(self.at + 1, self.after_value());
    }

    const fn after_value(&self) -> Next {
        if self.open.is_empty() {
            Next::Nothing
        } else {
            Next::CommaOrClose
        }
    }
}
