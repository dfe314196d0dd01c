//! `sluice publish`: one JSON object per line becomes one observation, sent in
//! batches until each has its outcome.

mod lines;
mod sender;
mod summary;

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use sluice_proto::ingest::v1::Outcome;
use sluice_service::shutdown;
use tokio::{
    sync::{Mutex as AsyncMutex, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    failure::{Context, Failure},
    files::open_input,
    progress,
    retry::NOT_KEPT,
    target::{Target, TargetArgs},
    text::{out, parse_seconds_or_bare, say},
};
use lines::{Item, Lines};
use sender::Sender;
pub(crate) use summary::{Ended, OUTCOMES, Summary, outcome_name};

/// What to publish and how.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0, every observation is success, duplicate, suppressed or throttled; 1, at least one \
is error or retry, some call failed, or a signal ended it (a second one at once); 2, it could not run or go on: usage, no connection, the token is refused."
)]
pub struct PublishArgs {
    /// A file with one JSON object per line; `-` for standard input. The line's
    /// bytes are the data; `path` names the definition, and `chkpt`,
    /// `identifier`, `poll` and `task` are taken where they are text.
    file: PathBuf,
    /// The definition of all lines, instead of their `path`.
    #[arg(long)]
    definition: Option<String>,
    /// Observations per request.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    batch: u16,
    /// Requests at the same time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// How long a batch is tried while the service says `retry` or is away, such
    /// as 5m; a bare number is seconds.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_seconds_or_bare)]
    retry_for: u64,
    /// Print one JSON line per outcome, in the order of completion.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Told how each line ended, in the order of completion.
pub(crate) type Tell = Arc<dyn Fn(&Ended) + Send + Sync>;

/// How a source of lines is published.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) definition: Option<String>,
    pub(crate) batch: usize,
    pub(crate) concurrency: usize,
    pub(crate) retry_for: Duration,
    pub(crate) tell: Tell,
}

/// What became of the lines.
pub(crate) struct Published {
    pub(crate) summary: Summary,
    /// Why not all were read and sent, if so.
    pub(crate) fault: Option<Failure>,
}

/// Publishes a file.
pub(crate) async fn run(args: PublishArgs) -> Result<ExitCode, Failure> {
    let target = args.target.resolve()?;
    let (reader, size) = open(&args.file)?;
    let unwritten: Arc<Mutex<Option<Failure>>> = Arc::default();
    let first = unwritten.clone();
    let plan = Plan {
        definition: args.definition,
        batch: args.batch.into(),
        concurrency: args.concurrency.into(),
        retry_for: Duration::from_secs(args.retry_for),
        tell: if args.json { Arc::new(move |ended| print_json(ended, &first)) } else { Arc::new(|_| {}) },
    };
    let started = Instant::now();
    let [stop, at_once] = shutdown::on_signals().context("signals")?;
    let Published { summary, fault } = tokio::select! {
        published = publish(&target, reader, size, &plan, &stop) => published?,
        () = at_once.cancelled() => {
            return Err(Failure::new("stopped twice: what was under way may have been kept"));
        }
    };
    if fault.is_none() || summary.total() > 0 {
        let report = summary.report(started.elapsed());
        if args.json {
            say!("{}", report.trim_end());
        } else {
            out!("{report}")?;
        }
    }
    let unwritten = unwritten.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let (Some(_), Some(unwritten)) = (&fault, &unwritten) {
        say!("sluice: {unwritten}");
    }
    match fault.or(unwritten) {
        Some(fault) => Err(fault),
        None if summary.is_clean() => Ok(ExitCode::SUCCESS),
        None => Ok(ExitCode::FAILURE),
    }
}

/// Publishes all lines and says what became of them. `size` in bytes, if it is
/// known, makes the progress bar tell how much is left. When a call fails for good,
/// reading fails, or `stop` is cancelled, what was sent before still comes to its end.
///
/// # Errors
/// If the service can't be reached; nothing was read then.
pub(crate) async fn publish(
    target: &Target,
    reader: impl BufRead + Send + 'static,
    size: Option<u64>,
    plan: &Plan,
    stop: &CancellationToken,
) -> Result<Published, Failure> {
    target.reach_ingest().await?;
    let reporter = Arc::new(Reporter::new(size, plan.tell.clone()));
    let lines = Lines::new(reader, plan.definition.clone(), plan.batch);
    // A batch waits for each sender, no more are read ahead.
    let (batches, waiting) = mpsc::channel(plan.concurrency);
    let waiting = Arc::new(AsyncMutex::new(waiting));
    let reading = read(lines, batches, reporter.clone());
    let client = target.ingest()?;
    // A call that is refused stops them, too.
    let stop_sending = stop.child_token();
    let mut senders: JoinSet<Result<(), Status>> = JoinSet::new();
    for _ in 0..plan.concurrency {
        let mut sender = Sender {
            client: client.clone(),
            organisation: target.organisation.clone(),
            retry_for: plan.retry_for,
            stop: stop_sending.clone(),
        };
        let (waiting, reporter) = (waiting.clone(), reporter.clone());
        senders.spawn(async move {
            loop {
                let next = async { waiting.lock().await.recv().await };
                let batch: Option<Vec<Item>> = sender.stop.run_until_cancelled(next).await.flatten();
                let Some(batch) = batch else { return Ok(()) };
                sender.send(&batch, |ended| reporter.tell_sent(&ended)).await?;
                reporter.sent(&batch);
            }
        });
    }
    let (mut failed, mut fault) = (None, None);
    while let Some(ended) = senders.join_next().await {
        match ended.context("sender") {
            Ok(Ok(())) => {}
            Ok(Err(status)) => failed = failed.or(Some(status)),
            Err(failure) => {
                stop_sending.cancel();
                fault.get_or_insert(failure);
            }
        }
    }
    let mut fault = fault.or_else(|| failed.map(|status| reporter.failed(&status)));
    // Who read may wait for somebody to take a batch.
    let is_all_sent = {
        let waiting = waiting.lock().await;
        waiting.is_closed() && waiting.is_empty()
    };
    drop(waiting);
    if fault.is_none() && stop.is_cancelled() && !is_all_sent {
        fault = Some(reporter.ended_early("stopped", Failure::new));
    } else if fault.is_none() {
        // Else it may still wait for a terminal.
        fault = match reading.await.context("reader") {
            Ok(Ok(())) => None,
            Ok(Err(fault)) => Some(reporter.ended_early(&format!("reading: {fault}"), Failure::new)),
            Err(failure) => Some(failure),
        };
    }
    Ok(Published { summary: reporter.finish(), fault })
}

