//! Storage configs as tables and as JSON.

use serde_json::{Value, json};
use sluice_proto::results::v1::{StorageConfig, storage_config::State};

use crate::text::{Table, proto_seconds, seconds, time};

/// A state as it is shown: lower case.
pub(super) fn state_name(state: State) -> &'static str {
    match state {
        State::New => "new",
        State::Valid => "valid",
        State::Invalid => "invalid",
        State::Deactivated => "deactivated",
        State::Unspecified => "unknown",
    }
}

/// Storage configs as a table.
pub(super) fn table(configs: &[StorageConfig]) -> Table {
    let mut table =
        Table::new(&["ID", "URL", "STATE", "DEFAULT", "MANAGED", "RETENTION", "SIGNED URLS", "CREATED"]);
    configs.iter().for_each(|config| table.row(row(config)));
    table
}

fn row(config: &StorageConfig) -> [String; 8] {
    let yes_or_dash = |is: bool| if is { "yes" } else { "-" }.to_owned();
    let retention = match proto_seconds(config.retention.as_ref()) {
        // Nothing in a customer's own bucket is ever expired.
        _ if !config.managed => "-".into(),
        Some(0) | None => "forever".into(),
        Some(kept) => seconds(kept),
    };
    let expiry = proto_seconds(config.signed_urls_expiry.as_ref()).unwrap_or_default();
    [
        config.id.clone(),
        config.url.clone(),
        state_name(config.state()).into(),
        yes_or_dash(config.is_default),
        yes_or_dash(config.managed),
        retention,
        if config.signed_urls_enabled { seconds(expiry) } else { "-".into() },
        time(config.date_created.as_ref()).unwrap_or_default(),
    ]
}

/// One storage config, field by field.
pub(super) fn details(config: &StorageConfig) -> Table {
    Table::fields(&to_json(config))
}

/// A storage config as JSON, durations in seconds. There is nothing secret in it.
pub(super) fn to_json(config: &StorageConfig) -> Value {
    json!({
        "id": config.id,
        "resource": config.resource,
        "organisation": config.organisation,
        "type": config.r#type,
        "url": config.url,
        "signed_urls_enabled": config.signed_urls_enabled,
        "signed_urls_expiry": proto_seconds(config.signed_urls_expiry.as_ref()),
        "managed": config.managed,
        "retention": proto_seconds(config.retention.as_ref()),
        "state": state_name(config.state()),
        "state_details": config.state_details,
        "is_default": config.is_default,
        "date_created": time(config.date_created.as_ref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::to_proto;

    #[test]
    fn nothing_secret_is_shown_and_retention_only_where_it_applies() {
        let config = StorageConfig {
            url: "s3://bucket/path".into(),
            credentials: [("secret_access_key".to_owned(), "hidden".to_owned())].into(),
            retention: Some(to_proto(86_400)),
            ..StorageConfig::default()
        };
        assert!(!to_json(&config).to_string().contains("hidden"));
        assert_eq!(row(&config)[5], "-");
        assert_eq!(row(&StorageConfig { managed: true, ..config.clone() })[5], "1d");
        let for_ever = StorageConfig { managed: true, retention: Some(to_proto(0)), ..config };
        assert_eq!(row(&for_ever)[5], "forever");
    }
}
