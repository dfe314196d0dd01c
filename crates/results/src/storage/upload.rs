//! One object on its way to a store, in parts, one after the other. Whoever has them sent
//! gathers the next one meanwhile.

use std::sync::Arc;

use bytes::Bytes;
use object_store::{MultipartId, MultipartUpload, PutPayload, multipart::PartId, path::Path};
use tokio::task::JoinSet;

use super::store::{Cloud, StoreError};

const MEBIBYTE: usize = 1024 * 1024;
/// Providers take up to 10,000 parts.
const PARTS_MAX: usize = 10_000;

/// The size of a part by its number: small at first, larger for files that need
/// many, so that about 190 GiB fit.
#[must_use]
pub fn part_bytes(number: usize) -> usize {
    match number {
        0..1_000 => 8 * MEBIBYTE,
        1_000..5_000 => 16 * MEBIBYTE,
        _ => 24 * MEBIBYTE,
    }
}

enum Target {
    /// Of a provider that keeps parts under a name.
    Named { client: Arc<dyn Cloud>, key: Path, id: MultipartId, parts: Vec<PartId> },
    /// Of one that does not, or of a directory.
    Unnamed(Box<dyn MultipartUpload>),
}

/// An object being written.
pub struct Upload {
    target: Target,
    number: usize,
    /// The part being sent.
    sending: JoinSet<Result<Option<PartId>, StoreError>>,
}

impl Upload {
    pub(super) fn named(client: Arc<dyn Cloud>, key: Path, id: MultipartId) -> Self {
        Self::new(Target::Named { client, key, id, parts: Vec::new() })
    }

    pub(super) fn unnamed(upload: Box<dyn MultipartUpload>) -> Self {
        Self::new(Target::Unnamed(upload))
    }

    fn new(target: Target) -> Self {
        Self { target, number: 0, sending: JoinSet::new() }
    }

    /// The provider's name for it, if it has one: what is needed to abort it.
    #[must_use]
    pub fn multipart(&self) -> Option<&str> {
        match &self.target {
            Target::Named { id, .. } => Some(id),
            Target::Unnamed(_) => None,
        }
    }

    /// How many parts were sent, or are.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.number
    }

    /// Waits for the part before, and begins to send the next one, of the size that its
    /// number says; the last may be smaller. What it `holds` is dropped when it was sent.
    ///
    /// # Errors
    /// See [`StoreError`]: the upload is to be aborted then.
    pub async fn send(&mut self, part: Bytes, holds: impl Send + 'static) -> Result<(), StoreError> {
        self.sent().await?;
        if self.number >= PARTS_MAX {
            return Err(StoreError::TooLarge);
        }
        let payload = PutPayload::from_bytes(part);
        let number = self.number;
        self.number += 1;
        match &mut self.target {
            Target::Named { client, key, id, .. } => {
                let (client, key, id) = (client.clone(), key.clone(), id.clone());
                self.sending.spawn(async move {
                    let _holds = holds;
                    Ok(Some(client.put_part(&key, &id, number, payload).await?))
                });
            }
            Target::Unnamed(upload) => {
                let sending = upload.put_part(payload);
                self.sending.spawn(async move {
                    let _holds = holds;
                    sending.await?;
                    Ok(None)
                });
            }
        }
        Ok(())
    }

    /// Completes the object, of which at least one part was sent.
    ///
    /// # Errors
    /// See [`StoreError`]: it may be complete all the same.
    pub async fn finish(mut self) -> Result<(), StoreError> {
        self.sent().await?;
        match self.target {
            Target::Named { client, key, id, parts } => {
                drop(client.complete_multipart(&key, &id, parts).await?)
            }
            Target::Unnamed(mut upload) => drop(upload.complete().await?),
        }
        Ok(())
    }

    async fn sent(&mut self) -> Result<(), StoreError> {
        while let Some(sent) = self.sending.join_next().await {
            let part = sent.map_err(|_| StoreError::Failed)??;
            if let (Target::Named { parts, .. }, Some(part)) = (&mut self.target, part) {
                parts.push(part);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_below_32_mebibytes_and_a_large_file_fits() {
        assert!((0..PARTS_MAX).all(|number| part_bytes(number) < 32 * MEBIBYTE));
        let all: usize = (0..PARTS_MAX).map(part_bytes).sum();
        assert_eq!(all / MEBIBYTE / 1024, 187);
    }
}
