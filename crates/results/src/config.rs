//! The settings of the results service.

use std::{net::SocketAddr, path::PathBuf};

use sluice_service::{
    auth,
    config::{Secret, bounds},
    limits::Limits,
    postgres, settings, telemetry, tls,
};

use crate::storage::{guard::Policy, keyring::Keyring};

/// Least room for files: a part of the largest must find some.
const FILE_BYTES_LEAST: usize = 32 * 1024 * 1024;

settings! {
    /// How the results service is set up.
    pub struct Settings {
        listen: SocketAddr = Some("127.0.0.1:7402"), "Address to serve gRPC and HTTP on.";
        keys_file: PathBuf = None, "TOML file of the valid tokens; read again when it changes.";
        migrate: bool = Some("false"), "Bring the schema up to date at the start.";
        database_connections: usize = Some("6"), "Sessions for tenants' calls, at most; one organisation may hold at most as many as are left for the others. As many again for the service's own work, and four more.";
        recent_bytes_max: usize = Some("16777216"), "Bytes of the results recorded last that this replica keeps in memory, for about a minute, so that lists need not read them. 0: none.";
        storage_local_root: Option<PathBuf> = Some(""), "Directory that holds `local` storage. Empty: there is none.";
        storage_endpoints: String = Some(""), "Endpoints (http or https URLs, separated by commas) that storage credentials may lead to; they may have private addresses. With virtual_hosted_style that is the bucket's name below the endpoint named: https://*.s3.example.com allows every such name, with one label for the star.";
        storage_identity_buckets: String = Some(""), "Places (such as s3://bucket/path, separated by commas) that storage configs without credentials may use, with the service's own identity.";
        storage_keys_file: Option<PathBuf> = Some(""), "TOML file of the keys ([[key]] with id and secret, 64 hex digits) that encrypt storage credentials, the current one first.";
        storage_keys: Secret = Some(""), "The same keys as id=hex, separated by commas; after those of the file.";
        signing_keys_file: Option<PathBuf> = Some(""), "TOML file of the keys that sign URLs of db and local data, in the form of storage_keys_file.";
        signing_keys: Secret = Some(""), "The same keys as id=hex, separated by commas; after those of the file.";
        public_url: String = Some(""), "What signed URLs of db and local data begin with. Empty: http:// (with TLS https://) and the address to serve on.";
        db_file_bytes_max: u64 = Some("4294967296"), "Largest file that the results database takes (storage type db).";
        file_bytes_in_flight_max: usize = Some("100663296"), "Bytes of files on their way to their storage, in the whole process; above, a file waits for others to progress, for half of upload_idle_seconds at most. One organisation may hold at most as much as is left for the others: half, if it is alone. Not counted: the first 256 KiB and one chunk of every file. At least 32 MiB.";
        upload_idle_seconds: u64 = Some("900"), "An incomplete upload is removed after this long without a sign of life.";
        cleanup_interval_seconds: u64 = Some("60"), "How often the clean-up looks at each storage config.";
        ..telemetry: telemetry::Settings;
        ..database: postgres::Settings;
        ..limits: Limits;
        ..tls: tls::Settings;
    }
    checks {
        listen, tls => tls.faults(*listen);
        keys_file => auth::fault(keys_file);
        database_connections => bounds::count("database_connections", *database_connections);
        storage_endpoints => Policy::new(None, storage_endpoints, "").err();
        storage_identity_buckets => Policy::new(None, "", storage_identity_buckets).err();
        storage_keys_file, storage_keys => Keyring::load(storage_keys_file.as_deref(), storage_keys.expose())
            .err().map(|fault| format!("storage_keys_file and storage_keys: {fault}"));
        signing_keys_file, signing_keys => Keyring::load(signing_keys_file.as_deref(), signing_keys.expose())
            .err().map(|fault| format!("signing_keys_file and signing_keys: {fault}"));
        file_bytes_in_flight_max =>
            bounds::at_least("file_bytes_in_flight_max", *file_bytes_in_flight_max, FILE_BYTES_LEAST);
        upload_idle_seconds => bounds::seconds("upload_idle_seconds", *upload_idle_seconds);
        cleanup_interval_seconds => bounds::seconds("cleanup_interval_seconds", *cleanup_interval_seconds);
    }
}

#[cfg(test)]
mod tests {
    use sluice_service::config::Part as _;

    use super::*;

    #[test]
    fn there_is_room_for_a_part_of_the_largest_file() {
        let faults = |bytes: &str| {
            let flags = ["--keys-file=/dev/null", "--database-url=postgres://x", bytes].map(str::to_owned);
            Settings::load(flags, []).err().map(|faults| faults.0).unwrap_or_default()
        };
        assert_eq!(faults("--file-bytes-in-flight-max=33554432"), Vec::<String>::new());
        let fault = "file_bytes_in_flight_max: must be at least 33554432";
        assert_eq!(faults("--file-bytes-in-flight-max=33554431"), [fault]);
    }
}
