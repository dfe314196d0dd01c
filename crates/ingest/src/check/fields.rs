//! The rules for an observation's fields, whatever its content.

use super::fault;
use crate::{
    observation::{Content, FIELD_BYTES_MAX, File, Observation, TYPE_BYTES_MAX},
    outcome::Fault,
};

/// The fields beside the content, each alone.
pub(super) fn check_fields(observation: &Observation) -> Result<(), Fault> {
    let fields = [
        ("chkpt", &observation.chkpt, FIELD_BYTES_MAX),
        ("identifier", &observation.identifier, FIELD_BYTES_MAX),
        ("poll", &observation.poll, FIELD_BYTES_MAX),
        ("task", &observation.task, FIELD_BYTES_MAX),
        ("type", &observation.media_type, TYPE_BYTES_MAX),
    ];
    for (name, text, bytes_max) in fields {
        if text.len() > bytes_max {
            return Err(fault("INVALID_FIELD", format!("{name}: must be up to {bytes_max} bytes")));
        }
        if text.contains('\0') {
            return Err(fault("INVALID_FIELD", format!("{name}: must not hold U+0000")));
        }
    }
    if !observation.media_type.is_empty() && !is_media_type(&observation.media_type) {
        return Err(fault("INVALID_FIELD", "type: must be a media type such as application/json (RFC 9110)"));
    }
    if let Content::File(File { checksum, .. }) = &observation.content
        && !checksum.is_empty()
        && !(checksum.len() == 32 && checksum.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return Err(fault("INVALID_FIELD", "checksum: must be an MD5 as 32 hex digits"));
    }
    Ok(())
}

/// `type/subtype` of token characters, then anything printable (RFC 9110, 8.3.1).
fn is_media_type(text: &str) -> bool {
    let is_token = |token: &str| {
        !token.is_empty()
            && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let parameters_clean = parameters.bytes().all(|b| (b' '..=b'~').contains(&b) || b == b'\t');
    parameters_clean
        && essence
            .trim_end_matches([' ', '\t'])
            .split_once('/')
            .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

/// Whether an observation's content has to be JSON: it was given as JSON, or is
/// of a JSON type. A file of no declared type is not.
#[must_use]
pub fn must_be_json(observation: &Observation) -> bool {
    let media_type = &observation.media_type;
    match observation.content {
        Content::Json(_) | Content::Body(_) => true,
        Content::File(_) => is_json(media_type),
        Content::Data(_) | Content::Absent => media_type.is_empty() || is_json(media_type),
    }
}

/// Whether a media type's data is JSON.
fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}
