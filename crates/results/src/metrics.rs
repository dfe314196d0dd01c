//! The metrics of the results service, all of them in one place. Of the clean-up's
//! lag take the largest of all replicas, not the sum.

use std::{sync::Arc, time::Duration};

use sluice_service::{
    label,
    metrics::{By, Counter, Family, FloatGauge, Gauge, Histogram, Label as _, Registry, items, seconds},
};

use crate::recorder::Recording;

/// All of them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Recording.
    pub recording: Arc<Recordings>,
    /// What consumers and publishers of files do.
    pub shelf: Arc<Shelf>,
    /// Clean-up.
    pub cleanup: Arc<Cleanup>,
}

impl Metrics {
    /// Adds them to a registry.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            recording: Arc::new(Recordings::register(registry)),
            shelf: Arc::new(Shelf::register(registry)),
            cleanup: Arc::new(Cleanup::register(registry)),
        }
    }
}

label! {
    enum Became {
        Recorded = "recorded",
        Deferred = "deferred",
        Refused = "refused",
        Failed = "failed",
    }
}

label! {
    enum Source {
        Memory = "memory",
        Database = "database",
    }
}

label! {
    enum Upload {
        Sealed = "sealed",
        Failed = "failed",
    }
}

label! {
    enum Consumed {
        Yes = "yes",
        No = "no",
    }
}

label! {
    enum Removal {
        Removed = "removed",
        Failed = "failed",
    }
}

label! {
    /// What a round of the clean-up is about.
    pub enum Work {
        /// What uploads left behind.
        Uploads = "uploads",
        /// What is past its retention.
        Expiring = "expiring",
        /// What has been EXPIRED for a year.
        Forgetting = "forgetting",
    }
}

label! {
    enum Round {
        Done = "done",
        Failed = "failed",
    }
}

/// Recording of what ingest hands over.
#[derive(Debug)]
pub struct Recordings {
    results: By<Became, Counter>,
    seconds: Histogram,
    group_results: Histogram,
    group_calls: Histogram,
    waiting_calls: Gauge,
}

impl Recordings {
    fn register(registry: &mut Registry) -> Self {
        Self {
            results: registry.add_by(
                "sluice_recordings_total",
                "Results handed over, by what became of them; those recorded before count as recorded",
                "recording",
                Counter::default,
            ),
            seconds: registry.add(
                "sluice_recording_duration_seconds",
                "Time of recording a group of results, seconds",
                seconds(),
            ),
            group_results: registry.add(
                "sluice_recording_results",
                "Results in a group recorded at once",
                items(),
            ),
            group_calls: registry.add(
                "sluice_recording_calls",
                "Calls merged into a group recorded at once",
                items(),
            ),
            waiting_calls: registry.add(
                "sluice_recording_waiting_calls",
                "Calls that wait to be recorded",
                Gauge::default(),
            ),
        }
    }

    /// A call began to wait for a lane.
    pub fn waits(&self) {
        self.waiting_calls.inc();
    }

    /// A lane took a group of calls, or they left.
    pub fn taken(&self, calls: usize) {
        self.waiting_calls.dec_by(i64::try_from(calls).unwrap_or(i64::MAX));
    }

    /// A group of calls was worked on for so long.
    pub fn worked(&self, calls: usize, results: usize, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
        self.group_calls.observe(float(calls));
        self.group_results.observe(float(results));
    }

    /// Who handed results over is told what became of each.
    pub fn told(&self, recordings: &[Recording]) {
        for recording in recordings {
            let became = match recording {
                Recording::Recorded => Became::Recorded,
                Recording::Deferred => Became::Deferred,
                Recording::Refused => Became::Refused,
            };
            self.results.of(became).inc();
        }
    }

    /// For so many there was no answer, or nobody waited for it; they will be handed over again.
    pub fn failed(&self, results: usize) {
        self.results.of(Became::Failed).inc_by(results as u64);
    }
}

/// What consumers and publishers of files do.
#[derive(Debug)]
pub struct Shelf {
    acknowledged: Counter,
    listed: By<Source, Counter>,
    downloads: Counter,
    downloaded_bytes: Counter,
    uploads: By<Upload, Counter>,
    uploaded_bytes: Counter,
    file_bytes: Gauge,
}

