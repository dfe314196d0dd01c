//! Where a storage config keeps its data: its URL, read, and the keys of the
//! objects below it. Keys are made of the organisation and the result's id alone,
//! never of a caller's text. Pure.

use std::{fmt, str::FromStr};

use object_store::path::{Path, PathPart};
use prost_types::Timestamp;
use sluice_service::OrganisationId;
use uuid::Uuid;

/// Longest URL, in bytes.
const URL_BYTES_MAX: usize = 512;
/// The bucket of the built-in `db`.
const DB_BUCKET: &str = "results";
/// Where probes are written, beside the dates.
const PROBES: &str = ".probe";

/// Who keeps the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    /// The results database.
    Db,
    /// A directory of this machine.
    Local,
    /// Amazon S3, or what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage.
    Az,
}

impl Provider {
    /// As the scheme of a URL, and as `type` of a storage config.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Db => "db",
            Self::Local => "local",
            Self::S3 => "s3",
            Self::Gs => "gs",
            Self::Az => "az",
        }
    }
}

/// A storage config's URL, `<type>://<bucket>/<path>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    provider: Provider,
    bucket: String,
    /// Without slashes at its ends; may be empty.
    path: String,
}

impl Place {
    /// The built-in `db`.
    #[must_use]
    pub fn built_in() -> Self {
        Self { provider: Provider::Db, bucket: DB_BUCKET.into(), path: String::new() }
    }

    /// Who keeps it.
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// The bucket, container or first directory.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The path's parts.
    pub fn path(&self) -> impl Iterator<Item = &str> {
        self.path.split('/').filter(|part| !part.is_empty())
    }

    /// Whether this lies in `other` or is it: same bucket, and its path begins
    /// with the other's, part by part.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        let mut parts = self.path();
        self.provider == other.provider
            && self.bucket == other.bucket
            && other.path().all(|part| parts.next() == Some(part))
    }

    /// The folder of an organisation's objects.
    #[must_use]
    pub fn folder(&self, organisation: &OrganisationId) -> Path {
        // Parts are encoded, so that an organisation called `..` is a name like
        // any other.
        self.path().chain([organisation.as_str()]).map(PathPart::from).collect()
    }

    /// The key of a result's object:
    /// `<path>/<organisation>/<date of the id, UTC>/<id>`.
    #[must_use]
    pub fn key(&self, organisation: &OrganisationId, id: Uuid) -> Path {
        self.folder(organisation).join(date(id).as_str()).join(id.to_string())
    }

    /// The key of a probe's object.
    #[must_use]
    pub fn probe(&self, organisation: &OrganisationId, name: Uuid) -> Path {
        self.folder(organisation).join(PROBES).join(name.to_string())
    }

    /// Whether a key lies where an organisation's objects do: two parts below its folder,
    /// probes aside. What lies deeper may be another organisation's, whose place is within
    /// the folder.
    #[must_use]
    pub fn holds(&self, organisation: &OrganisationId, key: &Path) -> bool {
        let below = key.prefix_match(&self.folder(organisation)).map(Iterator::collect::<Vec<_>>);
        matches!(below.as_deref(), Some([folder, _]) if folder.as_ref() != PROBES)
    }

    /// The URL of a result's object.
    #[must_use]
    pub fn url_of(&self, organisation: &OrganisationId, id: Uuid) -> String {
        match self.provider {
            Provider::Db => format!("db://{DB_BUCKET}/{organisation}/{id}"),
            _ => self.url_of_key(&self.key(organisation, id)),
        }
    }

    /// The URL of an object by its key.
    #[must_use]
    pub fn url_of_key(&self, key: &Path) -> String {
        format!("{}://{}/{key}", self.provider.as_str(), self.bucket)
    }
}

/// The id in an object's key, if it is one that [`Place::key`] makes.
#[must_use]
pub fn id_of(key: &Path) -> Option<Uuid> {
    let mut parts = key.parts().collect::<Vec<_>>().into_iter().rev();
    let id = Uuid::try_parse(parts.next()?.as_ref()).ok()?;
    (parts.next()?.as_ref() == date(id)).then_some(id)
}

/// The day a UUIDv7 was made on, UTC, as `2026-03-01`.
fn date(id: Uuid) -> String {
    let seconds = id.get_timestamp().map_or(0, |made| made.to_unix().0);
    let moment = Timestamp { seconds: i64::try_from(seconds).unwrap_or(0), nanos: 0 };
    moment.to_string().chars().take_while(|c| *c != 'T').collect()
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.provider.as_str(), self.bucket)?;
        if self.path.is_empty() { Ok(()) } else { write!(f, "/{}", self.path) }
    }
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        if url.len() > URL_BYTES_MAX {
            return Err("must be up to 512 bytes");
        }
        let (scheme, rest) = url.split_once("://").ok_or("must be <type>://<bucket>/<path>")?;
        let provider = [Provider::Db, Provider::Local, Provider::S3, Provider::Gs, Provider::Az]
            .into_iter()
            .find(|provider| provider.as_str() == scheme)
            .ok_or("the type must be db, local, s3, gs or az")?;
        let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.strip_suffix('/').unwrap_or(path);
        if !is_name(bucket, |b| b.is_ascii_alphanumeric() || b".-_".contains(&b)) || bucket.len() > 255 {
            return Err("the bucket must be 1 to 255 letters, digits, dots, dashes and underscores");
        }
        let is_part = |part: &str| is_name(part, |b| b.is_ascii_alphanumeric() || b".-_=".contains(&b));
        if !path.is_empty() && !path.split('/').all(is_part) {
            return Err(
                "the path must be parts of letters, digits and .-_= between single slashes, none . or ..",
            );
        }
        if provider == Provider::Db && (bucket, path) != (DB_BUCKET, "") {
            return Err("the only place of type db is db://results");
        }
        Ok(Self { provider, bucket: bucket.into(), path: path.into() })
    }
}

