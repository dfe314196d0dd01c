//! `sluice definitions`: the rules by which observations are let in.

mod file;

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::{Value, json};
use sluice_proto::ingest::v1::{
    Definition, DeleteDefinitionRequest, GetDefinitionRequest, ListDefinitionsRequest, PutDefinitionRequest,
    ValidateDefinitionRequest,
};

use crate::{
    failure::{Context, Failure},
    target::{Target, TargetArgs},
    text::{Table, clean, out, parse_seconds, proto_seconds, seconds, time, to_proto},
};

pub(crate) use file::read_definitions;

/// How many definitions a page brings.
const PAGE_SIZE: i32 = 1000;

/// Manage definitions.
#[derive(Debug, clap::Subcommand)]
pub enum DefinitionsCommand {
    /// Create or overwrite definitions, from flags or from a file.
    Put(WriteArgs),
    /// Show one definition.
    Get(OneArgs),
    /// List definitions.
    List(ListArgs),
    /// Delete one definition.
    Delete(DeleteArgs),
    /// Say what `put` would say, and change nothing.
    Validate(WriteArgs),
}

/// Definitions to write.
#[derive(Debug, clap::Args)]
pub struct WriteArgs {
    /// A JSON file with one definition or a list of them, `-` for standard
    /// input. Fields are named as in the contract; durations are seconds or
    /// text such as "1d"; json_schema may be an object.
    #[arg(required_unless_present = "path", conflicts_with = "path")]
    file: Option<PathBuf>,
    /// Path of the definition; several get the same rules.
    #[arg(long)]
    path: Vec<String>,
    /// Suppress equal observations for this long, such as 1d.
    #[arg(long, value_parser = parse_seconds, requires = "path")]
    unique: Option<u64>,
    /// JSON pointer that makes observations equal [default: /keys].
    #[arg(long, value_name = "POINTER", requires = "path")]
    unique_by: Vec<String>,
    /// Accept this many in each period.
    #[arg(long, requires_all = ["path", "throttle_period"])]
    throttle_count: Option<u32>,
    /// Length of the throttle's windows, such as 1h.
    #[arg(long, value_parser = parse_seconds, requires_all = ["path", "throttle_count"])]
    throttle_period: Option<u64>,
    /// File with a JSON Schema that the content must meet.
    #[arg(long, value_name = "FILE", requires = "path")]
    schema: Option<PathBuf>,
    /// What it is, for people.
    #[arg(long, requires = "path")]
    description: Option<String>,
    /// Refuse all its observations with `error`.
    #[arg(long, requires = "path")]
    disabled: bool,
    /// Storage config that keeps the results.
    #[arg(long, value_name = "ID", requires = "path")]
    storage_config: Option<String>,
    /// Write only if the current etag is this.
    #[arg(long, requires = "path")]
    etag: Option<String>,
    /// For every organisation that has none of its own; needs a token for all.
    #[arg(long)]
    system_wide: bool,
    /// Print JSON, one definition a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// One definition.
#[derive(Debug, clap::Args)]
pub struct OneArgs {
    /// Its path.
    path: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Which definitions to list.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Also the system-wide ones that apply.
    #[arg(long)]
    include_system_wide: bool,
    /// Print JSON, one definition a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Which definition to delete.
#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    /// Its path.
    path: String,
    /// Delete only if the current etag is this.
    #[arg(long)]
    etag: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
}

impl WriteArgs {
    fn definitions(&self, organisation: &str) -> Result<Vec<Definition>, Failure> {
        if let Some(file) = &self.file {
            return read_definitions(&read_file(file)?, organisation)
                .map_err(|fault| Failure::unusable(format!("{}: {fault}", file.display())));
        }
        let schema = self.schema.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let of_path = |path: &String| Definition {
            organisation: organisation.into(),
            path: path.clone(),
            description: self.description.clone().unwrap_or_default(),
            unique: self.unique.map(to_proto),
            unique_by: self.unique_by.clone(),
            throttle_count: self.throttle_count.unwrap_or_default(),
            throttle_period: self.throttle_period.map(to_proto),
            json_schema: schema.clone(),
            storage_config: self.storage_config.clone().unwrap_or_default(),
            disabled: self.disabled,
            etag: self.etag.clone().unwrap_or_default(),
            ..Definition::default()
        };
        Ok(self.path.iter().map(of_path).collect())
    }

