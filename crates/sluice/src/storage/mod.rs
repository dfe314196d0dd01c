//! `sluice storage`: where an organisation's result data is kept.

mod credential;
mod reconcile;
mod show;

use std::process::ExitCode;

use sluice_proto::results::v1::{
    CreateStorageConfigRequest, DeactivateStorageConfigRequest, GetStorageConfigRequest,
    ListStorageConfigsRequest, SetDefaultStorageConfigRequest, StorageConfig, TestStorageConfigRequest,
    UpdateStorageConfigRequest, storage_config::State,
};
use sluice_service::config::Secret;

use crate::{
    failure::Failure,
    target::{Target, TargetArgs},
    text::{clean, out, parse_seconds, to_proto},
};
use show::{details, state_name, table, to_json};

/// How many storage configs a page brings.
const PAGE_SIZE: i32 = 1000;
/// The storage that is built in.
const BUILT_IN: &str = "db";

/// Manage storage configs.
#[derive(Debug, clap::Subcommand)]
pub enum StorageCommand {
    /// List storage configs, the oldest first.
    List(ListArgs),
    /// Show one storage config.
    Get(OneArgs),
    /// Create a storage config and probe it. Exit code 1: the probe failed.
    Create(CreateArgs),
    /// Change a storage config and probe it again. Exit code 1: the probe failed.
    Update(UpdateArgs),
    /// Take a storage config out of use for new results, for good.
    Deactivate(OneArgs),
    /// Make a storage config the default, or `db`, the built-in one.
    Default(OneArgs),
    /// Probe a storage config: write, read back, delete. Exit code 1: it failed.
    Test(OneArgs),
    /// Report objects without records and records without objects; change
    /// nothing. Exit code 1: there are some.
    Reconcile(OneArgs),
}

