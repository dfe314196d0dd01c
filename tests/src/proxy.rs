//! A TCP proxy on loopback that breaks connections on demand: between a service
//! and PostgreSQL, or between the services.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use tokio_util::sync::CancellationToken;

const CHUNK_BYTES: usize = 16 * 1024;

/// Bytes to be found one after the other, whatever lies between them.
type Parts = &'static [&'static [u8]];

/// Lists among a statement's parameters: one dimension, whether there are nulls, and the
/// number of a type. Payloads are `bytea`, and only what fills ingest's outbox has a list of
/// them.
const PAYLOADS: &[u8] = b"\0\0\0\x01\0\0\0\0\0\0\0\x11";
/// `timestamptz` without nulls: what acknowledges names batches by their dates. (So does
/// what forgets the long expired.)
const DATES: &[u8] = b"\0\0\0\x01\0\0\0\0\0\0\x04\xa0";
/// `integer` with nulls: what records says for how long URLs are signed, or that none are.
const LIFETIMES: &[u8] = b"\0\0\0\x01\0\0\0\x01\0\0\0\x17";
/// `uuid` without nulls; in an answer, what was acknowledged.
const UUIDS: &[u8] = b"\0\0\0\x01\0\0\0\0\0\0\x0b\x86";
/// PostgreSQL is ready for the next statement: what came before is committed.
const READY: &[u8] = b"Z\0\0\0\x05I";
/// Of no message of PostgreSQL's.
const NEVER: &[u8] = b"\0never\0";

/// Where to cut one connection: once, at the first that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The client's bytes that hold the pattern reach the server; the server's
    /// answer is swallowed, and when it held all parts the connection is closed. So
    /// the server did it, and the client never knows.
    BeforeAnswer(&'static [u8], Parts),
    /// The client's bytes that hold the pattern never reach the server.
    BeforeServer(&'static [u8]),
}

impl Cut {
    /// Between PostgreSQL's commit and the word of it. (With its end: a BEGIN
    /// says READ COMMITTED.)
    pub const AFTER_COMMIT: Self = Self::BeforeAnswer(b"COMMIT\0", &[b"COMMIT\0"]);
    /// Before PostgreSQL learns that it should commit.
    pub const BEFORE_COMMIT: Self = Self::BeforeServer(b"COMMIT\0");

    /// Between PostgreSQL's commit of outbox rows and the word of it, in however many
    /// trips.
    pub const AFTER_GATE: Self = Self::BeforeAnswer(PAYLOADS, &[READY]);
    /// Before PostgreSQL learns of outbox rows.
    pub const BEFORE_GATE: Self = Self::BeforeServer(PAYLOADS);
    /// PostgreSQL commits outbox rows, and is silent from then on; the connection stays.
    pub const SILENT_GATE: Self = Self::BeforeAnswer(PAYLOADS, &[NEVER]);

    /// Between PostgreSQL's commit of records and the word of it.
    pub const AFTER_RECORDING: Self = Self::BeforeAnswer(LIFETIMES, &[READY]);
    /// Before PostgreSQL learns of records.
    pub const BEFORE_RECORDING: Self = Self::BeforeServer(LIFETIMES);

    /// Between PostgreSQL's commit of an acknowledgement that changed something and the
    /// word of it. (It is ready once before: for whom was said in the same trip.)
    pub const AFTER_ACKNOWLEDGING: Self = Self::BeforeAnswer(DATES, &[UUIDS, READY]);
    /// PostgreSQL acknowledges, and is silent from then on; the connection stays.
    pub const SILENT_ACKNOWLEDGING: Self = Self::BeforeAnswer(DATES, &[NEVER]);
    /// Before PostgreSQL learns of an acknowledgement.
    pub const BEFORE_ACKNOWLEDGING: Self = Self::BeforeServer(DATES);

    fn client_pattern(self) -> &'static [u8] {
        match self {
            Self::BeforeAnswer(pattern, _) | Self::BeforeServer(pattern) => pattern,
        }
    }
}

