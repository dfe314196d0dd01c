//! Settings of a service: one table per service says name, default and meaning;
//! values come from defaults, then a TOML file, then the environment
//! (`SLUICE_<NAME>`), then flags (`--<name>`). All faults are reported at once.

pub mod bounds;
mod macros;
mod source;

use std::{fmt, net::SocketAddr, path::PathBuf};

pub use macros::Part;
pub use source::Source;

/// One row of a service's table of settings.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The name in the file; upper case with `SLUICE_` in front in the
    /// environment; with dashes as a flag.
    pub name: &'static str,
    /// The value when nothing is given. `None`: must be given.
    pub default: Option<&'static str>,
    /// Meaning, unit and limits.
    pub meaning: &'static str,
    /// Whether the value is never shown.
    pub secret: bool,
}

/// A type a setting can have.
pub trait Value: Sized {
    /// Whether the value is never shown.
    const SECRET: bool = false;

    /// Reads the value from text, or says what was expected.
    ///
    /// # Errors
    /// What was expected instead.
    fn parse(text: &str) -> Result<Self, String>;
}

macro_rules! value {
    ($($type:ty: $expected:literal),* $(,)?) => {$(
        impl Value for $type {
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("expected {}", $expected))
            }
        }
    )*};
}
value! {
    SocketAddr: "an address such as 127.0.0.1:7401",
    u32: "a whole number", u64: "a whole number", usize: "a whole number",
    bool: "true or false",
    String: "text", PathBuf: "a path",
}

impl<T: Value> Value for Option<T> {
    const SECRET: bool = T::SECRET;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }
}

/// What is shown instead of a secret.
const REDACTED: &str = "[redacted]";

/// Text that is never shown: tokens, database URLs.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Value for Secret {
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(text.into()))
    }
}

/// Every fault found in the configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad configuration:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for Faults {}

/// Longest line of a help text, in characters.
const HELP_COLUMNS: usize = 100;

/// The settings' part of a help text.
#[must_use]
pub fn help(table: &[Setting]) -> String {
    let mut text = String::from(
        "Settings: a line of the TOML file --config FILE, a variable SLUICE_NAME, or a flag; the later wins.\n",
    );
    for setting in table {
        let flag = setting.name.replace('_', "-");
        let default = match setting.default {
            None => "required".to_owned(),
            Some("") => "default: none".to_owned(),
            Some(default) => format!("default: {default}"),
        };
        text.push_str(&format!("\n  --{flag} VALUE"));
        wrap(&mut text, &format!("{} [{default}]", setting.meaning));
    }
    text.push('\n');
    text
}

/// Adds a paragraph, indented, as lines of their own.
fn wrap(text: &mut String, paragraph: &str) {
    const INDENT: &str = "\n         ";
    let mut column = HELP_COLUMNS;
    for word in paragraph.split_whitespace() {
        let length = word.chars().count() + 1;
        if column + length > HELP_COLUMNS {
            text.push_str(INDENT);
            column = INDENT.len() - 1;
        }
        text.push(' ');
        text.push_str(word);
        column += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;

    settings! {
        struct Shared {
            least: usize = Some("1"), "How few.";
            most: usize = Some("5"), "How many.";
        }
        checks {
            least, most => (least > most).then(|| "least: must be up to most".to_owned());
        }
    }

    settings! {
        struct Example {
            listen: SocketAddr = Some("127.0.0.1:1"), "Where.";
            keys_file: PathBuf = None, "Which keys.";
            items_max: usize = Some("1000"), "How many.";
            database_url: Option<Secret> = Some(""), "Which database.";
            ..shared: Shared;
        }
    }

    fn args(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn flags_win_over_environment_over_file_over_default() {
        let dir = std::env::temp_dir().join(format!("sluice-config-{}", std::process::id()));
        std::fs::write(&dir, "items_max = 5\nkeys_file = 'from-file'\nlisten = '127.0.0.1:5'").unwrap();
        let env = [("SLUICE_ITEMS_MAX".into(), "6".into()), ("SLUICE_LISTEN".into(), "127.0.0.1:6".into())];
        let flags = format!("--config {} --items-max=7", dir.display());
        let settings = Example::load(args(&flags), env).unwrap();
        std::fs::remove_file(dir).unwrap();
        assert_eq!(settings.items_max, 7);
        assert_eq!(settings.listen.port(), 6);
        assert_eq!(settings.keys_file, PathBuf::from("from-file"));
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let given = "--items-max many --listen here --nonsense 1 --least 3 --most 2";
        let text = Example::load(args(given), []).unwrap_err().to_string();
        for name in ["items_max", "listen", "keys_file", "--nonsense", "least: must be up to most"] {
            assert!(text.contains(name), "{name} in {text}");
        }
        assert_eq!(text.lines().count(), 6);
    }

    #[test]
    fn a_part_stands_in_the_table_of_who_includes_it() {
        let names: Vec<_> = Example::table().iter().map(|row| (row.name, row.secret)).collect();
        assert_eq!(
            names,
            [
                ("listen", false),
                ("keys_file", false),
                ("items_max", false),
                ("database_url", true),
                ("least", false),
                ("most", false)
            ]
        );
        let settings = Example::load(args("--keys-file k --least 5"), []).unwrap();
        assert_eq!((settings.shared.least, settings.shared.most), (5, 5));
        assert!(settings.database_url.is_none());
    }

    #[test]
    fn help_names_every_setting_in_lines_that_fit() {
        let long = Setting {
            name: "items_max",
            default: Some("1000"),
            meaning: "How many items there may be at the same time in the whole process; above, callers are told \
                      to retry, each after a time of its own.",
            secret: false,
        };
        let text = help(&[long]);
        assert!(text.lines().all(|line| line.chars().count() <= HELP_COLUMNS), "{text}");
        assert!(text.contains("\n  --items-max VALUE\n          How many items"), "{text}");
        assert!(text.ends_with(" [default: 1000]\n"), "{text}");
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret("hunter2".into())), "[redacted]");
    }

    #[test]
    fn what_is_described_says_whence_and_can_be_read_again() {
        let file = std::env::temp_dir().join(format!("sluice-described-{}", std::process::id()));
        std::fs::write(&file, "items_max = 5\nkeys_file = 'a \"b\" # c'").unwrap();
        let env = [("SLUICE_DATABASE_URL".to_owned(), "postgres://me:hunter2@h/d".to_owned())];
        let flags = format!("--config {} --most 7", file.display());
        let table = Example::table();
        let described = Source::collect(&table, args(&flags), env).describe(&table);
        let lines: Vec<_> = described.lines().collect();
        assert_eq!(
            lines,
            [
                "listen = \"127.0.0.1:1\" # default",
                "keys_file = 'a \"b\" # c' # file",
                "items_max = 5 # file",
                "database_url = \"[redacted]\" # environment",
                "least = 1 # default",
                "most = 7 # flag",
            ]
        );
        std::fs::write(&file, &described).unwrap();
        let again = Example::load(args(&format!("--config {}", file.display())), []).unwrap();
        std::fs::remove_file(file).unwrap();
        assert_eq!((again.items_max, again.shared.most, again.keys_file), (5, 7, "a \"b\" # c".into()));
    }
}
