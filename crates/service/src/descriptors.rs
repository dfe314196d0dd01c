//! File descriptors: each connection, database session and file takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process takes beside its callers' connections, about.
const OTHERS: u64 = 256;

/// Takes as many as the system lets this process have. What it has at the start is
/// often 1,024 (systemd's default), for the sake of programs that use `select`.
pub(crate) fn take_all() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "no more file descriptors than at the start");
    }
}

/// Says so if there are not enough for that many connections.
pub(crate) fn suffice_for(connections_max: usize) {
    if let Some(descriptors) = getrlimit(Resource::Nofile).current
        && descriptors < (connections_max as u64).saturating_add(OTHERS)
    {
        tracing::warn!(
            descriptors,
            connections_max,
            "fewer file descriptors (ulimit -n) than connections_max needs"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_the_system_gives_are_taken() {
        let limit = getrlimit(Resource::Nofile);
        let few = limit.maximum.map_or(1 << 20, |most| most - 1);
        setrlimit(Resource::Nofile, Rlimit { current: Some(few), ..limit }).unwrap();
        take_all();
        assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum);
    }
}
