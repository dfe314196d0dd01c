//! Ports for servers that are told theirs before they start.

use std::{
    net::Ipv4Addr,
    ops::Range,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use tokio::net::TcpSocket;

use crate::failure::{Context as _, Failure};

/// Where [`free`] looks: below the ports that Linux gives to outgoing
/// connections and to who asks for any port (`ip_local_port_range`, 32768 and up
/// unless changed), which could be taken between the look and its use.
const PORTS: Range<u32> = 15_000..32_768;

/// A TCP port on 127.0.0.1 that is free now, and stays so while nobody asks for it
/// by its number. A process is not given one twice before all others were.
///
/// # Errors
/// If there is none.
pub fn free() -> Result<u16, Failure> {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.end - PORTS.start;
    // Processes begin far from each other.
    let first = std::process::id().wrapping_mul(4_127);
    for _ in 0..count {
        let at = first.wrapping_add(TRIED.fetch_add(1, Relaxed)) % count;
        let port = u16::try_from(PORTS.start + at).context("no port")?;
        if is_free(port) {
            return Ok(port);
        }
    }
    Err(Failure::new("no free port"))
}

/// Nobody listens there. It is looked at without listening: a child that another thread
/// starts at this moment has the socket, too, until it becomes another program, and would
/// keep everybody from the port.
fn is_free(port: u16) -> bool {
    let bound = TcpSocket::new_v4().and_then(|socket| {
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::LOCALHOST, port).into())
    });
    bound.is_ok()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::TcpListener};

    use super::*;

    #[test]
    fn what_was_given_is_not_given_again_and_what_is_taken_never() {
        let given: BTreeSet<u16> = (0..100).map(|_| free().unwrap()).collect();
        assert_eq!(given.len(), 100);
        assert!(given.iter().all(|port| PORTS.contains(&u32::from(*port))));
        let next = given.last().unwrap() + 1;
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, next)).unwrap();
        assert!((0..100).all(|_| free().unwrap() != next));
    }

    #[test]
    fn what_a_port_was_looked_at_with_keeps_nobody_from_it() {
        let port = free().unwrap();
        // As a child that was started meanwhile has it.
        let held = TcpSocket::new_v4().unwrap();
        held.set_reuseaddr(true).unwrap();
        held.bind((Ipv4Addr::LOCALHOST, port).into()).unwrap();
        assert!(is_free(port));
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    }
}
