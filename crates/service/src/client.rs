//! Calling another service: the token that goes along with every call.

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

/// Puts a bearer token into every call.
#[derive(Clone)]
pub struct TokenInterceptor {
    authorization: MetadataValue<Ascii>,
}

impl TokenInterceptor {
    /// An interceptor for one token.
    ///
    /// # Errors
    /// If the token has characters that no header can hold.
    pub fn new(token: &str) -> Result<Self, String> {
        let mut authorization: MetadataValue<Ascii> =
            format!("Bearer {}", token.trim()).parse().map_err(|_| "not a token".to_owned())?;
        authorization.set_sensitive(true);
        Ok(Self { authorization })
    }
}

impl std::fmt::Debug for TokenInterceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenInterceptor")
    }
}

impl Interceptor for TokenInterceptor {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.authorization.clone());
        Ok(request)
    }
}
