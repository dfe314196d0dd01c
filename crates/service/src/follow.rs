//! Files that are read again whenever they change: keys, certificates. They are
//! looked at and not watched: that works on every volume, also on those where a
//! file is a link that is turned to another one.

use std::{path::PathBuf, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    backoff::{News, Outage},
    metrics::{Family, Gauge, Registry},
};

/// How often they are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Where it is told which of the files that are followed can't be used. One per process.
#[derive(Clone, Debug)]
pub struct Unusable(Family<[(&'static str, &'static str); 1], Gauge>);

impl Unusable {
    /// Adds it to a registry.
    pub fn register(registry: &mut Registry) -> Self {
        let help = "1 for files that can't be used as they are now, so that what they said before holds";
        Self(registry.add("sluice_files_unusable", help, Family::default()))
    }

    /// Of the files of this setting.
    pub(crate) fn of(&self, file: &'static str) -> Followed {
        Followed { file, unusable: self.0.get_or_create_owned(&[("file", file)]) }
    }
}

/// What is followed, as the log and the metric name it.
pub(crate) struct Followed {
    file: &'static str,
    unusable: Gauge,
}

/// Hands the contents of `paths`, in their order, to `take` whenever they have
/// changed, until shutdown. Contents that can't be read or taken change nothing,
/// and are logged once.
pub(crate) async fn follow(
    followed: Followed,
    paths: Vec<PathBuf>,
    shutdown: CancellationToken,
    mut take: impl FnMut(&[Vec<u8>]) -> Result<(), String>,
) {
    let Followed { file, unusable } = followed;
    let mut taken: Option<Vec<Vec<u8>>> = None;
    let mut outage = Outage::default();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let outcome = match read(&paths).await {
            Ok(contents) if taken.as_ref() == Some(&contents) => Ok(()),
            Ok(contents) => take(&contents).map(|()| taken = Some(contents)),
            Err(fault) => Err(fault),
        };
        unusable.set(outcome.is_err().into());
        match outage.news(outcome.err()) {
            Some(News::Fails(fault)) => {
                tracing::error!(fault, "{file} unusable, keeping the previous version");
            }
            Some(News::WorksAgain) => tracing::info!("{file} usable again"),
            None => {}
        }
    }
}

/// [`follow`] for one file that holds text.
pub(crate) async fn follow_text(
    followed: Followed,
    path: PathBuf,
    shutdown: CancellationToken,
    mut take: impl FnMut(&str) -> Result<(), String>,
) {
    follow(followed, vec![path], shutdown, |contents| {
        let text = contents.first().map_or(Ok(""), |bytes| std::str::from_utf8(bytes));
        take(text.map_err(|fault| fault.to_string())?)
    })
    .await;
}

async fn read(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, String> {
    let mut contents = Vec::with_capacity(paths.len());
    for path in paths {
        let read = tokio::fs::read(path).await;
        contents.push(read.map_err(|fault| format!("{}: {fault}", path.display()))?);
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use tokio::{sync::mpsc, time::Instant};

    use super::*;

    #[tokio::test]
    async fn changes_are_taken_once_and_what_is_broken_changes_nothing() {
        let path = std::env::temp_dir().join(format!("sluice-follow-{}", std::process::id()));
        std::fs::write(&path, "a").unwrap();
        let (told, mut seen) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let take = move |contents: &[Vec<u8>]| {
            let good = contents[0] != b"bad";
            told.send(String::from_utf8_lossy(&contents[0]).into_owned()).unwrap();
            if good { Ok(()) } else { Err("bad".into()) }
        };
        let followed = Unusable::register(&mut Registry::new("sluice-test", "0")).of("a test");
        let told_of = followed.unusable.clone();
        let following = tokio::spawn(follow(followed, vec![path.clone()], stop.clone(), take));
        assert_eq!(seen.recv().await.unwrap(), "a");
        std::fs::write(&path, "bad").unwrap();
        assert_eq!(seen.recv().await.unwrap(), "bad");
        // It is tried once more at the next look: by then the first has been told of.
        assert_eq!((seen.recv().await.unwrap().as_str(), told_of.get()), ("bad", 1));
        std::fs::write(&path, "b").unwrap();
        while seen.recv().await.unwrap() != "b" {}
        stop.cancel();
        following.await.unwrap();
        assert!(seen.recv().await.is_none(), "taken twice");
        assert_eq!(told_of.get(), 0);
        std::fs::remove_file(path).unwrap();
    }

    /// As long as operators are told that it takes.
    const TAKEN_WITHIN: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn changes_are_taken_in_time_whenever_they_are_made() {
        let path = std::env::temp_dir().join(format!("sluice-follow-in-time-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        let (told, mut seen) = mpsc::unbounded_channel();
        let take =
            move |contents: &[Vec<u8>]| told.send(contents[0].clone()).map_err(|told| told.to_string());
        let followed = Unusable::register(&mut Registry::new("sluice-test", "0")).of("a test");
        let following = tokio::spawn(follow(followed, vec![path.clone()], CancellationToken::new(), take));
        for pause in [0, 1, 250, 499, 500, 501, 2_500] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let (text, changed) = (format!("after {pause}"), Instant::now());
            std::fs::write(&path, &text).unwrap();
            // What was there before may be seen once more.
            while seen.recv().await.unwrap() != text.as_bytes() {}
            assert!(changed.elapsed() <= TAKEN_WITHIN, "{text}: {:?}", changed.elapsed());
        }
        following.abort();
        std::fs::remove_file(path).unwrap();
    }
}
