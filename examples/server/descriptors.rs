//! How many files and sockets the process may have open, and how many of them connections may take.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Left to scripts, the database and logs.
const RESERVED: u64 = 256;
/// Connections that there are at least, however few descriptors are left for the rest.
const CONNECTIONS_MIN: u64 = 16;

/// Takes as many descriptors as the system lets us, and returns how many of them connections may have: at most
/// `wanted`.
pub(crate) fn connections_max(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Without a maximum there may still be one of the kernel's; then what we had remains.
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    now.map_or(wanted, |descriptors| {
        left_for_connections(descriptors, wanted)
    })
}

fn left_for_connections(descriptors: u64, wanted: usize) -> usize {
    let left = descriptors.saturating_sub(RESERVED).max(CONNECTIONS_MIN);
    usize::try_from(left).map_or(wanted, |left| left.min(wanted))
}

#[cfg(test)]
mod tests {
    use super::left_for_connections;

    #[test]
    fn scripts_keep_their_share() {
        for (descriptors, connections) in [
            (0, 16),
            (256, 16),
            (300, 44),
            (1024, 768),
            (1280, 1024),
            (u64::MAX, 1024),
        ] {
            assert_eq!(
                left_for_connections(descriptors, 1024),
                connections,
                "{descriptors}"
            );
        }
    }
}
