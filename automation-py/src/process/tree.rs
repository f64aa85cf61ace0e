//! A process and what it has started, as `/proc` shows them: who they are, what they use, and how they are signalled
//! without ever hitting another process that got the number since. Knows nothing of runs.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

/// Rounds in which all of a tree is stopped: more than one only while something of it goes on to fork.
const STOP_ROUNDS: usize = 100;
/// Ticks a second of the processor times in `/proc`; the kernel's interface fixes it.
const TICKS: u64 = 100;

/// A process, told from a later one with the same number by when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Process {
    pid: i32,
    start: u64,
}

/// What processes use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Processor time, of children that have ended too.
    pub(super) cpu: Duration,
    /// Resident memory in bytes.
    pub(super) resident: u64,
}

impl Process {
    /// Returns the process that has a number now.
    pub(super) fn find(pid: i32) -> Option<Self> {
        let start = Stat::read(pid)?.start;
        Some(Self { pid, start })
    }

    /// Returns its resident memory in bytes, of this moment.
    pub(super) fn resident(self) -> u64 {
        Stat::read(self.pid).map_or(0, |stat| stat.pages * page_bytes())
    }

    /// Returns whether it has a handler of its own for a signal.
    pub(super) fn catches(self, signal: Signal) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid));
        let status = status.unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask >> (signal.as_raw() - 1) & 1 == 1)
    }

    /// Returns its living descendants.
    pub(super) fn descendants(self) -> Vec<Self> {
        let mut found = children(self.pid);
        let mut at = 0;
        while let Some(process) = found.get(at) {
            found.extend(children(process.pid));
            at += 1;
        }
        found
    }

    /// Returns what it and its descendants use now.
    pub(super) fn usage(self) -> Usage {
        let tree = std::iter::once(self).chain(self.descendants());
        let stats = tree.filter_map(|process| Stat::read(process.pid));
        stats.fold(Usage::default(), |sum, stat| Usage {
            cpu: sum.cpu + Duration::from_millis(stat.ticks * 1000 / TICKS),
            resident: sum.resident + stat.pages * page_bytes(),
        })
    }

    /// Sends it a signal, if it lives.
    pub(super) fn signal(self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return;
        };
        // What the descriptor stands for can't become another process, so it is opened before the look.
        let descriptor = pidfd_open(pid, PidfdFlags::empty());
        if Self::find(self.pid) != Some(self) {
            return;
        }
        let _ = match descriptor {
            Ok(descriptor) => pidfd_send_signal(descriptor, signal),
            Err(Errno::SRCH) => Ok(()),
            // Linux before 5.3.
            Err(_) => kill_process(pid, signal),
        };
    }

    /// Kills it and its descendants. All of them are stopped first: what is stopped starts nothing more.
    pub(super) fn kill_tree(self) {
        self.signal(Signal::STOP);
        let mut stopped = HashSet::new();
        for _ in 0..STOP_ROUNDS {
            let known = stopped.len();
            for process in self.descendants() {
                if stopped.insert(process) {
                    process.signal(Signal::STOP);
                }
            }
            if stopped.len() == known {
                break;
            }
        }
        for process in stopped {
            process.signal(Signal::KILL);
        }
        self.signal(Signal::KILL);
    }
}

fn children(pid: i32) -> Vec<Process> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists = threads.flatten();
    let lists = lists.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let mut found = Vec::new();
    for list in lists {
        let pids = list
            .split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok());
        found.extend(pids.filter_map(Process::find));
    }
    found
}

fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// Fields of `/proc/PID/stat`.
struct Stat {
    start: u64,
    ticks: u64,
    pages: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Reads the fields after the program's name, which may hold anything.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // Field 3 of the manual is the first here.
        let field = |number: usize| -> Option<u64> { fields.get(number - 3)?.parse().ok() };
        Some(Self {
            start: field(22)?,
            ticks: field(14)? + field(15)? + field(16)? + field(17)?,
            pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use rustix::process::Signal;

    use super::{Process, Stat};

    #[test]
    fn a_name_may_hold_anything() {
        let line = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 3 4 5 6 20 0 1 0 12345 1000000 250 18446744073709551615";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.start, stat.ticks, stat.pages), (12345, 18, 250));
        assert!(Stat::parse("7 (a) S 1").is_none());
    }

    fn shell(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::null());
        command.spawn().unwrap()
    }

    fn find(child: &Child) -> Process {
        Process::find(child.id().cast_signed()).unwrap()
    }

    #[test]
    fn a_process_that_took_the_number_is_not_hit() {
        let mut child = shell("sleep 5");
        let other = Process {
            start: 1,
            ..find(&child)
        };
        other.signal(Signal::KILL);
        assert!(child.try_wait().unwrap().is_none());
        find(&child).kill_tree();
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_tree_is_found_and_ended_whole() {
        let mut child = shell("(sleep 9 & sleep 9 & wait) & setsid sleep 9 & wait");
        let process = find(&child);
        let begin = Instant::now();
        while process.descendants().len() < 4 && begin.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let tree = process.descendants();
        assert_eq!(tree.len(), 4, "{tree:?}");
        assert!(process.usage().resident > 0);
        process.kill_tree();
        child.wait().unwrap();
        let begin = Instant::now();
        let lives = |process: &Process| {
            let line = std::fs::read_to_string(format!("/proc/{}/stat", process.pid));
            line.is_ok_and(|line| !line.contains(") Z "))
                && Process::find(process.pid) == Some(*process)
        };
        while tree.iter().any(lives) {
            assert!(begin.elapsed() < Duration::from_secs(5), "{tree:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
