//! The whole tower stack in one function, outermost first.

use std::sync::Arc;

use tower::layer::util::{Identity, Stack};

use crate::{
    auth::{AuthLayer, Keys},
    translate::TranslateLayer,
};

/// Outermost first: the token and its scope are settled before a body is read;
/// what tonic then says of the body by itself is put into the contract's words.
/// (tonic's own transport stack sits outside of it and honours `grpc-timeout`.)
pub(crate) fn stack(keys: Arc<Keys>) -> Stack<TranslateLayer, Stack<AuthLayer, Identity>> {
    Stack::new(TranslateLayer, Stack::new(AuthLayer::new(keys), Identity::new()))
}