/// What the proxy does with what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    /// New connections are closed at once.
    Refuse,
    /// The same, while those that are open go on.
    NoneNew,
    /// Connections stay open and nothing moves.
    Stall,
}

/// What a connection's answers are looked through for, and how often cuts had been taken back
/// by then. `None`: they pass.
type Swallowing = Option<(Parts, usize)>;

struct Shared {
    upstream: SocketAddr,
    mode: watch::Sender<Mode>,
    armed: Mutex<Option<Cut>>,
    cuts: watch::Sender<usize>,
    /// How often an armed cut was taken back.
    taken_back: watch::Sender<usize>,
    /// Cancelled to end all connections there are.
    open: Mutex<CancellationToken>,
}

/// A proxy in front of one address. Ends with its last handle.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            upstream,
            mode: watch::Sender::new(Mode::Pass),
            armed: Mutex::new(None),
            cuts: watch::Sender::new(0),
            taken_back: watch::Sender::new(0),
            open: Mutex::new(CancellationToken::new()),
        });
        let listening = tokio::spawn(listen(listener, shared.clone()));
        Self { address, shared, listening }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets everything pass, from now on.
    pub fn pass(&self) {
        self.shared.mode.send_replace(Mode::Pass);
    }

    /// Closes every connection, and each new one at once.
    pub fn refuse(&self) {
        self.shared.mode.send_replace(Mode::Refuse);
        self.cut_all();
    }

    /// Lets nothing new in; what is open goes on.
    pub fn refuse_new(&self) {
        self.shared.mode.send_replace(Mode::NoneNew);
    }

    /// Leaves connections open and moves nothing, as a network that lost its way.
    pub fn stall(&self) {
        self.shared.mode.send_replace(Mode::Stall);
    }

    /// Closes every connection; new ones are let through.
    pub fn cut_all(&self) {
        let mut open = self.shared.open.lock().expect("not poisoned");
        std::mem::take(&mut *open).cancel();
    }

    /// Arms a cut for the next connection that matches.
    pub fn arm(&self, cut: Cut) {
        *self.shared.armed.lock().expect("not poisoned") = Some(cut);
    }

    /// Takes back a cut that was not made yet. A connection that ran into it, and whose answer
    /// did not show what it waits for, is closed: nobody has to listen to it any longer.
    pub fn disarm(&self) {
        *self.shared.armed.lock().expect("not poisoned") = None;
        self.shared.taken_back.send_modify(|count| *count += 1);
    }

    /// How many armed cuts were made so far.
    #[must_use]
    pub fn cuts(&self) -> usize {
        *self.shared.cuts.borrow()
    }

    /// Waits until an armed cut was made.
    ///
    /// # Panics
    /// If none is within the deadline.
    pub async fn was_cut(&self) {
        let mut cuts = self.shared.cuts.subscribe();
        let made = tokio::time::timeout(crate::DEADLINE, cuts.wait_for(|count| *count > 0)).await;
        assert!(made.is_ok(), "the armed cut never came");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut_all();
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        if matches!(*shared.mode.borrow(), Mode::Refuse | Mode::NoneNew) {
            continue;
        }
        let open = shared.open.lock().expect("not poisoned").clone();
        let shared = shared.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = open.cancelled() => {}
                _ = relay(client, &shared) => {}
            }
        });
    }
}

