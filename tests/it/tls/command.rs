//! The command over https, and what is no configuration.

use sluice_tests::{Pair, Tenant, scratch};
use tokio::process::Command;

use crate::cli::{run, run_well, sluice, sluice_as, text};

fn with_tls(pair: &Pair, args: &[&str]) -> Command {
    let mut command = sluice_as(pair, Tenant::Acme, args);
    let path = |name: &str| pair.certificates().path(name);
    command.env("SLUICE_CA_FILE", path("servers"));
    command.env("SLUICE_CLIENT_CERTIFICATE_FILE", path("client"));
    command.env("SLUICE_CLIENT_KEY_FILE", path("client.key"));
    command
}

#[tokio::test]
async fn the_command_speaks_https_with_a_ca_and_a_client_certificate() {
    let pair = Pair::builder().tls().start().await;
    run_well(with_tls(&pair, &["definitions", "put", "--path", "a/b"])).await;
    let listed = run_well(with_tls(&pair, &["definitions", "list"])).await;
    assert!(listed.contains("a/b"), "{listed}");

    let by_flags = |certificate: &str| {
        let path = |name: &str| pair.certificates().path(name).display().to_string();
        let key = format!("{certificate}.key");
        let (ca, certificate, key) = (path("servers"), path(certificate), path(&key));
        let flags = ["--ca-file", &ca, "--client-certificate-file", &certificate, "--client-key-file", &key];
        sluice_as(&pair, Tenant::Acme, &[&["definitions", "list"], &flags[..]].concat())
    };
    assert!(run_well(by_flags("client")).await.contains("a/b"));
    assert!(!run(by_flags("server")).await.status.success(), "a certificate of another CA");
    let none = run(sluice_as(&pair, Tenant::Acme, &["definitions", "list"])).await;
    assert!(!none.status.success(), "the system knows no such CA");
    let missing = run(by_flags("missing")).await;
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("missing"));
}

/// The faults of a service that is started with these flags.
async fn faults(service: &str, flags: &[&str]) -> String {
    let output = run(sluice(&[&["serve", service], flags].concat())).await;
    assert_eq!(output.status.code(), Some(64), "{}", text(&output.stderr));
    text(&output.stderr)
}

#[tokio::test]
async fn what_tls_lacks_is_reported_with_everything_else() {
    let needed = ["--database-url=postgres://h/d", "--keys-file=k"];
    let ingest = ["--results-url=http://127.0.0.1:1", "--results-token-file=t"];
    let certificates = scratch("faults").display().to_string();
    let ca = format!("--database-ca-file={certificates}/none");
    let told = faults("results", &["--listen=0.0.0.0:0", "--keys-file=k", &ca]).await;
    for name in ["listen", "plaintext", "database_url: must be given"] {
        assert!(told.contains(name), "{name} in {told}");
    }
    for (service, more) in [("results", &[][..]), ("ingest", &ingest[..])] {
        let given = [&needed[..], more].concat();
        let told = |flags: &[&str]| {
            let all = [&given[..], flags].concat().iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>();
            async move { faults(service, &all.iter().map(String::as_str).collect::<Vec<_>>()).await }
        };
        assert!(told(&["--listen=0.0.0.0:0"]).await.contains("plaintext"));
        let both = told(&["--listen=[::]:0", &ca]).await;
        assert!(both.contains("plaintext") && both.contains("database_ca_file"), "{both}");
        assert!(told(&["--tls-certificate-file=c"]).await.contains("tls_key_file"));
        assert!(told(&["--tls-certificate-file=/none", "--tls-key-file=k"]).await.contains("/none"));
    }
    let given = [&needed[..], &ingest[..1], &["--results-token-file=t", "--results-ca-file=/none"]].concat();
    assert!(faults("ingest", &given).await.contains("/none"));
}