/// Which storage configs to list.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Print JSON, one storage config a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// One storage config.
#[derive(Debug, clap::Args)]
pub struct OneArgs {
    /// Its id.
    id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// What to create.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// `<type>://<bucket>/<path>` with the type local, s3, gs or az; or `db://results`,
    /// the results database.
    url: String,
    #[command(flatten)]
    credentials: Credentials,
    /// Give results signed URLs that work for this long, such as 1h.
    #[arg(long, value_name = "EXPIRY", value_parser = parse_seconds)]
    signed_urls: Option<u64>,
    /// Data goes after its retention. Without it the bucket is your own, and
    /// nothing in it is ever expired.
    #[arg(long)]
    managed: bool,
    /// How long data is kept, such as 30d, or `forever` [default: 30d].
    #[arg(long, value_parser = parse_retention)]
    retention: Option<u64>,
    /// Make it the default, if the probe was good.
    #[arg(long)]
    default: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// What to change; what isn't given stays as it is.
#[derive(Debug, clap::Args)]
pub struct UpdateArgs {
    /// Its id.
    id: String,
    #[command(flatten)]
    credentials: Credentials,
    /// Give results signed URLs that work for this long, such as 1h.
    #[arg(long, value_name = "EXPIRY", value_parser = parse_seconds)]
    signed_urls: Option<u64>,
    /// Give new results no signed URLs.
    #[arg(long, conflicts_with = "signed_urls")]
    no_signed_urls: bool,
    /// Data goes after its retention.
    #[arg(long)]
    managed: bool,
    /// It is your own: nothing in it is ever expired.
    #[arg(long, conflicts_with = "managed")]
    unmanaged: bool,
    /// How long data is kept, such as 30d, or `forever`.
    #[arg(long, value_parser = parse_retention)]
    retention: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// What the storage is reached with.
#[derive(Debug, clap::Args)]
struct Credentials {
    /// A part of its credentials: NAME=VALUE; NAME=@FILE (- is standard input) or
    /// NAME=env:VARIABLE keep a secret off the command line. Given several times; all of them together
    /// replace those before. s3: access_key_id, secret_access_key, session_token,
    /// region, endpoint, virtual_hosted_style. gs: service_account_key, endpoint.
    /// az: account, access_key, sas_token, client_id, client_secret, tenant_id,
    /// endpoint. Each: date_expires.
    #[arg(long, value_name = "NAME=VALUE", value_parser = credential::verbatim)]
    credential: Vec<Secret>,
}

/// Reads a duration, or `forever` as 0.
fn parse_retention(text: &str) -> Result<u64, String> {
    if text == "forever" { Ok(0) } else { parse_seconds(text) }
}

/// Runs `sluice storage`.
pub(crate) async fn run(command: StorageCommand) -> Result<ExitCode, Failure> {
    match command {
        StorageCommand::List(args) => list(args).await,
        StorageCommand::Get(args) => get(args).await,
        StorageCommand::Create(args) => create(args).await,
        StorageCommand::Update(args) => update(args).await,
        StorageCommand::Deactivate(args) => deactivate(args).await,
        StorageCommand::Default(args) => set_default(args).await,
        StorageCommand::Test(args) => test(args).await,
        StorageCommand::Reconcile(args) => reconcile::run(args).await,
    }
}

async fn list(args: ListArgs) -> Result<ExitCode, Failure> {
    let target = args.target.resolve()?;
    let mut client = target.storage()?;
    let organisation = target.organisation.clone();
    let mut request = ListStorageConfigsRequest {
        organisation,
        page_size: PAGE_SIZE,
        ..ListStorageConfigsRequest::default()
    };
    let mut shown = vec![];
    loop {
        let page = client.list_storage_configs(request.clone()).await?.into_inner();
        if args.json {
            for config in &page.storage_configs {
                out!("{}", to_json(config))?;
            }
        } else {
            shown.extend(page.storage_configs);
        }
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    if !args.json {
        out!("{}", table(&shown))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn get(args: OneArgs) -> Result<ExitCode, Failure> {
    let target = args.target.resolve()?;
    let request = GetStorageConfigRequest { organisation: target.organisation.clone(), id: args.id };
    let answer = target.storage()?.get_storage_config(request).await?.into_inner();
    let config = answer.storage_config.unwrap_or_default();
    if args.json {
        out!("{}", to_json(&config))?;
    } else {
        out!("{}", details(&config))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(args: CreateArgs) -> Result<ExitCode, Failure> {
    let target = args.target.resolve()?;
    let wanted = StorageConfig {
        organisation: target.organisation.clone(),
        url: args.url,
        credentials: credential::read(&args.credentials.credential)?,
        signed_urls_enabled: args.signed_urls.is_some(),
        signed_urls_expiry: args.signed_urls.map(to_proto),
        managed: args.managed,
        retention: args.retention.map(to_proto),
        ..StorageConfig::default()
    };
    let request = CreateStorageConfigRequest { storage_config: Some(wanted) };
    let answer = target.storage()?.create_storage_config(request).await?.into_inner();
    let mut config = answer.storage_config.unwrap_or_default();
    let wants_default = args.default && config.state() == State::Valid;
    let made_default = if wants_default { make_default(&target, &config.id).await } else { Ok(None) };
    if let Ok(Some(default)) = &made_default {
        config = default.clone();
    }
    // It exists, whatever became of the rest.
    let code = tell(&config, "created", args.json)?;
    made_default?;
    Ok(code)
}

async fn update(args: UpdateArgs) -> Result<ExitCode, Failure> {
    let target = args.target.clone().resolve()?;
    let request = UpdateStorageConfigRequest {
        storage_config: Some(StorageConfig {
            organisation: target.organisation.clone(),
            id: args.id.clone(),
            credentials: credential::read(&args.credentials.credential)?,
            signed_urls_enabled: args.signed_urls.is_some(),
            signed_urls_expiry: args.signed_urls.map(to_proto),
            managed: args.managed,
            retention: args.retention.map(to_proto),
            ..StorageConfig::default()
        }),
        update_mask: Some(prost_types::FieldMask { paths: args.mask()? }),
    };
    let answer = target.storage()?.update_storage_config(request).await?.into_inner();
    tell(&answer.storage_config.unwrap_or_default(), "changed", args.json)
}

impl UpdateArgs {
    /// The fields that were given.
    fn mask(&self) -> Result<Vec<String>, Failure> {
        let given = [
            ("credentials", !self.credentials.credential.is_empty()),
            ("signed_urls_enabled", self.signed_urls.is_some() || self.no_signed_urls),
            ("signed_urls_expiry", self.signed_urls.is_some()),
            ("managed", self.managed || self.unmanaged),
            ("retention", self.retention.is_some()),
        ];
        let fields: Vec<String> =
            given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name.to_owned()).collect();
        if fields.is_empty() {
            return Err(Failure::unusable("nothing to change: see --help"));
        }
        Ok(fields)
    }
}

async fn deactivate(args: OneArgs) -> Result<ExitCode, Failure> {
    let target = args.target.resolve()?;
    let request = DeactivateStorageConfigRequest { organisation: target.organisation.clone(), id: args.id };
    let answer = target.storage()?.deactivate_storage_config(request).await?.into_inner();
    tell(&answer.storage_config.unwrap_or_default(), "deactivated", args.json)
}

async fn set_default(args: OneArgs) -> Result<ExitCode, Failure> {
    let target = args.target.resolve()?;
    let id = if args.id == BUILT_IN { "" } else { &args.id };
    let default = make_default(&target, id).await?;
    match (args.json, &default) {
        (true, _) => out!("{}", default.as_ref().map_or(serde_json::Value::Null, to_json))?,
        (false, Some(config)) => out!("{} {} is the default", config.id, clean(&config.url))?,
        (false, None) => out!("the built-in db is the default")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes a storage config the default, or, with an empty id, the built-in one,
/// which is none.
async fn make_default(target: &Target, id: &str) -> Result<Option<StorageConfig>, Failure> {
    let request =
        SetDefaultStorageConfigRequest { organisation: target.organisation.clone(), id: id.to_owned() };
    Ok(target.storage()?.set_default_storage_config(request).await?.into_inner().storage_config)
}

async fn test(args: OneArgs) -> Result<ExitCode, Failure> {
    let target = args.target.resolve()?;
    let request = TestStorageConfigRequest { organisation: target.organisation.clone(), id: args.id };
    let answer = target.storage()?.test_storage_config(request).await?.into_inner();
    let mut config = answer.storage_config.unwrap_or_default();
    if config.state_details.is_empty() {
        config.state_details = answer.details;
    }
    tell(&config, "tested", args.json)
}

/// Says what was done to a storage config and what its probe found.
fn tell(config: &StorageConfig, done: &str, json: bool) -> Result<ExitCode, Failure> {
    let is_invalid = config.state() == State::Invalid;
    if json {
        out!("{}", to_json(config))?;
    } else {
        let default = if config.is_default { ", the default" } else { "" };
        let state = state_name(config.state());
        out!("{} {} {done}: {state}{default}", config.id, clean(&config.url))?;
        if is_invalid {
            out!("  {}", clean(&config.state_details))?;
        }
    }
    Ok(if is_invalid { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(subcommand)]
        command: StorageCommand,
    }

    fn mask(flags: &[&str]) -> Result<Vec<String>, Failure> {
        let parsed = Cli::try_parse_from([&["sluice", "update", "id"], flags].concat()).unwrap();
        let StorageCommand::Update(args) = parsed.command else { panic!("another command") };
        args.mask()
    }

    #[test]
    fn only_what_was_given_is_changed() {
        assert_eq!(mask(&["--no-signed-urls"]).unwrap(), ["signed_urls_enabled"]);
        assert_eq!(mask(&["--signed-urls", "1h"]).unwrap(), ["signed_urls_enabled", "signed_urls_expiry"]);
        let all = ["--credential", "a=b", "--unmanaged", "--retention", "forever"];
        assert_eq!(mask(&all).unwrap(), ["credentials", "managed", "retention"]);
        assert_eq!(mask(&[]).unwrap_err().exit(), 2);
    }

    #[test]
    fn a_retention_is_a_duration_or_for_ever() {
        assert_eq!((parse_retention("30d"), parse_retention("forever")), (Ok(2_592_000), Ok(0)));
        assert!(parse_retention("never").is_err());
    }
}