fn is_name(part: &str, allowed: impl Fn(u8) -> bool) -> bool {
    !part.is_empty() && part != "." && part != ".." && part.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Place {
        url.parse().unwrap()
    }

    fn organisation(name: &str) -> OrganisationId {
        name.parse().unwrap()
    }

    const ID: Uuid = Uuid::from_u128(0x0196_3f2e_7d9a_7c31_8f0e_0000_0000_0001);

    #[test]
    fn a_url_reads_back_as_it_was_written() {
        for url in ["db://results", "s3://b", "s3://my.bucket-1/a/b=c", "local://x/y", "gs://b_1", "az://c/p"]
        {
            assert_eq!(place(url).to_string(), url);
        }
        assert_eq!(place("s3://b/a/"), place("s3://b/a"));
        assert_eq!(Place::built_in(), place("db://results"));
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        for bad in [
            "",
            "s3:/b",
            "ftp://b",
            "s3://",
            "s3:///a",
            "local://..",
            "local://.",
            "local://b/../c",
            "local://b//c",
            "local://b/./c",
            "s3://b/a%2e",
            "s3://b/a b",
            "s3://user@b/a",
            "s3://b:80/a",
            "s3://b/a?x",
            "s3://b/a#1",
            "s3://b/é",
            "db://other",
            "db://results/a",
            "local://b/a\\b",
            "S3://b",
        ] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_length_of_a_url_is_bounded() {
        let of = |size: usize| format!("s3://b/{}", "a".repeat(size - 7)).parse::<Place>();
        assert!(of(512).is_ok());
        assert!(of(513).is_err());
    }

    #[test]
    fn keys_are_made_of_organisation_date_and_id() {
        let (acme, key) = (organisation("acme"), "a/b/acme/2025-04-16/01963f2e-7d9a-7c31-8f0e-000000000001");
        assert_eq!(place("s3://x/a/b").key(&acme, ID).as_ref(), key);
        assert_eq!(place("s3://x/a/b").url_of(&acme, ID), format!("s3://x/{key}"));
        assert_eq!(Place::built_in().url_of(&acme, ID), format!("db://results/acme/{ID}"));
        assert_eq!(id_of(&Path::from(key)), Some(ID));
        assert_eq!(id_of(&Path::from(key.replace("04-16", "04-17"))), None);
    }

    #[test]
    fn an_organisation_has_what_lies_two_parts_below_its_folder() {
        let (globex, outer) = (organisation("globex"), place("s3://x/a"));
        let holds = |key: &str| outer.holds(&globex, &Path::from(key));
        assert!(outer.holds(&globex, &outer.key(&globex, ID)));
        assert!(holds("a/globex/2025-04-16/readme"));
        assert!(!holds("a/globex/readme") && !holds("a/globexy/2025-04-16/readme"));
        assert!(!outer.holds(&globex, &outer.probe(&globex, ID)));
        let (acme, inner) = (organisation("acme"), place("s3://x/a/globex"));
        assert!(!outer.holds(&globex, &inner.key(&acme, ID)));
        // A name of an organisation that looks like a date.
        let dated = organisation("2025-04-16");
        assert!(!place("s3://x/a/globex").holds(&dated, &outer.key(&globex, ID)));
        // A path in which others have their probes.
        let odd = place("s3://x/.probe");
        assert!(odd.holds(&acme, &odd.key(&acme, ID)));
    }

    #[test]
    fn no_organisation_leaves_its_folder() {
        assert_eq!(place("local://x/a").folder(&organisation("..")).as_ref(), "a/%2E%2E");
        assert_eq!(place("local://x").folder(&organisation(".")).as_ref(), "%2E");
    }

    #[test]
    fn within_means_part_by_part() {
        for (inner, outer, within) in [
            ("s3://b/a/c", "s3://b/a", true),
            ("s3://b/a", "s3://b/a", true),
            ("s3://b/ab", "s3://b/a", false),
            ("s3://b", "s3://b/a", false),
            ("s3://b2/a", "s3://b", false),
            ("gs://b/a", "s3://b", false),
        ] {
            assert_eq!(place(inner).is_within(&place(outer)), within, "{inner} in {outer}");
        }
    }
}