impl Shelf {
    fn register(registry: &mut Registry) -> Self {
        Self {
            acknowledged: registry.add(
                "sluice_acknowledged_results_total",
                "Results acknowledged; each counts once",
                Counter::default(),
            ),
            listed: registry.add_by(
                "sluice_listed_results_total",
                "Results in pages of lists, by where they were read: the memory of what was recorded last, or \
                 the database",
                "source",
                Counter::default,
            ),
            downloads: registry.add(
                "sluice_downloads_total",
                "Downloads of results' data begun, by call or signed URL of this service",
                Counter::default(),
            ),
            downloaded_bytes: registry.add(
                "sluice_downloaded_bytes_total",
                "Bytes of data given out in downloads",
                Counter::default(),
            ),
            uploads: registry.add_by(
                "sluice_uploads_total",
                "Files sent to storage, by how that ended",
                "upload",
                Counter::default,
            ),
            uploaded_bytes: registry.add(
                "sluice_uploaded_bytes_total",
                "Bytes of files that were sealed",
                Counter::default(),
            ),
            file_bytes: registry.add(
                "sluice_file_bytes_in_flight",
                "Room that files on their way have for their parts: of file_bytes_in_flight_max",
                Gauge::default(),
            ),
        }
    }

    /// Tells of the memory for files.
    #[must_use]
    pub fn file_bytes(&self) -> Gauge {
        self.file_bytes.clone()
    }

    /// Results went from available to consumed.
    pub fn acknowledged(&self, results: usize) {
        self.acknowledged.inc_by(results as u64);
    }

    /// A page of results, so many of them from memory.
    pub fn listed(&self, results: usize, from_memory: usize) {
        self.listed.of(Source::Memory).inc_by(from_memory as u64);
        self.listed.of(Source::Database).inc_by((results - from_memory) as u64);
    }

    /// A download began.
    pub fn download(&self) {
        self.downloads.inc();
    }

    /// Bytes of a download were given out.
    pub fn downloaded(&self, bytes: usize) {
        self.downloaded_bytes.inc_by(bytes as u64);
    }

    /// A file of so many bytes was sealed.
    pub fn uploaded(&self, bytes: u64) {
        self.uploads.of(Upload::Sealed).inc();
        self.uploaded_bytes.inc_by(bytes);
    }

    /// A file could not be stored.
    pub fn upload_failed(&self) {
        self.uploads.of(Upload::Failed).inc();
    }
}

/// Clean-up of what is past its retention, given up or never finished.
#[derive(Debug)]
pub struct Cleanup {
    lag_seconds: FloatGauge,
    expired: By<Consumed, Counter>,
    objects: By<Removal, Counter>,
    rounds: Family<[(&'static str, &'static str); 2], Counter>,
}

impl Cleanup {
    fn register(registry: &mut Registry) -> Self {
        let rounds = Family::default();
        for (work, round) in
            Work::ALL.iter().flat_map(|work| Round::ALL.iter().map(move |round| (work, round)))
        {
            drop(rounds.get_or_create(&ended(*work, *round)));
        }
        Self {
            lag_seconds: registry.add(
                "sluice_cleanup_lag_seconds",
                "How long the data that is due longest should have been gone, of what this replica looked at \
                 last or nobody did, seconds",
                FloatGauge::default(),
            ),
            expired: registry.add_by(
                "sluice_cleanup_expired_results_total",
                "Results that expired: their retention had passed, by whether they had been consumed",
                "consumed",
                Counter::default,
            ),
            objects: registry.add_by(
                "sluice_cleanup_objects_total",
                "Objects in buckets, and files in the database, that were due for removal, by how that \
                 ended; one already gone counts as removed",
                "removal",
                Counter::default,
            ),
            rounds: registry.add(
                "sluice_cleanup_rounds_total",
                "Rounds of the clean-up, without those in which others had just looked, by what they are about and \
                 how they ended",
                rounds,
            ),
        }
    }

    /// What is due longest should have been gone so long ago.
    pub fn lag(&self, late_for: Duration) {
        self.lag_seconds.set(late_for.as_secs_f64());
    }

    /// The same, of what can't be looked at: so long ago, or longer if that was told last.
    pub fn lag_at_least(&self, late_for: Duration) {
        self.lag_seconds.set(self.lag_seconds.get().max(late_for.as_secs_f64()));
    }

    /// Results expired, so many of them without having been consumed.
    pub fn expired(&self, results: u64, unconsumed: u64) {
        self.expired.of(Consumed::Yes).inc_by(results.saturating_sub(unconsumed));
        self.expired.of(Consumed::No).inc_by(unconsumed);
    }

    /// Objects are gone.
    pub fn removed(&self, objects: usize) {
        self.objects.of(Removal::Removed).inc_by(objects as u64);
    }

    /// Objects could not be removed now.
    pub fn not_removed(&self, objects: usize) {
        self.objects.of(Removal::Failed).inc_by(objects as u64);
    }

    /// A round ended, well or not.
    pub fn round(&self, of: Work, done: bool) {
        self.rounds.get_or_create(&ended(of, if done { Round::Done } else { Round::Failed })).inc();
    }
}

/// The labels of a round.
fn ended(of: Work, round: Round) -> [(&'static str, &'static str); 2] {
    [("of", of.word()), ("round", round.word())]
}

#[expect(clippy::cast_precision_loss, reason = "sizes of groups")]
fn float(number: usize) -> f64 {
    number as f64
}
