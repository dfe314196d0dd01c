//! The whole tower stack in one function, outermost first.

use std::sync::Arc;

use tower::layer::util::{Identity, Stack};

use crate::{
    answers::AnswersLayer,
    auth::{AuthLayer, Keys},
};

/// Outermost first. tonic's own transport stack sits outside of it.
pub(crate) fn stack(keys: Arc<Keys>) -> Stack<AuthLayer, Stack<AnswersLayer, Identity>> {
    // 1. Answers: the deadline counts from the first byte of the headers, and
    //    nothing inside answers in tonic's words.
    let stack = Stack::new(AnswersLayer, Identity::new());
    // 2. Auth: the token and its scope are settled before a body is read.
    Stack::new(AuthLayer::new(keys), stack)
}