/// One connection. Returns when either side or a cut ends it; the sockets are
/// closed by dropping them.
async fn relay(client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let server = TcpStream::connect(shared.upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let swallowing = watch::Sender::new(None);
    tokio::select! {
        ended = upwards(from_client, to_server, shared, &swallowing) => ended,
        ended = downwards(from_server, to_client, shared, swallowing.subscribe()) => ended,
    }
}

/// Client to server, looking for the armed pattern.
async fn upwards(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    swallowing: &watch::Sender<Swallowing>,
) -> std::io::Result<()> {
    let mut mode = shared.mode.subscribe();
    let mut window = Window::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut chunk).await?;
        if count == 0 {
            return Ok(());
        }
        drop(mode.wait_for(|mode| *mode != Mode::Stall).await);
        match take_armed(shared, &mut window, &chunk[..count]) {
            Some(Cut::BeforeServer(_)) => {
                shared.cuts.send_modify(|count| *count += 1);
                return Ok(());
            }
            // Before the bytes go: the answer must not slip through.
            Some(Cut::BeforeAnswer(_, answer)) => {
                let taken_back = *shared.taken_back.borrow();
                swallowing.send_replace(Some((answer, taken_back)));
            }
            None => {}
        }
        to.write_all(&chunk[..count]).await?;
    }
}

/// Server to client, or nowhere once a cut began.
async fn downwards(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    swallowing: watch::Receiver<Swallowing>,
) -> std::io::Result<()> {
    let mut mode = shared.mode.subscribe();
    let mut taken_back = shared.taken_back.subscribe();
    let mut window = Window::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let since = swallowing.borrow().map(|(_, since)| since);
        let count = tokio::select! {
            count = from.read(&mut chunk) => count?,
            _ = taken_back.wait_for(|now| since.is_some_and(|since| *now > since)) => return Ok(()),
        };
        // An end that the server makes is no cut.
        if count == 0 {
            return Ok(());
        }
        let swallow = *swallowing.borrow();
        if let Some((parts, _)) = swallow {
            if window.shows_all(parts, &chunk[..count]) {
                shared.cuts.send_modify(|count| *count += 1);
                return Ok(());
            }
            continue;
        }
        drop(mode.wait_for(|mode| *mode != Mode::Stall).await);
        to.write_all(&chunk[..count]).await?;
    }
}

/// The armed cut, disarmed, if its pattern shows.
fn take_armed(shared: &Shared, window: &mut Window, chunk: &[u8]) -> Option<Cut> {
    let mut armed = shared.armed.lock().expect("not poisoned");
    let pattern = armed.as_ref()?.client_pattern();
    if window.shows(pattern, chunk) { armed.take() } else { None }
}

/// Finds patterns that may lie across two reads.
#[derive(Default)]
struct Window {
    tail: Vec<u8>,
    /// How many parts were found.
    found: usize,
}

impl Window {
    fn shows(&mut self, pattern: &[u8], chunk: &[u8]) -> bool {
        self.tail.extend_from_slice(chunk);
        self.passes(pattern)
    }

    /// Whether all parts have shown by now, one after the other.
    fn shows_all(&mut self, parts: Parts, chunk: &[u8]) -> bool {
        self.tail.extend_from_slice(chunk);
        while let Some(part) = parts.get(self.found) {
            if !self.passes(part) {
                return false;
            }
            self.found += 1;
        }
        true
    }

    /// Whether it is there; what lies before its end is passed.
    fn passes(&mut self, pattern: &[u8]) -> bool {
        let at = self.tail.windows(pattern.len()).position(|part| part == pattern);
        let open = pattern.len().saturating_sub(1).min(self.tail.len());
        let passed = at.map_or(self.tail.len() - open, |at| at + pattern.len());
        self.tail.drain(..passed);
        at.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_across_reads_is_found() {
        let mut window = Window::default();
        assert!(!window.shows(b"COMMIT", b"...COM"));
        assert!(window.shows(b"COMMIT", b"MIT;"));
        assert!(!window.shows(b"COMMIT", b"MIT"));
    }

    #[test]
    fn parts_are_found_in_their_order() {
        let parts: Parts = &[b"rows", b"ready"];
        let mut window = Window::default();
        assert!(!window.shows_all(parts, b"ready ro"));
        assert!(!window.shows_all(parts, b"ws rea"));
        assert!(window.shows_all(parts, b"dy"));
        assert!(Window::default().shows_all(parts, b"rowsready"));
        assert!(!Window::default().shows_all(parts, b"readyrows"));
    }
}
