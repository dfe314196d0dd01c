//! `sluice keys new`: makes a token. Its text is shown once; the keys file keeps
//! only the hash of its secret.

use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::builder::PossibleValuesParser;
use sluice_service::{
    OrganisationId,
    auth::{INTAKE_SCOPE, KeyEntry, KeysFile, SCOPES, secret_sha256, token_text},
};

use crate::{
    failure::{Context, Failure},
    text::{out, say},
};

/// Random bytes of a token's public id.
const ID_BYTES: usize = 8;
/// The year 10000, in seconds since 1970: the first that RFC 3339 can't write.
const TIME_MAX: i64 = 253_402_300_800;
/// Random bytes of a token's secret.
const SECRET_BYTES: usize = 32;

/// Make tokens.
#[derive(Debug, clap::Subcommand)]
pub enum KeysCommand {
    /// Make a token, print it once, and the entry that belongs into the keys file.
    New(NewArgs),
}

/// What the new token is for.
#[derive(Debug, clap::Args)]
pub struct NewArgs {
    /// The organisation it belongs to.
    #[arg(long, required_unless_present = "all_organisations", conflicts_with = "all_organisations")]
    organisation: Option<String>,
    /// It may act for every organisation.
    #[arg(long)]
    all_organisations: bool,
    /// What it may do; give it several times, or separate by commas.
    #[arg(long, required = true, value_delimiter = ',', value_parser = PossibleValuesParser::new(SCOPES))]
    scope: Vec<String>,
    /// When it ends, from now on: a duration such as 90d [default: never].
    #[arg(long, value_name = "DURATION", value_parser = crate::text::parse_seconds)]
    expires: Option<u64>,
    /// Append the entry to this keys file; running services see it at once.
    #[arg(long)]
    keys_file: Option<PathBuf>,
}

/// A new token: its text, shown once, and its entry in the keys file.
#[derive(Debug)]
pub struct NewToken {
    /// `sluice_<id>_<secret>`.
    pub text: String,
    /// What the services keep.
    pub entry: KeyEntry,
}

impl NewToken {
    /// A token of one organisation, or of all.
    pub fn new<'a>(organisation: Option<&str>, scopes: impl IntoIterator<Item = &'a str>) -> Self {
        let id = hex::encode(rand::random::<[u8; ID_BYTES]>());
        let secret = hex::encode(rand::random::<[u8; SECRET_BYTES]>());
        let entry = KeyEntry {
            secret_sha256: secret_sha256(&secret),
            organisation: organisation.map(str::to_owned),
            all_organisations: organisation.is_none(),
            scopes: scopes.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(),
            expires: None,
            id: id.clone(),
        };
        Self { text: token_text(&id, &secret), entry }
    }
}

/// Scopes that a tenant's token may hold.
pub fn tenant_scopes() -> impl Iterator<Item = &'static str> {
    SCOPES.into_iter().filter(|scope| *scope != INTAKE_SCOPE)
}

/// Runs `sluice keys`.
pub(crate) fn run(command: KeysCommand) -> Result<ExitCode, Failure> {
    let KeysCommand::New(args) = command;
    if let Some(name) = &args.organisation {
        name.parse::<OrganisationId>().map_err(|fault| Failure::unusable(fault.to_string()))?;
        if args.scope.iter().any(|scope| scope == INTAKE_SCOPE) {
            return Err(Failure::unusable(format!("{INTAKE_SCOPE} needs --all-organisations")));
        }
    }
    let mut token = NewToken::new(args.organisation.as_deref(), args.scope.iter().map(String::as_str));
    token.entry.expires = args.expires.map(in_seconds).transpose()?;
    if let Some(file) = &args.keys_file {
        append_entries(file, std::slice::from_ref(&token.entry))?;
        say!("The token, shown only now; its entry is in {}:", file.display());
        out!("{}", token.text)?;
    } else {
        say!("The token, shown only now:");
        out!("{}", token.text)?;
        say!("\nThe entry for the keys file of both services:");
        out!("\n{}", entries_text(&[token.entry])?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The time so many seconds from now, as the keys file has it.
fn in_seconds(seconds: u64) -> Result<String, Failure> {
    let then = SystemTime::now().checked_add(Duration::from_secs(seconds));
    let then = then.map(prost_types::Timestamp::from).filter(|then| then.seconds < TIME_MAX);
    let then = then.ok_or_else(|| Failure::unusable("--expires: too far away"))?;
    Ok(prost_types::Timestamp { nanos: 0, ..then }.to_string())
}

/// Entries as they stand in the keys file.
fn entries_text(entries: &[KeyEntry]) -> Result<String, Failure> {
    toml::to_string(&KeysFile { token: entries.to_vec() }).context("keys file")
}

/// Appends entries to a keys file in one write, so that a service that reads it
/// just then sees all of them or none. What stands in it is left as it is.
///
/// # Errors
/// If the file can't be written.
pub fn append_entries(path: &Path, entries: &[KeyEntry]) -> Result<(), Failure> {
    let text = entries_text(entries)?;
    let write = || {
        let mut file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
        let mut before = String::new();
        file.read_to_string(&mut before)?;
        let gap = if before.is_empty() {
            ""
        } else if before.ends_with('\n') {
            "\n"
        } else {
            "\n\n"
        };
        file.write_all(format!("{gap}{text}").as_bytes())?;
        file.sync_all()
    };
    write().context(path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_fits_its_entry() {
        let token = NewToken::new(Some("acme"), ["results.read"]);
        let (id, secret) = token.text.strip_prefix("sluice_").unwrap().split_once('_').unwrap();
        assert_eq!(id, token.entry.id);
        assert_eq!(secret.len(), 64, "256 bits in hex");
        assert_eq!(secret_sha256(secret), token.entry.secret_sha256);
    }

    #[test]
    fn entries_are_appended_and_stay_readable() {
        let path = std::env::temp_dir().join(format!("sluice-keys-{}", std::process::id()));
        drop(std::fs::remove_file(&path));
        for organisation in [Some("acme"), None] {
            let token = NewToken::new(organisation, tenant_scopes());
            append_entries(&path, &[token.entry]).unwrap();
        }
        let file: KeysFile = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(file.token.len(), 2);
        assert!(file.token[1].all_organisations && !file.token[0].all_organisations);
    }
}
