//! A `google.protobuf.Struct` that is not looked into while the message around
//! it is decoded. Decoded at once, one that is nested too deep would spoil the
//! whole request; so it spoils only what holds it.

use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut},
    encoding::{self, DecodeContext, WireType},
};
use prost_types::Struct;

/// The number of `Struct.fields`.
const FIELDS: u32 = 1;

/// An encoded Struct.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LazyStruct {
    encoded: Vec<u8>,
}

impl LazyStruct {
    /// About how long the JSON text is that a Struct of so many encoded bytes becomes, at
    /// most: only control characters take more, six bytes for one.
    #[must_use]
    pub const fn text_bytes_max(encoded: usize) -> usize {
        encoded.saturating_mul(5) / 2
    }

    /// Looks into it.
    ///
    /// # Errors
    /// If it is malformed, or nested deeper than some 30 levels.
    pub fn decode(&self) -> Result<Struct, DecodeError> {
        Struct::decode(&self.encoded[..])
    }
}

impl From<Struct> for LazyStruct {
    fn from(decoded: Struct) -> Self {
        Self { encoded: decoded.encode_to_vec() }
    }
}

impl Message for LazyStruct {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(&self.encoded);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != FIELDS {
            return encoding::skip_field(wire_type, tag, buffer, context);
        }
        let mut field = Vec::new();
        encoding::bytes::merge(wire_type, &mut field, buffer, context)?;
        encoding::bytes::encode(tag, &field, &mut self.encoded);
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.encoded.len()
    }

    fn clear(&mut self) {
        self.encoded.clear();
    }
}
