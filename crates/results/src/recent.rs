//! What this replica recorded last, in memory: most results are listed and
//! acknowledged soon after, and need not be read from the database for that.
//!
//! Records never change, so what is here is what the database holds; whether one is
//! still AVAILABLE, and who may see it, only the database says. What is not here is
//! read there.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use sluice_service::OrganisationId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    filter::Key,
    result::{NewRecord, Placement, Record},
    time::Micros,
};

/// For how long it is kept, and a little longer where nothing new comes. What expires
/// meanwhile is here no longer than that.
const AGE_MAX: Duration = Duration::from_secs(60);
/// What an entry takes beside its record, in bytes, nearly.
const ENTRY_BYTES: usize = 256;

/// A record with its data, and where that lies.
pub type Kept = (NewRecord, Placement);

/// Results that were recorded together, of one poll: a row of `batch`, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// When they were recorded.
    pub date_created: Micros,
    /// Their poll.
    pub poll: String,
    /// Those that were asked for.
    pub ids: Vec<Uuid>,
}

/// One of a group.
#[derive(Clone, Debug)]
struct Entry {
    group: Arc<Vec<Kept>>,
    place: usize,
    /// The number of the group.
    number: u64,
    /// Known once it was listed.
    date_created: Option<Micros>,
}

impl Entry {
    fn record(&self) -> &NewRecord {
        &self.group[self.place].0
    }

    /// Ids are unique within an organisation only.
    fn is_of(&self, organisation: &OrganisationId) -> bool {
        self.record().organisation == *organisation
    }
}

/// What one commit recorded.
#[derive(Debug)]
struct Group {
    records: Arc<Vec<Kept>>,
    since: Instant,
    bytes: usize,
    /// How many of it are still wanted.
    left: usize,
}

#[derive(Debug, Default)]
struct Memory {
    entries: HashMap<Uuid, Entry>,
    /// By number, so the oldest first.
    groups: BTreeMap<u64, Group>,
    next: u64,
    bytes: usize,
}

impl Memory {
    fn of(&self, organisation: &OrganisationId, id: Uuid) -> Option<&Entry> {
        self.entries.get(&id).filter(|entry| entry.is_of(organisation))
    }

    /// Takes out the oldest groups: those above so many bytes, and those of before a
    /// moment. Whoever holds the lock frees them afterwards.
    #[must_use]
    fn shrink(&mut self, bytes_max: usize, before: Option<Instant>) -> Vec<Group> {
        let mut gone = Vec::new();
        while let Some((number, group)) = self.groups.first_key_value() {
            let old = before.is_some_and(|moment| group.since <= moment);
            if !old && self.bytes <= bytes_max {
                break;
            }
            let number = *number;
            gone.extend(self.take(number));
        }
        gone
    }

    fn take(&mut self, number: u64) -> Option<Group> {
        let group = self.groups.remove(&number)?;
        self.bytes -= group.bytes;
        for (record, _) in &*group.records {
            if self.entries.get(&record.id).is_some_and(|entry| entry.number == number) {
                self.entries.remove(&record.id);
            }
        }
        Some(group)
    }
}

/// What was recorded last. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recent {
    memory: Arc<Mutex<Memory>>,
    bytes_max: usize,
}

impl Recent {
    /// Keeps up to so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { memory: Arc::default(), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        // Nothing that holds the lock can panic half-way.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what a commit has just recorded; a group that is too large is not kept.
    pub fn keep(&self, group: Vec<Kept>) {
        let bytes = group.iter().map(|(record, _)| record.bytes() + ENTRY_BYTES).sum();
        if group.is_empty() || bytes > self.bytes_max {
            return;
        }
        let records = Arc::new(group);
        let since = Instant::now();
        let mut memory = self.lock();
        let gone = memory.shrink(self.bytes_max - bytes, since.checked_sub(AGE_MAX));
        let number = memory.next;
        memory.next += 1;
        for (place, (record, _)) in records.iter().enumerate() {
            let entry = Entry { group: records.clone(), place, number, date_created: None };
            memory.entries.insert(record.id, entry);
        }
        memory.bytes += bytes;
        memory.groups.insert(number, Group { left: records.len(), records, since, bytes });
        drop(memory);
        drop(gone);
    }

