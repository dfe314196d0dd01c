//! One object on its way to a store, in parts: while one part is being sent the
//! next one gathers, and no more than these two are in memory.

use std::sync::Arc;

use bytes::Bytes;
use object_store::{MultipartId, MultipartUpload, PutPayload, multipart::PartId, path::Path};
use tokio::task::JoinSet;

use super::store::{Cloud, StoreError};

const MEBIBYTE: usize = 1024 * 1024;
/// Providers take up to 10,000 parts.
const PARTS_MAX: usize = 10_000;

/// The size of a part by its number: small at first, larger for files that need
/// many, so that about 190 GiB fit. Two of the largest are what is in memory at most.
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
    /// As it came, not copied.
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
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
        Self { target, gathered: Vec::new(), gathered_bytes: 0, number: 0, sending: JoinSet::new() }
    }

    /// The provider's name for it, if it has one: what is needed to abort it.
    #[must_use]
    pub fn multipart(&self) -> Option<&str> {
        match &self.target {
            Target::Named { id, .. } => Some(id),
            Target::Unnamed(_) => None,
        }
    }

    /// Takes the next bytes; waits when two parts are in memory.
    ///
    /// # Errors
    /// See [`StoreError`]: the upload is to be aborted then.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let room = part_bytes(self.number) - self.gathered_bytes;
            let taken = bytes.split_to(room.min(bytes.len()));
            self.gathered_bytes += taken.len();
            self.gathered.push(taken);
            if self.gathered_bytes == part_bytes(self.number) {
                self.send().await?;
            }
        }
        Ok(())
    }

    /// Completes the object.
    ///
    /// # Errors
    /// See [`StoreError`]: it may be complete all the same.
    pub async fn finish(mut self) -> Result<(), StoreError> {
        if !self.gathered.is_empty() || self.number == 0 {
            self.send().await?;
        }
        self.sent().await?;
        match self.target {
            Target::Named { client, key, id, parts } => {
                drop(client.complete_multipart(&key, &id, parts).await?)
            }
            Target::Unnamed(mut upload) => drop(upload.complete().await?),
        }
        Ok(())
    }

    /// Waits for the part before, and begins to send what was gathered.
    async fn send(&mut self) -> Result<(), StoreError> {
        self.sent().await?;
        if self.number >= PARTS_MAX {
            return Err(StoreError::TooLarge);
        }
        let payload: PutPayload = std::mem::take(&mut self.gathered).into_iter().collect();
        self.gathered_bytes = 0;
        let number = self.number;
        self.number += 1;
        match &mut self.target {
            Target::Named { client, key, id, .. } => {
                let (client, key, id) = (client.clone(), key.clone(), id.clone());
                self.sending
                    .spawn(async move { Ok(Some(client.put_part(&key, &id, number, payload).await?)) });
            }
            Target::Unnamed(upload) => {
                let sending = upload.put_part(payload);
                self.sending.spawn(async move {
                    sending.await?;
                    Ok(None)
                });
            }
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
    fn two_parts_stay_below_64_mebibytes_and_a_large_file_fits() {
        assert!((0..PARTS_MAX).all(|number| 2 * part_bytes(number) < 64 * MEBIBYTE));
        let all: usize = (0..PARTS_MAX).map(part_bytes).sum();
        assert_eq!(all / MEBIBYTE / 1024, 187);
    }
}