    /// Whom to call, and the definitions with their organisation filled in.
    fn resolve(&self) -> Result<(Target, Vec<Definition>), Failure> {
        let target = self.target.clone().resolve()?;
        let organisation = if self.system_wide { "" } else { target.organisation.as_str() };
        if organisation.is_empty() && !self.system_wide {
            let advice = "which organisation? give --organisation or SLUICE_ORGANISATION, or --system-wide";
            return Err(Failure::unusable(advice));
        }
        let definitions = self.definitions(organisation)?;
        Ok((target, definitions))
    }
}

/// Runs `sluice definitions`.
pub(crate) async fn run(command: DefinitionsCommand) -> Result<ExitCode, Failure> {
    match command {
        DefinitionsCommand::Put(args) => put(&args).await,
        DefinitionsCommand::Get(args) => get(args).await,
        DefinitionsCommand::List(args) => list(args).await,
        DefinitionsCommand::Delete(args) => delete(args).await,
        DefinitionsCommand::Validate(args) => validate(&args).await,
    }
}

async fn put(args: &WriteArgs) -> Result<ExitCode, Failure> {
    let (target, definitions) = args.resolve()?;
    let mut client = target.definitions()?;
    for definition in definitions {
        let path = definition.path.clone();
        let answer = client
            .put_definition(PutDefinitionRequest { definition: Some(definition) })
            .await
            .map_err(|status| Failure::from(status).about(&clean(&path)))?
            .into_inner();
        let kept = answer.definition.unwrap_or_default();
        if args.json {
            out!("{}", to_json(&kept))?;
        } else {
            let done = if answer.created { "created" } else { "changed" };
            out!("{} {done}, etag {}", clean(&kept.path), kept.etag)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn validate(args: &WriteArgs) -> Result<ExitCode, Failure> {
    let (target, definitions) = args.resolve()?;
    let mut client = target.definitions()?;
    let mut all_valid = true;
    for definition in definitions {
        let path = definition.path.clone();
        let request = ValidateDefinitionRequest { definition: Some(definition) };
        let answer = client.validate_definition(request).await?.into_inner();
        all_valid &= answer.valid;
        if args.json {
            let violations: Vec<Value> = answer
                .violations
                .iter()
                .map(|fault| json!({"field": fault.field, "description": fault.description}))
                .collect();
            out!("{}", json!({"path": path, "valid": answer.valid, "violations": violations}))?;
            continue;
        }
        out!("{} is {}", clean(&path), if answer.valid { "valid" } else { "not valid" })?;
        for fault in &answer.violations {
            out!("  {}: {}", clean(&fault.field), clean(&fault.description))?;
        }
    }
    Ok(if all_valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn get(args: OneArgs) -> Result<ExitCode, Failure> {
    let target = args.target.resolve()?;
    let request = GetDefinitionRequest {
        organisation: target.organisation.clone(),
        path: args.path,
        ..GetDefinitionRequest::default()
    };
    let answer = target.definitions()?.get_definition(request).await?.into_inner();
    let shown = to_json(&answer.definition.unwrap_or_default());
    if args.json {
        out!("{shown}")?;
    } else {
        out!("{}", Table::fields(&shown))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: ListArgs) -> Result<ExitCode, Failure> {
    let target = args.target.resolve()?;
    let mut client = target.definitions()?;
    let mut request = ListDefinitionsRequest {
        organisation: target.organisation.clone(),
        include_system_wide: args.include_system_wide,
        page_size: PAGE_SIZE,
        page_token: String::new(),
    };
    let mut table =
        Table::new(&["PATH", "ORGANISATION", "UNIQUE", "BY", "THROTTLE", "SCHEMA", "STATE", "UPDATED"]);
    loop {
        let page = client.list_definitions(request.clone()).await?.into_inner();
        for definition in &page.definitions {
            if args.json {
                out!("{}", to_json(definition))?;
            } else {
                table.row(row(definition));
            }
        }
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    if !args.json {
        out!("{table}")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn delete(args: DeleteArgs) -> Result<ExitCode, Failure> {
    let target = args.target.resolve()?;
    let path = clean(&args.path);
    let request = DeleteDefinitionRequest {
        organisation: target.organisation.clone(),
        path: args.path,
        etag: args.etag.unwrap_or_default(),
        ..DeleteDefinitionRequest::default()
    };
    target.definitions()?.delete_definition(request).await?;
    out!("{path} deleted")?;
    Ok(ExitCode::SUCCESS)
}

fn row(definition: &Definition) -> [String; 8] {
    let dash = || "-".to_owned();
    let (unique, by) = match proto_seconds(definition.unique.as_ref()) {
        Some(unique) if definition.unique_by.is_empty() => (seconds(unique), "/keys".to_owned()),
        Some(unique) => (seconds(unique), definition.unique_by.join(" ")),
        None => (dash(), dash()),
    };
    let throttle = proto_seconds(definition.throttle_period.as_ref())
        .map_or_else(dash, |period| format!("{} per {}", definition.throttle_count, seconds(period)));
    let organisation =
        if definition.organisation.is_empty() { "(system-wide)" } else { &definition.organisation };
    let schema = if definition.json_schema.is_empty() { dash() } else { "yes".into() };
    let state = if definition.disabled { "disabled" } else { "enabled" };
    let updated = time(definition.date_updated.as_ref()).unwrap_or_default();
    [definition.path.clone(), organisation.into(), unique, by, throttle, schema, state.into(), updated]
}

/// A definition as JSON, durations in seconds; `put` takes it back, less what
/// the service fills in.
fn to_json(definition: &Definition) -> Value {
    json!({
        "id": definition.id,
        "organisation": definition.organisation,
        "path": definition.path,
        "description": definition.description,
        "unique": proto_seconds(definition.unique.as_ref()),
        "unique_by": definition.unique_by,
        "throttle_count": definition.throttle_count,
        "throttle_period": proto_seconds(definition.throttle_period.as_ref()),
        "json_schema": definition.json_schema,
        "storage_config": definition.storage_config,
        "disabled": definition.disabled,
        "etag": definition.etag,
        "date_created": time(definition.date_created.as_ref()),
        "date_updated": time(definition.date_updated.as_ref()),
    })
}

fn read_file(path: &Path) -> Result<String, Failure> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
        return Ok(text);
    }
    fs::read_to_string(path).map_err(|fault| Failure::unusable(format!("{}: {fault}", path.display())))
}
