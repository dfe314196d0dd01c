//! Calling another service: the token that goes along with every call.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

use crate::follow::{Unusable, follow_text};

/// Puts a bearer token into every call. Clones share it.
#[derive(Clone)]
pub struct TokenInterceptor {
    authorization: Arc<ArcSwap<MetadataValue<Ascii>>>,
}

fn authorization(token: &str) -> Result<MetadataValue<Ascii>, String> {
    if token.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    let value = format!("Bearer {}", token.trim()).parse();
    let mut value: MetadataValue<Ascii> = value.map_err(|_| "not a token".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

impl TokenInterceptor {
    /// An interceptor for one token.
    ///
    /// # Errors
    /// If it is empty or has characters that no header can hold.
    pub fn new(token: &str) -> Result<Self, String> {
        Ok(Self { authorization: Arc::new(ArcSwap::from_pointee(authorization(token)?)) })
    }

    /// An interceptor for the token in a file.
    ///
    /// # Errors
    /// If the file can't be read, or as [`Self::new`].
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|fault| fault.to_string());
        text.and_then(|token| Self::new(&token)).map_err(|fault| format!("{}: {fault}", path.display()))
    }

    /// Follows changes of the file that holds the token, until shutdown. A file that
    /// can't be read or holds no token leaves it as it is, is logged once, and told of by
    /// the name of its setting.
    pub async fn follow(
        self,
        setting: &'static str,
        path: PathBuf,
        unusable: Unusable,
        shutdown: CancellationToken,
    ) {
        follow_text(unusable.of(setting), path, shutdown, |token| {
            let value = authorization(token)?;
            if **self.authorization.load() != value {
                tracing::info!("token reloaded");
                self.authorization.store(Arc::new(value));
            }
            Ok(())
        })
        .await;
    }
}

impl std::fmt::Debug for TokenInterceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenInterceptor")
    }
}

impl Interceptor for TokenInterceptor {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", (**self.authorization.load()).clone());
        Ok(request)
    }
}
