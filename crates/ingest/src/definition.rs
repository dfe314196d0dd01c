//! A definition as a value: what exists is valid. Made from a caller's request
//! or from a row; used by the check and the gate.

use std::{fmt, str::FromStr, time::Duration};

use sluice_service::{OrganisationId, Violation};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{json, schema::Schema};

/// Longest path, in bytes.
pub const PATH_BYTES_MAX: usize = 255;
/// Longest description, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 4096;
/// Most JSON pointers in `unique_by`, and the longest one, in bytes.
pub const UNIQUE_BY_MAX: usize = 32;
const POINTER_BYTES_MAX: usize = 512;
/// What makes observations equal when the definition does not say.
const UNIQUE_BY_DEFAULT: &str = "/keys";

/// The name of a definition, such as `security/bf/excessive-logins`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DefinitionPath(String);

impl DefinitionPath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DefinitionPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let clean = |segment: &str| {
            !segment.is_empty()
                && segment != "."
                && segment != ".."
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:~@+-".contains(&b))
        };
        if text.len() <= PATH_BYTES_MAX && text.split('/').all(clean) {
            Ok(Self(text.into()))
        } else {
            Err(format!(
                "must be segments of letters, digits and ._:~@+- joined by /, up to {PATH_BYTES_MAX} bytes"
            ))
        }
    }
}

impl fmt::Display for DefinitionPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many observations are let in per window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// Acceptances per window, at least 1.
    pub count: u32,
    /// Length of a window in whole seconds, at least 1.
    pub period_seconds: i64,
}

/// What a caller may say about a definition. Parsed: every rule holds.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The tenant; `None` is system-wide.
    pub organisation: Option<OrganisationId>,
    /// Its name.
    pub path: DefinitionPath,
    /// For people.
    pub description: String,
    /// How long an acceptance suppresses equal observations, in whole seconds.
    pub unique_seconds: Option<i64>,
    /// As given; empty means the default.
    pub unique_by: Vec<String>,
    /// The throttle, if any.
    pub throttle: Option<Throttle>,
    /// Draft 2020-12; empty means none.
    pub json_schema: String,
    /// Where results are kept; `None` is the organisation's default.
    pub storage_config: Option<Uuid>,
    /// Whether observations of it are refused.
    pub disabled: bool,
}

/// What a caller wrote, before it is known to hold.
#[derive(Clone, Debug, Default)]
pub struct RawDraft {
    /// See [`Draft`].
    pub organisation: Option<OrganisationId>,
    /// See [`Draft`].
    pub path: String,
    /// See [`Draft`].
    pub description: String,
    /// `Err`: not a whole number of seconds, and why.
    pub unique: Option<Result<i64, String>>,
    /// See [`Draft`].
    pub unique_by: Vec<String>,
    /// 0 is absent.
    pub throttle_count: u32,
    /// As `unique`.
    pub throttle_period: Option<Result<i64, String>>,
    /// See [`Draft`].
    pub json_schema: String,
    /// A UUID, or empty.
    pub storage_config: String,
    /// See [`Draft`].
    pub disabled: bool,
}

impl RawDraft {
    /// Checks every rule. `retention` is how long the gate's state is kept:
    /// a longer window would silently be shortened, so it is refused.
    ///
    /// # Errors
    /// Every field that is wrong.
    pub fn check(self, retention: Duration) -> Result<Draft, Vec<Violation>> {
        let mut faults = Faults(Vec::new());
        let path = faults.keep("path", self.path.parse::<DefinitionPath>());
        let unique_seconds = self.unique.and_then(|given| faults.window("unique", given, retention));
        let period_given = self.throttle_period.is_some();
        let period =
            self.throttle_period.and_then(|given| faults.window("throttle_period", given, retention));
        let throttle = match (self.throttle_count, period) {
            (0, None) => None,
            // Its fault is named already.
            (_, None) if period_given => None,
            (count, Some(period_seconds)) if count > 0 => Some(Throttle { count, period_seconds }),
            (0, Some(_)) => faults.add("throttle_count", "must be at least 1 with throttle_period"),
            (_, _) => faults.add("throttle_period", "must be given with throttle_count"),
        };
        if self.description.len() > DESCRIPTION_BYTES_MAX || self.description.contains('\0') {
            faults.add::<()>("description", "must be up to 4096 bytes without U+0000");
        }
        if let Err(fault) = check_pointers(&self.unique_by) {
            faults.add::<()>("unique_by", &fault);
        }
        if !self.json_schema.is_empty()
            && let Err(fault) = Schema::accept(&self.json_schema)
        {
            faults.add::<()>("json_schema", &fault);
        }
        let storage_config = match self.storage_config.as_str() {
            "" => None,
            _ if self.organisation.is_none() => {
                faults.add("storage_config", "a system-wide definition names none")
            }
            text => faults.keep("storage_config", text.parse().map_err(|_| "must be a UUID".to_owned())),
        };
        match path {
            Some(path) if faults.0.is_empty() => Ok(Draft {
                organisation: self.organisation,
                path,
                description: self.description,
                unique_seconds,
                unique_by: self.unique_by,
                throttle,
                json_schema: self.json_schema,
                storage_config,
                disabled: self.disabled,
            }),
            _ => Err(faults.0),
        }
    }
}

