//! Writing the objects of one call's results. Each storage config is on its own, and all of
//! them have a time that leaves the caller its answer: a bucket that hangs is at nobody
//! else's cost, and one that is slow gets on a bit with each try.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::{
    sync::mpsc::UnboundedSender,
    time::{Instant, timeout_at},
};

use crate::{
    configs::{ConfigName, stores::Stores},
    doubts::Doubts,
    result::NewRecord,
    storage_config::StorageConfig,
};

/// How long the objects of one call may take. The caller waits for 20 s, and the records
/// are made meanwhile and after it.
const WRITING_MAX: Duration = Duration::from_secs(8);
/// Storage configs that are written to at the same time for one call.
const CONFIGS_AT_ONCE: usize = 32;
/// Objects of one of them that are written at the same time.
const WRITES_AT_ONCE: usize = 16;

/// Results whose objects go to one storage config.
struct Writing<'a> {
    config: &'a StorageConfig,
    records: Vec<&'a NewRecord>,
}

/// Writes objects, and passes on each result, without its data, as soon as its object is
/// there. The others' are to be tried again.
pub async fn write(
    stores: &Stores,
    doubts: &Doubts,
    given: Vec<(&NewRecord, &StorageConfig)>,
    written: UnboundedSender<NewRecord>,
) {
    let deadline = Instant::now() + WRITING_MAX;
    let mut all: HashMap<ConfigName, Writing<'_>> = HashMap::new();
    for (record, config) in given {
        let name = (config.organisation.clone(), config.id);
        all.entry(name).or_insert_with(|| Writing { config, records: Vec::new() }).records.push(record);
    }
    let all = stream::iter(all.into_values());
    all.for_each_concurrent(CONFIGS_AT_ONCE, |writing| writing.run(stores, doubts, deadline, &written)).await;
}

impl Writing<'_> {
    /// Writes until a deadline. After a failure nothing more is begun, and the config is
    /// doubted; so is one that can't be opened, or took nothing in all the time.
    async fn run(
        self,
        stores: &Stores,
        doubts: &Doubts,
        deadline: Instant,
        written: &UnboundedSender<NewRecord>,
    ) {
        let (organisation, storage_config) = (&self.config.organisation, self.config.id);
        if Instant::now() >= deadline {
            // The others took all the time: nothing is known of this one.
            return;
        }
        let store = match stores.open(self.config) {
            Ok(store) => store,
            Err(why) => {
                tracing::warn!(%organisation, %storage_config, why, "storage not usable");
                let _known = timeout_at(deadline, doubts.look_into(self.config)).await;
                return;
            }
        };
        let (failing, stored) = (AtomicBool::new(false), AtomicUsize::new(0));
        let write = async |record: &NewRecord| {
            if failing.load(Relaxed) {
                return;
            }
            let key = self.config.object(record.id);
            match store.put(&key, record.data.clone(), &record.labels.media_type).await {
                Ok(()) => {
                    stored.fetch_add(1, Relaxed);
                    // Whoever records has failed, and with it the call.
                    let _gone = written.send(NewRecord { data: Bytes::new(), ..record.clone() });
                }
                Err(error) => {
                    failing.store(true, Relaxed);
                    tracing::warn!(%organisation, %storage_config, %error, "result not stored");
                }
            }
        };
        let writing = stream::iter(&self.records).for_each_concurrent(WRITES_AT_ONCE, |record| write(record));
        let is_late = timeout_at(deadline, writing).await.is_err();
        let stored = stored.into_inner();
        if is_late {
            let left = self.records.len() - stored;
            tracing::warn!(%organisation, %storage_config, stored, left, "results not stored in time");
        }
        if failing.into_inner() || is_late && stored == 0 {
            // The answer comes after it if there is time; it goes on in any case.
            let _known = timeout_at(deadline, doubts.look_into(self.config)).await;
        }
    }
}
