//! `sluice results download`: the bytes, checked against the record's MD5 and
//! size. A file appears whole or not at all.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use indicatif::ProgressBar;
use md5::{Digest as _, Md5};
use sluice_proto::results::v1::{
    DownloadResultRequest, GetResultRequest, results_service_client::ResultsServiceClient,
};
use sluice_service::shutdown;
use tokio_util::sync::CancellationToken;

use crate::{
    connection::Authorised,
    failure::{Context, Failure},
    progress,
    target::TargetArgs,
    text::say,
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
    let mut output = Output::open(args.output)?;
    // The record says how large it is.
    let bar = progress::bytes(Some(0), "receiving");
    // Only a file that is not whole must not stay. Elsewhere a signal ends us at
    // once, also while writing waits for a reader.
    let stop = match output.partial {
        Some(_) => shutdown::on_signal().context("signals")?,
        None => CancellationToken::new(),
    };
    let fetched = tokio::select! {
        fetched = fetch(&mut client, &target.organisation, &args.id, &mut output.writer, &bar) => fetched,
        () = stop.cancelled() => Err(Failure::new("stopped")),
    };
    bar.finish_and_clear();
    output.keep(fetched?)?;
    Ok(ExitCode::SUCCESS)
}

/// Where the bytes go.
struct Output {
    writer: Box<dyn Write>,
    /// A file that is being made.
    partial: Option<Partial>,
}

/// A file that is not whole yet, in the folder where it will be, so that renaming
/// is one step. Goes when dropped.
struct Partial {
    file: File,
    path: PathBuf,
    to: PathBuf,
}

impl Output {
    /// Opens a file, or standard output.
    fn open(to: Option<PathBuf>) -> Result<Self, Failure> {
        let Some(to) = to else {
            return Ok(Self { writer: Box::new(io::stdout()), partial: None });
        };
        let unusable = |path: &Path, fault| Failure::unusable(format!("{}: {fault}", path.display()));
        // What is there and no file, such as /dev/null or a named pipe, must not
        // be replaced by one.
        if fs::metadata(&to).is_ok_and(|about| !about.is_file()) {
            let device = File::options().write(true).open(&to).map_err(|fault| unusable(&to, fault))?;
            return Ok(Self { writer: Box::new(device), partial: None });
        }
        let mut path = to.as_os_str().to_owned();
        path.push(format!(".part-{}", std::process::id()));
        let path = PathBuf::from(path);
        let file = File::create(&path).map_err(|fault| unusable(&path, fault))?;
        let partial = Partial { file, path, to };
        let writer = Box::new(partial.file.try_clone().context(partial.path.display())?);
        Ok(Self { writer, partial: Some(partial) })
    }

    /// All is there and correct: so many bytes.
    fn keep(mut self, size: u64) -> Result<(), Failure> {
        self.writer.flush().map_err(unwritten)?;
        let Some(partial) = self.partial else { return Ok(()) };
        partial.file.sync_all().context(partial.path.display())?;
        fs::rename(&partial.path, &partial.to).context(partial.to.display())?;
        say!("{}: {size} bytes, MD5 correct", partial.to.display());
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // One that was kept isn't there any more.
        drop(fs::remove_file(&self.path));
    }
}

fn unwritten(fault: io::Error) -> Failure {
    Failure::output("writing", &fault)
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
    bar: &ProgressBar,
) -> Result<u64, Failure> {
    let request = GetResultRequest { organisation: organisation.into(), id: id.into() };
    let record = client.get_result(request).await?.into_inner().result.unwrap_or_default();
    bar.set_length(record.size);
    let request = DownloadResultRequest { organisation: organisation.into(), id: id.into() };
    let mut chunks = client.download_result(request).await?.into_inner();
    let (mut md5, mut size) = (Md5::new(), 0_u64);
    while let Some(chunk) = chunks.message().await? {
        md5.update(&chunk.data);
        size += chunk.data.len() as u64;
        to.write_all(&chunk.data).map_err(unwritten)?;
        bar.set_position(size);
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