struct Faults(Vec<Violation>);

impl Faults {
    fn add<T>(&mut self, field: &str, description: &str) -> Option<T> {
        self.0.push(Violation { field: format!("definition.{field}"), description: description.into() });
        None
    }

    fn keep<T>(&mut self, field: &str, given: Result<T, String>) -> Option<T> {
        given.map_err(|fault| self.add::<()>(field, &fault)).ok()
    }

    fn window(&mut self, field: &str, given: Result<i64, String>, retention: Duration) -> Option<i64> {
        let seconds = self.keep(field, given)?;
        let longest = i64::try_from(retention.as_secs()).unwrap_or(i64::MAX);
        if seconds < 1 {
            return self.add(field, "must be at least 1 second");
        }
        if seconds > longest {
            return self
                .add(field, &format!("must be at most {longest} s, as long as the gate's state is kept"));
        }
        Some(seconds)
    }
}

fn check_pointers(texts: &[String]) -> Result<(), String> {
    if texts.len() > UNIQUE_BY_MAX {
        return Err(format!("must be up to {UNIQUE_BY_MAX} JSON pointers"));
    }
    texts.iter().try_for_each(|text| {
        if text.len() > POINTER_BYTES_MAX || text.contains('\0') {
            return Err(format!("a JSON pointer must be up to {POINTER_BYTES_MAX} bytes without U+0000"));
        }
        if json::is_pointer(text) { Ok(()) } else { Err(format!("{text} is not a JSON pointer (RFC 6901)")) }
    })
}

impl Draft {
    /// The text of the JSON Schema, if there is one.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        (!self.json_schema.is_empty()).then_some(&self.json_schema)
    }

    /// Bytes of what may be long in it.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let pointers: usize = self.unique_by.iter().map(String::len).sum();
        self.description.len() + pointers + self.json_schema.len()
    }
}

/// A definition in force.
pub struct Definition {
    /// UUID.
    pub id: Uuid,
    /// Changes with every write.
    pub etag: String,
    /// What it says.
    pub draft: Draft,
    /// When it was created.
    pub date_created: std::time::SystemTime,
    /// When it was last written.
    pub date_updated: std::time::SystemTime,
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Definition").field("id", &self.id).field("draft", &self.draft).finish_non_exhaustive()
    }
}

impl Definition {
    /// One that says this.
    #[cfg(test)]
    pub fn of(etag: &str, draft: Draft) -> Self {
        let epoch = std::time::SystemTime::UNIX_EPOCH;
        Self { id: Uuid::now_v7(), etag: etag.to_owned(), draft, date_created: epoch, date_updated: epoch }
    }

    /// A definition as its row says.
    ///
    /// # Errors
    /// If the row holds what no put could have written.
    pub fn from_row(row: &Row) -> Result<Self, String> {
        let organisation: String = row.get("organisation");
        let throttle_count: Option<i64> = row.get("throttle_count");
        let period_seconds: Option<i64> = row.get("throttle_period_seconds");
        let throttle = match (throttle_count.and_then(|count| u32::try_from(count).ok()), period_seconds) {
            (Some(count), Some(period_seconds)) => Some(Throttle { count, period_seconds }),
            _ => None,
        };
        let draft = Draft {
            organisation: match organisation.as_str() {
                "" => None,
                name => Some(name.parse().map_err(|_| "organisation")?),
            },
            path: row.get::<_, String>("path").parse()?,
            description: row.get("description"),
            unique_seconds: row.get("unique_seconds"),
            unique_by: row.get("unique_by"),
            throttle,
            json_schema: row.get("json_schema"),
            storage_config: row.get("storage_config"),
            disabled: row.get("disabled"),
        };
        check_pointers(&draft.unique_by)?;
        Ok(Self {
            id: row.get("id"),
            etag: row.get("etag"),
            draft,
            date_created: row.get("date_created"),
            date_updated: row.get("date_updated"),
        })
    }

