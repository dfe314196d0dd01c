//! Health and reflection: calls that need no token, since they tell nothing of any
//! organisation. So anybody can make them, and what they take up is bounded apart from
//! what all others do.

use http::Request;

use crate::stack::is_grpc;

const HEALTH: &str = "/grpc.health.v1.Health/";
const REFLECTION: [&str; 2] =
    ["/grpc.reflection.v1.ServerReflection/", "/grpc.reflection.v1alpha.ServerReflection/"];

/// A call that needs no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoToken {
    Health,
    Reflection,
}

impl NoToken {
    /// Most health calls at the same time, and half of that without a valid token: those
    /// that watch stay, one for each channel of a caller.
    pub(crate) const HEALTH_MAX: usize = 1024;
    /// Most reflection streams at the same time, and half of that without a valid token.
    /// Each may hold some answers, and what was sent and is not read.
    pub(crate) const REFLECTION_MAX: usize = 64;
    /// Largest message of a caller, which is a name.
    pub(crate) const MESSAGE_BYTES_MAX: usize = 4096;

    /// Bytes of all of them together: each finds room that has a place.
    pub(crate) const BODY_BYTES_MAX: usize =
        2 * (Self::HEALTH_MAX + Self::REFLECTION_MAX) * Self::MESSAGE_BYTES_MAX;

    /// What gRPC's path is of, if it is of these.
    pub(crate) fn at(path: &str) -> Option<Self> {
        if path.starts_with(HEALTH) {
            return Some(Self::Health);
        }
        REFLECTION.iter().any(|service| path.starts_with(service)).then_some(Self::Reflection)
    }

    /// What a request is, if it is one of these.
    pub(crate) fn of<B>(request: &Request<B>) -> Option<Self> {
        Self::at(request.uri().path()).filter(|_| is_grpc(request))
    }
}
