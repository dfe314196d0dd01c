//! Reconciling: what a storage holds of an organisation against the records, in
//! both directions. It reports and changes nothing, in bounded memory.

use std::collections::HashSet;

use futures_util::{StreamExt, TryStreamExt, future, stream::BoxStream};
use sluice_proto::results::v1::{
    ReconcileStorageConfigRequest, ReconcileStorageConfigResponse as Report,
    reconcile_storage_config_response::Finding,
};
use sluice_service::{Error, Kind, auth::Access};
use tokio::sync::mpsc;
use tokio_postgres::{Row, types::ToSql};
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

use crate::{
    configs::{Configs, stores::Stores},
    result::parse_id,
    sessions::Tenants,
    storage::{
        place::id_of,
        store::{Listed, Store, StoreError},
    },
    storage_config::StorageConfig,
    time::Micros,
};

/// Objects that are looked up together.
const LOOKED_UP_AT_ONCE: usize = 1000;
/// Objects whose size is asked for at the same time.
const SIZES_AT_ONCE: usize = 16;
/// Findings that may wait for the caller.
const WAITING_MAX: usize = 64;

/// Reconciles. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reconciler {
    /// Sessions that see the organisation's rows.
    pub tenants: Tenants,
    /// The storage configs.
    pub configs: Configs,
    /// What they open.
    pub stores: Stores,
}

/// One run.
struct Run {
    tenants: Tenants,
    config: StorageConfig,
    store: Store,
    reports: mpsc::Sender<Result<Report, Error>>,
    objects: u64,
    records: u64,
}

fn away(error: StoreError) -> Error {
    Error::unavailable("the storage can't be read now").because(error)
}

impl Reconciler {
    /// Begins to compare; the findings, and at the end the counts.
    ///
    /// # Errors
    /// NOT_FOUND; FAILED_PRECONDITION for type `db`; UNAVAILABLE.
    pub async fn reconcile(
        &self,
        access: &Access,
        request: ReconcileStorageConfigRequest,
    ) -> Result<BoxStream<'static, Result<Report, Error>>, Error> {
        let organisation = access.organisation(&request.organisation)?;
        let id = parse_id(&request.id).ok_or_else(|| Error::not_found("storage config"))?;
        let config = self.configs.get(&organisation, id).await?;
        if config.is_in_database() {
            let text = "type db writes data and record together: there is nothing to compare";
            return Err(Error::new(Kind::FailedPrecondition, "NOTHING_TO_COMPARE", text));
        }
        let unusable = |why: String| Error::unavailable("the storage is not usable now").because(why);
        let store = self.stores.open(&config).map_err(unusable)?;
        let (reports, received) = mpsc::channel(WAITING_MAX);
        let mut run = Run { tenants: self.tenants.clone(), config, store, reports, objects: 0, records: 0 };
        tokio::spawn(async move {
            let caller = run.reports.clone();
            let ended = tokio::select! {
                ended = run.compare() => ended,
                // The caller has gone.
                () = caller.closed() => return,
            };
            let last = ended.map(|()| run.report(Finding::Unspecified, String::new(), String::new()));
            let _gone = run.reports.send(last).await;
        });
        Ok(ReceiverStream::new(received).boxed())
    }
}

impl Run {
    async fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        self.tenants.query(&self.config.organisation, sql, params).await
    }

    async fn compare(&mut self) -> Result<(), Error> {
        let (place, organisation) = (self.config.place.clone(), self.config.organisation.clone());
        let its = self.store.list(&place.folder(&organisation));
        let its = its.try_filter(|object| future::ready(place.holds(&organisation, &object.key)));
        let mut listed = its.chunks(LOOKED_UP_AT_ONCE);
        while let Some(page) = listed.next().await {
            let page: Vec<Listed> = page.into_iter().collect::<Result<_, _>>().map_err(away)?;
            self.without_record(page).await?;
        }
        let (mut date, mut id) = (Micros::BEFORE_ALL, Uuid::nil());
        loop {
            let params: [&(dyn ToSql + Sync); 4] =
                [&self.config.organisation.as_str(), &date, &id, &self.config.id];
            let rows = self.query(include_str!("sql/records_of_config.sql"), &params).await?;
            let mut records = Vec::new();
            let mut last = None;
            for row in rows {
                match row.try_get::<_, Option<i64>>("size")? {
                    Some(size) => records.push((row.try_get("id")?, size.unsigned_abs())),
                    None => last = Some((row.try_get("date_created")?, row.try_get("id")?)),
                }
            }
            let Some(next) = last else { return Ok(()) };
            (date, id) = next;
            self.without_object(records).await?;
        }
    }

    async fn without_record(&mut self, page: Vec<Listed>) -> Result<(), Error> {
        let ids: Vec<Uuid> = page.iter().filter_map(|object| id_of(&object.key)).collect();
        let url = self.config.place.to_string();
        let params: [&(dyn ToSql + Sync); 3] = [&self.config.organisation.as_str(), &ids, &url];
        let rows = self.query(include_str!("sql/keepers.sql"), &params).await?;
        let kept: HashSet<Uuid> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        for object in page {
            self.objects += 1;
            let id = id_of(&object.key);
            if !id.is_some_and(|id| kept.contains(&id)) {
                let url = self.config.place.url_of_key(&object.key);
                let id = id.map(|id| id.to_string()).unwrap_or_default();
                self.tell(self.report(Finding::ObjectWithoutRecord, url, id)).await;
            }
        }
        Ok(())
    }

    async fn without_object(&mut self, records: Vec<(Uuid, u64)>) -> Result<(), Error> {
        let (store, config) = (self.store.clone(), self.config.clone());
        let measuring = records.into_iter().map(move |(id, size)| {
            let (store, key) = (store.clone(), config.object(id));
            async move { store.size(&key).await.map(|found| (id, size, found)).map_err(away) }
        });
        let mut measured = futures_util::stream::iter(measuring).buffered(SIZES_AT_ONCE);
        while let Some((id, size, found)) = measured.try_next().await? {
            self.records += 1;
            if found != Some(size) && !self.has_expired(id).await? {
                let url = self.config.place.url_of(&self.config.organisation, id);
                self.tell(self.report(Finding::RecordWithoutObject, url, id.to_string())).await;
            }
        }
        Ok(())
    }

    /// The clean-up goes on meanwhile.
    async fn has_expired(&self, id: Uuid) -> Result<bool, Error> {
        let params: [&(dyn ToSql + Sync); 2] = [&self.config.organisation.as_str(), &id];
        let rows = self.query(include_str!("sql/get.sql"), &params).await?;
        rows.first().map_or(Ok(true), |row| Ok(row.try_get("expired")?))
    }

    fn report(&self, finding: Finding, url: String, id: String) -> Report {
        Report { finding: finding.into(), url, id, objects: self.objects, records: self.records }
    }

    async fn tell(&self, report: Report) {
        let _gone = self.reports.send(Ok(report)).await;
    }
}
