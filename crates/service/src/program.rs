//! The main function of a service: settings, logs, runtime, exit code.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use tokio::net::TcpListener;

use crate::{
    chassis::{self, Service},
    config::{Faults, Part as _, Source, help},
    descriptors,
    error::chain,
    postgres::{self, Migrated},
    shutdown,
    telemetry::{self, Telemetry},
};

/// The flag that asks how the service would be set up.
const PRINT_CONFIG: &str = "--print-config";
/// Exit code for bad configuration (`EX_USAGE` of sysexits.h).
const EXIT_USAGE: u8 = 64;
/// How long the last spans may take to be delivered.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// The flags that ask what the program is, and of what version.
const HELP: [&str; 2] = ["--help", "-h"];
const VERSION: [&str; 2] = ["--version", "-V"];

/// Any failure that ends a service.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Listens on the address that a setting gives.
///
/// # Errors
/// If it is not to be had; names both.
pub async fn listen(setting: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    let bound = TcpListener::bind(address).await;
    Ok(bound.map_err(|error| format!("{setting}: can't listen on {address}: {error}"))?)
}

/// The same if the setting gives one.
///
/// # Errors
/// As [`listen`].
pub async fn listen_if(setting: &str, address: Option<SocketAddr>) -> Result<Option<TcpListener>, Failure> {
    let Some(address) = address else { return Ok(None) };
    listen(setting, address).await.map(Some)
}

/// The word that asks for the schema to be brought up to date.
const MIGRATE: &str = "migrate";

/// Brings a service's schema up to date, if that is what `args` ask for
/// (`migrate`, then flags); says what it did. Only what concerns the database is
/// read; the rest of the settings may be there, or not.
fn migrate<S: Service>(args: &[String]) -> Option<ExitCode> {
    let (MIGRATE, args) = args.split_first().map(|(word, args)| (word.as_str(), args))? else { return None };
    let program = format!("{} {MIGRATE}", S::PROGRAM.service);
    if asks_for(args, &HELP) {
        let head = "Bring the database's schema up to date, and let the user of database_url serve";
        print!("{head}.\n\nUsage: {program} [--SETTING VALUE]...\n\n{EXIT_CODES}\n\n");
        print!("{}", help(&postgres::Settings::table()));
        return Some(ExitCode::SUCCESS);
    }
    let mut source = Source::collect(&S::table(), args.iter().cloned(), environment());
    // Who serves may have been settled already.
    source.stand_in("database_url", "database_owner_url");
    let settings = postgres::Settings::take(&mut source);
    let migration = source.finish().and_then(|()| {
        let migration = settings.map(|settings| settings.migration());
        migration.unwrap_or_else(|| Err("a setting is missing".into())).map_err(|fault| Faults(vec![fault]))
    });
    let migration = match migration {
        Ok(migration) => migration,
        Err(faults) => {
            eprintln!("{program}: {faults}");
            return Some(ExitCode::from(EXIT_USAGE));
        }
    };
    let migrated = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(migration.run(S::migrations())));
    Some(match migrated {
        Ok(Migrated { applied, version }) => {
            applied.iter().for_each(|migration| println!("applied {migration}"));
            println!("the schema has version {version}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{program}: {}", chain(&*error));
            ExitCode::FAILURE
        }
    })
}

fn asks_for(args: &[String], flags: &[&str]) -> bool {
    args.iter().any(|arg| flags.contains(&arg.as_str()))
}

/// What help says of how a service ends.
pub const EXIT_CODES: &str = "Exit codes: 0, it did what was asked; 64, bad configuration; 1, anything else.";

/// What a service is and how it is called.
fn usage(program: telemetry::Program) -> String {
    let telemetry::Program { service, version, about } = program;
    format!(
        "{service} {version}\n{about}\n\n\
         Usage:\n\
         \x20 {service} [--SETTING VALUE]...          Serve until SIGTERM or SIGINT\n\
         \x20 {service} migrate [--SETTING VALUE]...  Bring the database's schema up to date\n\
         \x20 {service} {PRINT_CONFIG} ...            Print the settings and where each is from\n\
         \x20 {service} --version                     Print the version\n\n\
         {EXIT_CODES}\n"
    )
}

/// The environment, as far as it is text.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
}

/// The main function of a service. `args` are what follows the program's name: flags, to
/// serve until SIGTERM or SIGINT; `migrate` and flags, to bring the schema up to date;
/// with `--print-config` it only says how it would be set up. Exit codes: 0 a clean stop,
/// 64 bad configuration (every fault is printed), 1 anything else.
#[must_use]
pub fn main<S: Service>(args: Vec<String>) -> ExitCode {
    if let Some(code) = migrate::<S>(&args) {
        return code;
    }
    let program = S::PROGRAM;
    if asks_for(&args, &HELP) {
        print!("{}\n{}", usage(program), help(&S::table()));
        return ExitCode::SUCCESS;
    }
    if asks_for(&args, &VERSION) {
        println!("{} {}", program.service, program.version);
        return ExitCode::SUCCESS;
    }
    let env = environment();
    let (asked, args): (Vec<_>, Vec<_>) = args.into_iter().partition(|arg| arg == PRINT_CONFIG);
    let described = (!asked.is_empty()).then(|| {
        let table = S::table();
        Source::collect(&table, args.iter().cloned(), env.iter().cloned()).describe(&table)
    });
    let settings = match S::load(args, env) {
        Ok(settings) => settings,
        Err(faults) => {
            eprintln!("{}: {faults}", program.service);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if let Some(described) = described {
        print!("{described}");
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{}: {error}", program.service);
            return ExitCode::FAILURE;
        }
    };
    let telemetry = {
        let _inside = runtime.enter();
        Telemetry::start(program, settings.common().telemetry)
    };
    let telemetry = match telemetry {
        Ok(telemetry) => telemetry,
        Err(fault) => {
            eprintln!("{}: {fault}", program.service);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    descriptors::take_all();
    let ended = runtime.block_on(async {
        let shutdown = shutdown::on_signal()?;
        let listener = listen("listen", settings.common().listen).await?;
        chassis::run(settings, listener, shutdown).await
    });
    let code = match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "stopped");
            eprintln!("{}: {error}", program.service);
            ExitCode::FAILURE
        }
    };
    telemetry.stop(LAST_SPANS);
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_says_what_it_is_how_it_is_called_and_how_it_ends() {
        let text = usage(telemetry::Program { service: "sluice-test", version: "1.2.3", about: "Tests." });
        for wanted in
            ["sluice-test 1.2.3", "Tests.", "sluice-test migrate", PRINT_CONFIG, "64, bad configuration"]
        {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }
}
