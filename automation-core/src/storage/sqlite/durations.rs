//! The lengths of a day's runs as one text: `143:2 150:7` is two runs in bucket 143 and seven in bucket 150. One row a
//! script and day, however many lengths there are, keeps the statistics of years a read of milliseconds.

use std::fmt::Write as _;

use crate::stats::Histogram;

/// Writes the buckets that are not empty.
pub(super) fn write(durations: &Histogram) -> String {
    let mut text = String::new();
    for (bucket, count) in durations.buckets() {
        let space = if text.is_empty() { "" } else { " " };
        let _ = write!(text, "{space}{bucket}:{count}");
    }
    text
}

/// Calls `add` for each bucket of a text; returns `None` when it is not one of ours.
pub(super) fn read(text: &str, mut add: impl FnMut(u16, u64)) -> Option<()> {
    for pair in text.split_ascii_whitespace() {
        let (bucket, count) = pair.split_once(':')?;
        add(bucket.parse().ok()?, count.parse().ok()?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{read, write};
    use crate::stats::Histogram;

    #[test]
    fn what_is_none_of_ours_is_refused() {
        for text in ["1", "1:", ":1", "a:1", "70000:1", "1:-1", "1,2"] {
            assert_eq!(read(text, |_, _| {}), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn histograms_round_trip(lengths in proptest::collection::vec(any::<u64>(), 0..40)) {
            let mut given = Histogram::default();
            for us in lengths {
                given.add(Histogram::bucket(us), 1 + us % 3);
            }
            let mut found = Histogram::default();
            read(&write(&given), |bucket, count| found.add(bucket, count)).unwrap();
            prop_assert_eq!(found, given);
        }
    }
}
