//! What the process asks of its machine: to keep its memory to itself, and as many file descriptors as it may have.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The most connections, if nobody says otherwise: more than watches and requests can fill, so that there are always
/// some that are not in use, and a probe finds its place.
const MAX_CONNECTIONS: usize = 25_000;

/// Keeps what is in memory out of files: credentials are in it, and a core dump would have them. The limit is for those
/// dumps that the kernel writes; it says nothing to a program that the kernel hands them to, which is what the other is
/// for. That also keeps other processes of the same user from reading the memory.
///
/// What cannot be had is told and done without.
pub(super) fn keep_memory() {
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        tracing::warn!(%error, "core dumps cannot be limited");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%error, "core dumps cannot be turned off");
    }
}

/// Takes all file descriptors that the process may have, and returns how many connections they are good for, with some
/// left for everything else.
pub(super) fn connections() -> usize {
    let descriptors = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) => match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(_) => soft,
        },
        Err(_) => return MAX_CONNECTIONS,
    };
    within(usize::try_from(descriptors).unwrap_or(usize::MAX))
}

fn within(descriptors: usize) -> usize {
    let rest = (descriptors / 4).clamp(32, 512);
    descriptors.saturating_sub(rest).clamp(1, MAX_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_left_for_everything_else() {
        for (descriptors, connections) in [
            (0, 1),
            (33, 1),
            (80, 48),
            (1024, 768),
            (20_000, 19_488),
            (25_511, 24_999),
            (25_512, 25_000),
            (usize::MAX, 25_000),
        ] {
            assert_eq!(within(descriptors), connections, "{descriptors}");
        }
    }
}
