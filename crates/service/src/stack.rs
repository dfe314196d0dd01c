//! The whole tower stack in one function, outermost first.

use std::sync::Arc;

use tower::layer::util::{Identity, Stack};

use crate::auth::{AuthLayer, Keys};

/// Outermost first: the token and its scope are settled before a body is read.
/// (tonic's own transport stack sits outside of it and honours `grpc-timeout`.)
pub(crate) fn stack(keys: Arc<Keys>) -> Stack<AuthLayer, Identity> {
    Stack::new(AuthLayer::new(keys), Identity::new())
}