/// Reads on a thread of its own: files and terminals block.
fn read<R: BufRead + Send + 'static>(
    mut lines: Lines<R>,
    batches: mpsc::Sender<Vec<Item>>,
    reporter: Arc<Reporter>,
) -> tokio::task::JoinHandle<std::io::Result<()>> {
    tokio::task::spawn_blocking(move || {
        let refuse = |fault: lines::Unsendable| {
            // Nothing is told after the end.
            if batches.is_closed() {
                return;
            }
            reporter.tell(&Ended {
                line: fault.line,
                outcome: Outcome::Error,
                reason: fault.reason.into(),
                ingest_id: String::new(),
                chkpt: String::new(),
                details: fault.details,
                original_outcome: Outcome::Unspecified,
            });
        };
        while let Some(batch) = lines.next(refuse)? {
            if batches.blocking_send(batch).is_err() {
                break;
            }
        }
        Ok(())
    })
}

fn open(path: &Path) -> Result<(Box<dyn BufRead + Send>, Option<u64>), Failure> {
    if path == Path::new("-") {
        return Ok((Box::new(BufReader::new(std::io::stdin())), None));
    }
    let (file, size) = open_input(path)?;
    Ok((Box::new(BufReader::with_capacity(1 << 20, file)), size))
}

/// Prints an outcome, and keeps the first fault of doing so. When nobody reads any
/// more, the summary still tells the truth.
fn print_json(ended: &Ended, first: &Mutex<Option<Failure>>) {
    let mut line = ended.to_json();
    line["line"] = ended.line.into();
    if let Err(fault) = out!("{line}")
        && !fault.is_nobody_reads()
    {
        first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
    }
}

/// Counts, draws the progress bar, passes on how each line ended.
struct Reporter {
    summary: Mutex<Summary>,
    bar: ProgressBar,
    started: Instant,
    tell: Tell,
    /// The last line that was sent. Lines are sent in their order, so all before it
    /// were, and none after it.
    last_sent: AtomicU64,
    /// Whether anything was decided, or may have been.
    decided: AtomicBool,
}

impl Reporter {
    fn new(size: Option<u64>, tell: Tell) -> Self {
        let counts = "{bar:30} {percent:>3}%  {elapsed}  {msg}";
        let bar = progress::bar(size, counts, "{spinner} {elapsed}  {msg}");
        Self {
            summary: Mutex::default(),
            bar,
            started: Instant::now(),
            tell,
            last_sent: AtomicU64::new(0),
            decided: AtomicBool::new(false),
        }
    }

    /// How a line that was sent ended.
    fn tell_sent(&self, ended: &Ended) {
        self.last_sent.fetch_max(ended.line, Ordering::Relaxed);
        self.decided.fetch_or(ended.reason != NOT_KEPT, Ordering::Relaxed);
        self.tell(ended);
    }

    /// What a call's fault means for all of them, when the last call has ended.
    fn failed(&self, status: &Status) -> Failure {
        let decided = self.decided.load(Ordering::Relaxed);
        let failure = if decided { Failure::new } else { Failure::unusable };
        self.ended_early(&format!("{:?}: {}", status.code(), status.message()), failure)
    }

    /// Why not all was sent, and where to go on, when the last call has ended.
    fn ended_early(&self, why: &str, failure: fn(String) -> Failure) -> Failure {
        let last = self.last_sent.load(Ordering::Relaxed);
        failure(format!("{why}; what follows line {last} was not sent"))
    }

    fn tell(&self, ended: &Ended) {
        (self.tell)(ended);
        self.summary.lock().unwrap_or_else(PoisonError::into_inner).add(ended);
    }

    fn sent(&self, batch: &[Item]) {
        let bytes: u64 = batch.iter().map(|item| item.data().len() as u64 + 1).sum();
        self.bar.inc(bytes);
        if !self.bar.is_hidden() {
            let summary = self.summary.lock().unwrap_or_else(PoisonError::into_inner);
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = summary.total() as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
            self.bar.set_message(format!("{rate:.0}/s  {}", summary.line()));
        }
    }

    fn finish(&self) -> Summary {
        self.bar.finish_and_clear();
        std::mem::take(&mut self.summary.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
