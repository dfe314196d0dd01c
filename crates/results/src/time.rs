//! Moments as PostgreSQL keeps them: whole microseconds, and the way from and
//! to protobuf. Nothing here can overflow or panic.

use std::error::Error as StdError;

use bytes::BytesMut;
use prost_types::Timestamp;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

/// Seconds from the Unix epoch to PostgreSQL's, 2000-01-01.
const POSTGRES_EPOCH_SECONDS: i64 = 946_684_800;
const MICROS_PER_SECOND: i64 = 1_000_000;
const NANOS_PER_MICRO: i32 = 1000;
const NANOS_PER_SECOND: i32 = 1_000_000_000;
/// 0001-01-01 and 9999-12-31T23:59:59, the range of protobuf's Timestamp.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A `timestamptz`: microseconds since 2000-01-01 UTC. The ends of the range
/// are PostgreSQL's `-infinity` and `infinity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(i64);

impl Micros {
    /// Before every moment: `-infinity`.
    pub const BEFORE_ALL: Self = Self(i64::MIN);
    /// After every moment: `infinity`.
    pub const AFTER_ALL: Self = Self(i64::MAX);

    /// From the number kept in a page token.
    #[must_use]
    pub fn from_raw(micros: i64) -> Self {
        Self(micros)
    }

    /// The number, for a page token.
    #[must_use]
    pub fn raw(self) -> i64 {
        self.0
    }

    /// The last microsecond at or before a protobuf timestamp, and whether it
    /// is that very moment. `None`: outside of protobuf's range.
    #[must_use]
    pub fn floor(timestamp: &Timestamp) -> Option<(Self, bool)> {
        let nanos_fit = (0..NANOS_PER_SECOND).contains(&timestamp.nanos);
        if !nanos_fit || !TIMESTAMP_SECONDS.contains(&timestamp.seconds) {
            return None;
        }
        let whole = (timestamp.seconds - POSTGRES_EPOCH_SECONDS) * MICROS_PER_SECOND;
        let part = timestamp.nanos / NANOS_PER_MICRO;
        Some((Self(whole + i64::from(part)), timestamp.nanos % NANOS_PER_MICRO == 0))
    }

    /// Whether callers can be told it: of the years 1 to 9999. The database takes no
    /// moment that is far beyond.
    #[must_use]
    pub fn is_tellable(self) -> bool {
        TIMESTAMP_SECONDS.contains(&Timestamp::from(self).seconds)
    }

    /// The next microsecond.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl From<Micros> for Timestamp {
    fn from(moment: Micros) -> Self {
        let micros = moment.0.saturating_add(POSTGRES_EPOCH_SECONDS * MICROS_PER_SECOND);
        let below_second = micros.rem_euclid(MICROS_PER_SECOND);
        Self {
            seconds: micros.div_euclid(MICROS_PER_SECOND),
            // Below a thousand million by the line above.
            nanos: i32::try_from(below_second).unwrap_or(0) * NANOS_PER_MICRO,
        }
    }
}

impl<'a> FromSql<'a> for Micros {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(i64::from_be_bytes(raw.try_into()?)))
    }

    fn accepts(sql_type: &Type) -> bool {
        *sql_type == Type::TIMESTAMPTZ
    }
}

impl ToSql for Micros {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }

    fn accepts(sql_type: &Type) -> bool {
        *sql_type == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_comes_back_to_the_microsecond() {
        for (seconds, nanos) in [(0, 0), (1_582_977_555, 110_451_000), (-1, 999_999_000)] {
            let timestamp = Timestamp { seconds, nanos };
            let (moment, exact) = Micros::floor(&timestamp).unwrap();
            assert!(exact);
            assert_eq!(Timestamp::from(moment), timestamp);
        }
    }

    #[test]
    fn finer_than_a_microsecond_is_floored_and_said() {
        let (moment, exact) = Micros::floor(&Timestamp { seconds: 5, nanos: 1999 }).unwrap();
        assert!(!exact);
        assert_eq!(Timestamp::from(moment), Timestamp { seconds: 5, nanos: 1000 });
    }

    #[test]
    fn what_protobuf_does_not_know_is_refused() {
        for (seconds, nanos) in
            [(i64::MAX, 0), (i64::MIN, 0), (253_402_300_800, 0), (0, -1), (0, 1_000_000_000)]
        {
            assert!(Micros::floor(&Timestamp { seconds, nanos }).is_none(), "{seconds} {nanos}");
        }
        assert!(Micros::floor(&Timestamp { seconds: 253_402_300_799, nanos: 999_999_999 }).is_some());
        assert!(Micros::floor(&Timestamp { seconds: -62_135_596_800, nanos: 0 }).is_some());
    }

    #[test]
    fn only_the_years_of_protobuf_can_be_told() {
        let edge = |seconds, nanos| Micros::floor(&Timestamp { seconds, nanos }).unwrap().0.raw();
        let (first, last) = (edge(-62_135_596_800, 0), edge(253_402_300_799, 999_999_999));
        for (micros, tellable) in [
            (i64::MIN, false),
            (i64::MIN + 1, false),
            (first - 1, false),
            (first, true),
            (0, true),
            (last, true),
            (last + 1, false),
            (i64::MAX - 1, false),
            (i64::MAX, false),
        ] {
            assert_eq!(Micros::from_raw(micros).is_tellable(), tellable, "{micros}");
        }
    }

    #[test]
    fn the_ends_do_not_overflow() {
        let _far = Timestamp::from(Micros::AFTER_ALL);
        let _long_ago = Timestamp::from(Micros::BEFORE_ALL);
        assert_eq!(Micros::AFTER_ALL.next(), Micros::AFTER_ALL);
    }
}