    /// Which parts make observations equal: JSON pointers.
    pub fn unique_by(&self) -> impl ExactSizeIterator<Item = &str> {
        let given = &self.draft.unique_by;
        (0..given.len().max(1)).map(|at| given.get(at).map_or(UNIQUE_BY_DEFAULT, String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::SCHEMA_BYTES_MAX;

    const WEEK: Duration = Duration::from_secs(7 * 86_400);

    fn raw() -> RawDraft {
        RawDraft { path: "security/ssh/invalid-user".into(), ..RawDraft::default() }
    }

    fn faults(raw: RawDraft) -> Vec<String> {
        raw.check(WEEK).map_or_else(|faults| faults.into_iter().map(|f| f.field).collect(), |_| Vec::new())
    }

    #[test]
    fn windows_are_bounded_on_both_sides() {
        let unique = |seconds| faults(RawDraft { unique: Some(Ok(seconds)), ..raw() });
        assert_eq!(unique(0), ["definition.unique"]);
        assert!(unique(1).is_empty());
        assert!(unique(7 * 86_400).is_empty());
        assert_eq!(unique(7 * 86_400 + 1), ["definition.unique"]);
    }

    #[test]
    fn a_throttle_is_given_whole() {
        let throttle =
            |count, period| faults(RawDraft { throttle_count: count, throttle_period: period, ..raw() });
        assert!(throttle(1, Some(Ok(60))).is_empty());
        assert_eq!(throttle(1, None), ["definition.throttle_period"]);
        assert_eq!(throttle(0, Some(Ok(60))), ["definition.throttle_count"]);
    }

    #[test]
    fn paths_are_segments() {
        for good in ["a", "security/bf/excessive-logins", "a:b/c@d~e+f_g.h", &"a".repeat(255)] {
            assert!(good.parse::<DefinitionPath>().is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "a b", "../a", "a/./b", "é", &"a".repeat(256)] {
            assert!(bad.parse::<DefinitionPath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn schemas_can_not_reach_outside_or_run_away() {
        let schema = |text: &str| faults(RawDraft { json_schema: text.into(), ..raw() });
        assert!(schema(r#"{"type":"object","properties":{"a":{"pattern":"^(a+)+$"}}}"#).is_empty());
        assert!(schema(r##"{"$defs":{"x":{"type":"string"}},"$ref":"#/$defs/x"}"##).is_empty());
        for bad in [
            r#"{"$ref":"https://example.com/schema.json"}"#,
            r#"{"$ref":"file:///etc/passwd"}"#,
            r#"{"pattern":"(?=look)ahead"}"#,
            r#"{"type":"nonsense"}"#,
            "not json",
        ] {
            assert_eq!(schema(bad), ["definition.json_schema"], "{bad}");
        }
        let padded = |bytes: usize| format!("{{}}{}", " ".repeat(bytes - 2));
        assert!(schema(&padded(SCHEMA_BYTES_MAX)).is_empty());
        assert_eq!(schema(&padded(SCHEMA_BYTES_MAX + 1)), ["definition.json_schema"]);
    }

    #[test]
    fn a_system_wide_definition_names_no_storage_config() {
        let config = Uuid::nil().to_string();
        assert_eq!(
            faults(RawDraft { storage_config: config.clone(), ..raw() }),
            ["definition.storage_config"]
        );
        let organisation = "acme".parse().ok();
        assert!(faults(RawDraft { storage_config: config, organisation, ..raw() }).is_empty());
    }

    #[test]
    fn unique_by_takes_up_to_32_pointers() {
        let by = |texts: Vec<String>| faults(RawDraft { unique_by: texts, ..raw() });
        assert!(by(vec!["/a".into(); 32]).is_empty());
        assert_eq!(by(vec!["/a".into(); 33]), ["definition.unique_by"]);
        assert_eq!(by(vec!["a".into()]), ["definition.unique_by"]);
        assert!(by(vec![String::new()]).is_empty());
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let all =
            RawDraft { path: "/".into(), unique: Some(Err("x".into())), json_schema: "{".into(), ..raw() };
        assert_eq!(faults(all), ["definition.path", "definition.unique", "definition.json_schema"]);
    }
}
