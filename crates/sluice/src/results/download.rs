//! `sluice results download`: the bytes, checked against the record's MD5.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use md5::{Digest as _, Md5};
use sluice_proto::results::v1::{
    DownloadResultRequest, GetResultRequest, results_service_client::ResultsServiceClient,
};

use crate::{
    connection::Authorised,
    failure::{Context, Failure},
    target::TargetArgs,
};

/// Which result, and where to.
#[derive(Debug, clap::Args)]
pub struct DownloadArgs {
    /// The result's id.
    id: String,
    /// The file to write; it appears only when its bytes were checked. Without
    /// it they go to standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    target: TargetArgs,
}

/// Downloads one result.
pub(super) async fn run(args: DownloadArgs) -> Result<ExitCode, Failure> {
    let target = args.target.resolve()?;
    let mut client = target.results()?;
    let Some(output) = &args.output else {
        let mut stdout = io::stdout();
        fetch(&mut client, &target.organisation, &args.id, &mut stdout).await?;
        stdout.flush().context("standard output")?;
        return Ok(ExitCode::SUCCESS);
    };
    let partial = beside(output);
    let fetched = async {
        let mut file = File::create(&partial).context(partial.display())?;
        let size = fetch(&mut client, &target.organisation, &args.id, &mut file).await?;
        file.sync_all().context(partial.display())?;
        fs::rename(&partial, output).context(output.display())?;
        Ok::<_, Failure>(size)
    };
    match fetched.await {
        Ok(size) => eprintln!("{}: {size} bytes, MD5 correct", output.display()),
        Err(failure) => {
            drop(fs::remove_file(&partial));
            return Err(failure);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A name in the same folder, so that renaming is one step.
fn beside(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(format!(".part-{}", std::process::id()));
    name.into()
}

/// Writes a result's data and returns its size.
///
/// # Errors
/// If there is no such data, or it is not what the record says.
pub(crate) async fn fetch(
    client: &mut ResultsServiceClient<Authorised>,
    organisation: &str,
    id: &str,
    to: &mut impl Write,
) -> Result<u64, Failure> {
    let request = GetResultRequest { organisation: organisation.into(), id: id.into() };
    let record = client.get_result(request).await?.into_inner().result.unwrap_or_default();
    let request = DownloadResultRequest { organisation: organisation.into(), id: id.into() };
    let mut chunks = client.download_result(request).await?.into_inner();
    let (mut md5, mut size) = (Md5::new(), 0_u64);
    while let Some(chunk) = chunks.message().await? {
        md5.update(&chunk.data);
        size += chunk.data.len() as u64;
        to.write_all(&chunk.data).context("writing")?;
    }
    let checksum = hex::encode(md5.finalize());
    if (checksum.as_str(), size) == (record.checksum.as_str(), record.size) {
        Ok(size)
    } else {
        Err(Failure::new(format!(
            "{id}: downloaded {size} bytes with MD5 {checksum}, the record says {} with {}",
            record.size, record.checksum
        )))
    }
}
