//! A row of the outbox on its way.

use std::sync::Arc;

use sluice_proto::results::v1::ResultBatch;
use sluice_service::OrganisationId;
use uuid::Uuid;

use crate::outbox::{self, OutboxRow};

/// A row on its way. What it counts for in a call stays known without its message.
#[derive(Debug)]
pub struct Row {
    /// Its key in the outbox.
    pub id: Uuid,
    /// Whose results they are.
    pub organisation: OrganisationId,
    /// Results and discarded files in it.
    pub items: usize,
    /// Bytes of its message; as kept, while nobody has looked into it.
    pub bytes: usize,
    /// The message, if it is in memory.
    pub message: Option<Arc<ResultBatch>>,
}

impl Row {
    /// One that was committed just now.
    #[must_use]
    pub fn committed(row: OutboxRow) -> Self {
        let mut committed =
            Self { id: row.id, organisation: row.organisation, items: 0, bytes: 0, message: None };
        committed.count(&row.message);
        committed.message = Some(row.message);
        committed
    }

    /// One found in the database: what is kept tells how many results it holds.
    #[must_use]
    pub fn found(id: Uuid, organisation: OrganisationId, results: usize, bytes: usize) -> Self {
        Self { id, organisation, items: results.max(1), bytes, message: None }
    }

    /// Takes its counts from its message.
    pub fn count(&mut self, message: &ResultBatch) {
        self.items = message.results.len() + message.discarded_files.len();
        self.bytes = outbox::batch_bytes(message);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        if self.message.is_some() { self.bytes } else { 0 }
    }
}
