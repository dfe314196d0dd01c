//! From signal to token: SIGTERM and SIGINT cancel one token that everything
//! long-running holds. A second signal changes nothing for who does not ask for it.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long everything else may take to end once serving has: what was accepted is
/// flushed, background work ends. After it come the last spans and the runtime's end.
pub const ENDING: Duration = Duration::from_secs(8);

/// A token that is cancelled by the first SIGTERM or SIGINT.
///
/// # Errors
/// If the handlers can't be installed.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    on_signals().map(|[first, _]| first)
}

/// The same, and one that is cancelled by the second.
///
/// # Errors
/// If the handlers can't be installed.
pub fn on_signals() -> std::io::Result<[CancellationToken; 2]> {
    let tokens = [CancellationToken::new(), CancellationToken::new()];
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let cancelled = tokens.clone();
    tokio::spawn(async move {
        for token in cancelled {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping");
            token.cancel();
        }
    });
    Ok(tokens)
}