    /// The records at these keys, which were AVAILABLE a moment ago, with their data;
    /// `None` for each that is not here.
    #[must_use]
    pub fn records(&self, organisation: &OrganisationId, keys: &[Key]) -> Vec<Option<(Record, Bytes)>> {
        let entries: Vec<Option<Entry>> = {
            let mut memory = self.lock();
            let mut entry = |key: &Key| {
                let entry = memory.entries.get_mut(&key.id).filter(|entry| entry.is_of(organisation))?;
                entry.date_created = Some(key.date);
                Some(entry.clone())
            };
            keys.iter().map(&mut entry).collect()
        };
        let read = |(entry, key): (Option<Entry>, &Key)| {
            let entry = entry?;
            let (record, placement) = &entry.group[entry.place];
            Some((record.kept(*placement, key.date), record.data.clone()))
        };
        entries.into_iter().zip(keys).map(read).collect()
    }

    /// The batches of these as far as they are known here, each with those of them that
    /// it holds, ascending; and the others.
    #[must_use]
    pub fn batches(&self, organisation: &OrganisationId, ids: &[Uuid]) -> (Vec<Batch>, Vec<Uuid>) {
        let mut entries = Vec::with_capacity(ids.len());
        let mut unknown = Vec::new();
        {
            let memory = self.lock();
            for id in ids {
                let entry = memory.of(organisation, *id);
                match entry.and_then(|entry| Some((entry.date_created?, entry.clone()))) {
                    Some(entry) => entries.push(entry),
                    None => unknown.push(*id),
                }
            }
        }
        entries.sort_unstable_by(|(a_date, a), (b_date, b)| {
            let (a, b) = (a.record(), b.record());
            (a_date, &a.labels.poll, a.id).cmp(&(b_date, &b.labels.poll, b.id))
        });
        let same = |a: &(Micros, Entry), b: &(Micros, Entry)| {
            a.0 == b.0 && a.1.record().labels.poll == b.1.record().labels.poll
        };
        let batch = |entries: &[(Micros, Entry)]| Batch {
            date_created: entries[0].0,
            poll: entries[0].1.record().labels.poll.clone(),
            ids: entries.iter().map(|(_, entry)| entry.record().id).collect(),
        };
        (entries.chunk_by(same).map(batch).collect(), unknown)
    }

    /// Drops what is AVAILABLE no longer.
    pub fn forget(&self, organisation: &OrganisationId, ids: &[Uuid]) {
        let mut gone = Vec::new();
        let mut memory = self.lock();
        for id in ids {
            let Some(number) = memory.of(organisation, *id).map(|entry| entry.number) else { continue };
            memory.entries.remove(id);
            let Some(group) = memory.groups.get_mut(&number) else { continue };
            group.left -= 1;
            if group.left == 0 {
                gone.extend(memory.take(number));
            }
        }
        drop(memory);
        drop(gone);
    }

