//! The runs that wait, and whose turn it is. Knows keys and order, nothing of what waits or for what.

use std::collections::VecDeque;

/// Runs that wait for something there is too little of: a place in the engine, a worker of an executor.
///
/// Served in turns: among the actors first, among an actor's scripts second; within those, first come first
/// served. So a thousand runs of one actor, or of one script, delay another's by one run and not by a thousand.
/// Runs without an actor are one actor's.
///
/// # Examples
/// ```
/// use automation_core::executor::RunQueue;
///
/// let mut queue = RunQueue::new();
/// for n in 1..=3 {
///     queue.push(Some("night-batch"), "disk_cleanup.py", format!("batch {n}"));
/// }
/// queue.push(Some("jdoe"), "vpn_restart.py", "jdoe's".to_owned());
/// assert_eq!(queue.pop().as_deref(), Some("batch 1"));
/// assert_eq!(queue.pop().as_deref(), Some("jdoe's"));
/// assert_eq!(queue.pop().as_deref(), Some("batch 2"));
/// ```
#[derive(Debug)]
pub struct RunQueue<T> {
    actors: Turns<Option<Box<str>>, Scripts<T>>,
    len: usize,
}

type Scripts<T> = Turns<Box<str>, VecDeque<T>>;

impl<T> RunQueue<T> {
    /// Creates an empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            actors: Turns::new(),
            len: 0,
        }
    }

    /// Returns how many runs wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns whether none waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a run at the end of its actor's and script's line.
    pub fn push(&mut self, actor: Option<&str>, script: &str, item: T) {
        self.len += 1;
        let scripts = self.actors.line(
            |key| key.as_deref() == actor,
            || (actor.map(Box::from), Turns::new()),
        );
        let line = scripts.line(
            |key| **key == *script,
            || (Box::from(script), VecDeque::new()),
        );
        line.push_back(item);
    }

    /// Returns the first run of each line; the first of them is the one whose turn it is.
    pub fn heads(&self) -> impl Iterator<Item = &T> {
        let lines = self.actors.0.iter().flat_map(|(_, scripts)| &scripts.0);
        lines.filter_map(|(_, line)| line.front())
    }

    /// Takes the run whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        self.pop_if(|_| true)
    }

    /// Takes the first run, in the order of turns, that `fits`. The first run of each line is asked, no other.
    pub fn pop_if(&mut self, mut fits: impl FnMut(&T) -> bool) -> Option<T> {
        self.take(|line| {
            line.front()
                .is_some_and(&mut fits)
                .then(|| line.pop_front())?
        })
    }

    /// Takes out the first run that `is` the wanted one, wherever it stands.
    pub fn remove(&mut self, mut is: impl FnMut(&T) -> bool) -> Option<T> {
        self.take(|line| {
            let place = line.iter().position(&mut is)?;
            line.remove(place)
        })
    }

    /// Returns the runs that wait; those of one line in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let lines = self.actors.0.iter().flat_map(|(_, scripts)| &scripts.0);
        lines.flat_map(|(_, line)| line)
    }

    /// Takes every run out.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + use<'_, T> {
        std::iter::from_fn(|| self.pop())
    }

    fn take(&mut self, mut from: impl FnMut(&mut VecDeque<T>) -> Option<T>) -> Option<T> {
        let item = self.actors.take(
            |scripts| scripts.take(&mut from, VecDeque::is_empty),
            |scripts| scripts.0.is_empty(),
        )?;
        self.len -= 1;
        Some(item)
    }
}

impl<T> Default for RunQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Lines that are served in turn: the one that was served goes to the end, one that is empty is gone. Found by
/// looking at each: those that wait are few, and the first is the usual one.
#[derive(Debug)]
struct Turns<K, L>(VecDeque<(K, L)>);

impl<K, L> Turns<K, L> {
    const fn new() -> Self {
        Self(VecDeque::new())
    }

    /// Returns the line with a key; adds it where it is missing.
    fn line(&mut self, is: impl Fn(&K) -> bool, create: impl FnOnce() -> (K, L)) -> &mut L {
        let place = self.0.iter().position(|(key, _)| is(key));
        let place = place.unwrap_or_else(|| {
            self.0.push_back(create());
            self.0.len() - 1
        });
        &mut self.0[place].1
    }

    /// Serves the first line that has something.
    fn take<T>(
        &mut self,
        mut serve: impl FnMut(&mut L) -> Option<T>,
        is_empty: impl Fn(&L) -> bool,
    ) -> Option<T> {
        let served = self
            .0
            .iter_mut()
            .enumerate()
            .find_map(|(place, (_, line))| serve(line).map(|item| (place, item)));
        let (place, item) = served?;
        if is_empty(&self.0[place].1) {
            self.0.remove(place);
        } else if self.0.len() > 1 {
            let line = self.0.remove(place);
            self.0.extend(line);
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::RunQueue;

    #[test]
    fn actors_come_first_and_their_scripts_second() {
        let mut queue = RunQueue::new();
        for (actor, script, name) in [
            (Some("a"), "x", "a x 1"),
            (Some("a"), "x", "a x 2"),
            (Some("a"), "y", "a y 1"),
            (None, "x", "- x 1"),
            (Some("b"), "x", "b x 1"),
            (Some("b"), "x", "b x 2"),
        ] {
            queue.push(actor, script, name);
        }
        let order: Vec<&str> = queue.drain().collect();
        let expected = ["a x 1", "- x 1", "b x 1", "a y 1", "b x 2", "a x 2"];
        assert_eq!(order, expected);
        assert!(queue.is_empty());
    }

    #[test]
    fn only_the_first_of_each_line_is_asked_and_any_can_be_removed() {
        let mut queue = RunQueue::new();
        queue.push(None, "x", 1);
        queue.push(None, "x", 2);
        queue.push(None, "y", 4);
        assert_eq!(queue.heads().collect::<Vec<_>>(), [&1, &4]);
        assert_eq!(queue.pop_if(|n| n % 2 == 0), Some(4));
        assert_eq!(queue.pop_if(|n| n % 2 == 0), None);
        assert_eq!(queue.remove(|n| *n == 2), Some(2));
        assert_eq!(queue.remove(|n| *n == 2), None);
        assert_eq!((queue.len(), queue.iter().count()), (1, 1));
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(queue.pop(), None);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nobody_is_passed_over_twice(
            runs in prop::collection::vec((0_u8..4, 0_u8..3), 0..60),
        ) {
            let mut queue = RunQueue::new();
            for (n, (actor, script)) in runs.iter().enumerate() {
                queue.push(Some(&actor.to_string()), &script.to_string(), (n, *actor, *script));
            }
            let order: Vec<_> = queue.drain().collect();
            prop_assert_eq!(order.len(), runs.len());
            let mut last = HashMap::new();
            for (n, actor, script) in &order {
                let former = last.insert((*actor, *script), *n);
                prop_assert!(former.is_none_or(|former| former < *n), "a line is first come first served");
            }
            for (place, pair) in order.windows(2).enumerate() {
                let others = order[place + 1..].iter().any(|run| run.1 != pair[0].1);
                prop_assert!(!others || pair[0].1 != pair[1].1, "an actor was served twice while another waited");
            }
        }
    }
}
