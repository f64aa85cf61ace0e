//! Which pages of this process are read-only, as the kernel tells it. Knows no objects.

use std::fs;
use std::ops::Range;

/// The parts of the address space that may be read and not written, in order and without overlaps.
pub(super) struct ReadOnly(Vec<Range<usize>>);

impl ReadOnly {
    /// Reads what is so at the moment. `None` where the kernel does not tell.
    pub(super) fn of_this_process() -> Option<Self> {
        let maps = fs::read("/proc/self/maps").ok()?;
        Some(Self::parsed(&String::from_utf8_lossy(&maps)))
    }

    /// Reads lines like `7f00-7f01 r--p 00000000 fd:00 1234 /lib/x.so`.
    fn parsed(maps: &str) -> Self {
        let mut parts: Vec<Range<usize>> = Vec::new();
        for line in maps.lines() {
            let Some(part) = read_only(line) else {
                continue;
            };
            match parts.last_mut() {
                Some(last) if last.end == part.start => last.end = part.end,
                _ => parts.push(part),
            }
        }
        Self(parts)
    }

    /// Returns whether the whole range is read-only.
    pub(super) fn contain(&self, range: &Range<usize>) -> bool {
        let holds = |part: &Range<usize>| part.start <= range.start && range.end <= part.end;
        self.0.iter().any(holds)
    }
}

/// Returns what a line is about if that is read-only.
fn read_only(line: &str) -> Option<Range<usize>> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    rest.starts_with("r-").then_some(())?;
    Some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::ReadOnly;

    #[test]
    fn a_range_is_read_only_if_all_of_it_is() {
        let pages = ReadOnly::parsed(
            "1000-2000 r--p 0 fd:00 1 /lib/x.so\n2000-3000 r-xp 0 fd:00 1 /lib/x.so\n\
             3000-4000 rw-p 0 fd:00 1 /lib/x.so\n4000-5000 ---p 0 00:00 0\n6000-7000 r--p 0 00:00 0\n",
        );
        let answers = [
            (0x1000..0x3000, true),
            (0x1800..0x2800, true),
            (0x2000..0x4000, false),
            (0x3000..0x4000, false),
            (0x4000..0x5000, false),
            (0x5000..0x7000, false),
            (0x6000..0x7000, true),
        ];
        for (range, expected) in answers {
            assert_eq!(pages.contain(&range), expected, "{range:x?}");
        }
    }

    #[test]
    fn this_process_has_both_kinds() {
        static CONSTANT: [usize; 4] = [1, 2, 3, 4];
        let pages = ReadOnly::of_this_process().unwrap();
        let at = |place: *const usize| (place as usize)..(place as usize + size_of::<usize>());
        assert!(pages.contain(&at(&raw const CONSTANT[0])));
        let variable = 1usize;
        assert!(!pages.contain(&at(&raw const variable)));
    }
}