    /// Drops what is too old, also when nothing new comes, until it is to stop.
    pub async fn age(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(AGE_MAX / 4);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let gone = self.lock().shrink(self.bytes_max, Instant::now().checked_sub(AGE_MAX));
            drop(gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Labels;

    fn group(organisation: &str, sizes: &[usize]) -> Vec<Kept> {
        let kept = |size: &usize| {
            let labels = Labels {
                definition: "d".into(),
                poll: "p".into(),
                task: "t".into(),
                identifier: "i".into(),
                media_type: "m".into(),
            };
            let data = Bytes::from(vec![7; *size]);
            let record = NewRecord::new(organisation, &Uuid::now_v7().to_string(), labels, data).unwrap();
            (record, Placement { block: Uuid::from_u128(1), offset: 3 })
        };
        sizes.iter().map(kept).collect()
    }

    fn keys(group: &[Kept]) -> Vec<Key> {
        group.iter().map(|(record, _)| Key { date: Micros::from_raw(5), id: record.id }).collect()
    }

    fn ids(group: &[Kept]) -> Vec<Uuid> {
        group.iter().map(|(record, _)| record.id).collect()
    }

    fn organisation(name: &str) -> OrganisationId {
        name.parse().unwrap()
    }

    fn here(recent: &Recent, group: &[Kept]) -> Vec<bool> {
        recent.records(&group[0].0.organisation, &keys(group)).iter().map(Option::is_some).collect()
    }

    fn bytes(group: &[Kept]) -> usize {
        group.iter().map(|(record, _)| record.bytes() + ENTRY_BYTES).sum()
    }

    #[tokio::test]
    async fn a_record_is_as_it_was_recorded() {
        let recent = Recent::new(10_000);
        let group = group("acme", &[1, 0, 9]);
        recent.keep(group.clone());
        let found = recent.records(&organisation("acme"), &keys(&group));
        for ((record, placement), found) in group.iter().zip(found) {
            let (kept, data) = found.unwrap();
            assert_eq!((kept.id, &kept.labels, kept.checksum), (record.id, &record.labels, record.checksum));
            assert_eq!((kept.placement, kept.date_created.raw()), (Some(*placement), 5));
            assert_eq!((kept.size, data), (record.data.len() as u64, record.data.clone()));
        }
    }

    #[tokio::test]
    async fn what_is_anothers_is_not_found() {
        let recent = Recent::new(10_000);
        let group = group("acme", &[1]);
        recent.keep(group.clone());
        let other = organisation("globex");
        assert!(recent.records(&other, &keys(&group))[0].is_none());
        assert_eq!(here(&recent, &group), [true]);
        assert_eq!(recent.batches(&other, &ids(&group)), (vec![], ids(&group)));
        recent.forget(&other, &ids(&group));
        assert_eq!(here(&recent, &group), [true]);
    }

    #[tokio::test]
    async fn batches_are_known_of_what_was_listed() {
        let recent = Recent::new(10_000);
        let acme = organisation("acme");
        let mut group = group("acme", &[1, 1, 1, 1]);
        group[1].0.labels.poll = "o".into();
        recent.keep(group.clone());
        let mut keys = keys(&group);
        keys[3].date = Micros::from_raw(4);
        let _first = recent.records(&acme, &keys[..1]);
        let batch = |date, poll: &str, places: &[usize]| Batch {
            date_created: Micros::from_raw(date),
            poll: poll.into(),
            ids: places.iter().map(|place| group[*place].0.id).collect(),
        };
        let others = ids(&group[1..]);
        assert_eq!(recent.batches(&acme, &ids(&group)), (vec![batch(5, "p", &[0])], others));
        let _all = recent.records(&acme, &keys);
        let batches = vec![batch(4, "p", &[3]), batch(5, "o", &[1]), batch(5, "p", &[0, 2])];
        assert_eq!(recent.batches(&acme, &ids(&group)), (batches, vec![]));
    }

    #[tokio::test]
    async fn the_oldest_groups_go_when_there_are_too_many_bytes() {
        let groups = [group("acme", &[100]), group("acme", &[100, 100]), group("acme", &[100])];
        let recent = Recent::new(bytes(&groups[1]) + bytes(&groups[2]));
        for group in &groups {
            recent.keep(group.clone());
        }
        assert_eq!(here(&recent, &groups[0]), [false]);
        assert_eq!([here(&recent, &groups[1]), here(&recent, &groups[2])].concat(), [true; 3]);
        assert_eq!(recent.lock().bytes, recent.bytes_max);
    }

    #[tokio::test]
    async fn a_group_fits_or_is_not_kept() {
        let (fits, too_large) = (group("acme", &[10]), group("acme", &[11]));
        let recent = Recent::new(bytes(&fits));
        recent.keep(fits.clone());
        recent.keep(too_large.clone());
        assert_eq!([here(&recent, &fits), here(&recent, &too_large)].concat(), [true, false]);
        let none = Recent::new(0);
        none.keep(fits.clone());
        assert_eq!(here(&none, &fits), [false]);
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_dropped_and_a_group_with_its_last() {
        let recent = Recent::new(10_000);
        let group = group("acme", &[1, 1]);
        recent.keep(group.clone());
        for left in [vec![false, true], vec![false, false]] {
            let gone: Vec<Uuid> =
                ids(&group).iter().zip(&left).filter(|(_, left)| !**left).map(|(id, _)| *id).collect();
            recent.forget(&organisation("acme"), &gone);
            assert_eq!(here(&recent, &group), left);
        }
        let memory = recent.lock();
        assert_eq!((memory.bytes, memory.groups.len()), (0, 0));
    }

    #[tokio::test]
    async fn an_id_of_two_organisations_is_the_later_ones() {
        let recent = Recent::new(10_000);
        let first = group("acme", &[1]);
        let mut second = group("globex", &[2]);
        second[0].0.id = first[0].0.id;
        recent.keep(first.clone());
        recent.keep(second.clone());
        assert_eq!([here(&recent, &first), here(&recent, &second)].concat(), [false, true]);
        drop(recent.lock().take(0));
        assert_eq!(here(&recent, &second), [true]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_old_goes_also_when_nothing_new_comes() {
        let (recent, stop) = (Recent::new(10_000), CancellationToken::new());
        let ageing = tokio::spawn(recent.clone().age(stop.clone()));
        let group = group("acme", &[1]);
        recent.keep(group.clone());
        tokio::time::sleep(AGE_MAX - Duration::from_secs(1)).await;
        assert_eq!(here(&recent, &group), [true]);
        tokio::time::sleep(AGE_MAX / 4 + Duration::from_secs(1)).await;
        assert_eq!(here(&recent, &group), [false]);
        stop.cancel();
        ageing.await.unwrap();
    }
}
