//! Settings of a service: one table per service says name, default and meaning;
//! values come from defaults, then a TOML file, then the environment
//! (`SLUICE_<NAME>`), then flags (`--<name>`). All faults are reported at once.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf};

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
}

/// A type a setting can have.
pub trait Value: Sized {
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
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }
}

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
        f.write_str("[redacted]")
    }
}

impl Value for Secret {
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

/// Raw values on their way to a settings struct, with the faults met so far.
#[derive(Debug, Default)]
pub struct Source {
    values: BTreeMap<String, String>,
    faults: Vec<String>,
}

impl Source {
    /// Collects file, environment and flags for the settings of `table`.
    pub fn collect(
        table: &[Setting],
        args: impl IntoIterator<Item = String>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let mut source = Self::default();
        let flags = source.flags(table, args);
        let env: BTreeMap<String, String> = env.into_iter().collect();
        let file = flags.get("config").or_else(|| env.get("SLUICE_CONFIG")).cloned();
        if let Some(path) = file.filter(|path| !path.is_empty()) {
            source.file(table, &path);
        }
        for setting in table {
            if let Some(value) = env.get(&format!("SLUICE_{}", setting.name.to_uppercase())) {
                source.values.insert(setting.name.into(), value.clone());
            }
        }
        source.values.extend(flags.into_iter().filter(|(name, _)| name != "config"));
        source
    }

    /// Takes one value out; remembers the fault if it is missing or malformed.
    pub fn take<T: Value>(&mut self, setting: &Setting) -> Option<T> {
        let given = self.values.remove(setting.name);
        let Some(text) = given.or_else(|| setting.default.map(str::to_owned)) else {
            self.faults.push(format!("{}: must be given ({})", setting.name, setting.meaning));
            return None;
        };
        T::parse(&text).map_err(|fault| self.faults.push(format!("{}: {fault}", setting.name))).ok()
    }

    /// The faults met so far.
    ///
    /// # Errors
    /// If there are any.
    pub fn finish(self) -> Result<(), Faults> {
        if self.faults.is_empty() { Ok(()) } else { Err(Faults(self.faults)) }
    }

    fn flags(
        &mut self,
        table: &[Setting],
        args: impl IntoIterator<Item = String>,
    ) -> BTreeMap<String, String> {
        let mut flags = BTreeMap::new();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let Some(flag) = arg.strip_prefix("--") else {
                self.faults.push(format!("{arg}: not a flag"));
                continue;
            };
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let name = name.replace('-', "_");
            if name != "config" && !table.iter().any(|setting| setting.name == name) {
                self.faults.push(format!("--{}: no such setting", name.replace('_', "-")));
                continue;
            }
            match inline.or_else(|| args.next()) {
                Some(value) => drop(flags.insert(name, value)),
                None => self.faults.push(format!("--{}: value missing", name.replace('_', "-"))),
            }
        }
        flags
    }

    fn file(&mut self, table: &[Setting], path: &str) {
        let parsed = std::fs::read_to_string(path)
            .map_err(|fault| fault.to_string())
            .and_then(|text| text.parse::<toml::Table>().map_err(|fault| fault.message().to_owned()));
        let file = match parsed {
            Ok(file) => file,
            Err(fault) => return self.faults.push(format!("{path}: {fault}")),
        };
        for (name, value) in file {
            if !table.iter().any(|setting| setting.name == name) {
                self.faults.push(format!("{path}: {name}: no such setting"));
                continue;
            }
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(flag) => flag.to_string(),
                _ => {
                    self.faults.push(format!("{path}: {name}: expected a single value"));
                    continue;
                }
            };
            self.values.insert(name, text);
        }
    }
}

/// Declares a settings struct together with its table.
#[macro_export]
macro_rules! settings {
    ($(#[$outer:meta])* $vis:vis struct $name:ident {
        $($field:ident: $type:ty = $default:expr, $meaning:literal;)*
    }) => {
        $(#[$outer])*
        #[derive(Clone, Debug)]
        $vis struct $name {
            $(#[doc = $meaning] pub $field: $type,)*
        }

        impl $name {
            /// The table of settings: name, default, meaning.
            pub const TABLE: &'static [$crate::config::Setting] = &[
                $($crate::config::Setting {
                    name: stringify!($field), default: $default, meaning: $meaning,
                },)*
            ];

            /// Reads the settings from file, environment and flags.
            ///
            /// # Errors
            /// Every fault there is.
            pub fn load(
                args: impl IntoIterator<Item = String>,
                env: impl IntoIterator<Item = (String, String)>,
            ) -> Result<Self, $crate::config::Faults> {
                let mut source = $crate::config::Source::collect(Self::TABLE, args, env);
                let mut rows = Self::TABLE.iter();
                $(let $field: Option<$type> = rows.next().and_then(|row| source.take(row));)*
                source.finish()?;
                match ($($field,)*) {
                    ($(Some($field),)*) => Ok(Self { $($field,)* }),
                    _ => Err($crate::config::Faults(vec!["a setting is missing".into()])),
                }
            }
        }
    };
}

/// The text of `--help`: what the program is and its table of settings.
#[must_use]
pub fn help(program: &str, table: &[Setting]) -> String {
    let mut text =
        format!("{program}\n\nSettings (--flag, SLUICE_NAME, or a line of the TOML --config FILE):\n");
    for setting in table {
        let flag = setting.name.replace('_', "-");
        let default = match setting.default {
            None => "required".to_owned(),
            Some("") => "none".to_owned(),
            Some(default) => default.to_owned(),
        };
        text.push_str(&format!("  --{flag:<34} {} [{default}]\n", setting.meaning));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    settings! {
        struct Example {
            listen: SocketAddr = Some("127.0.0.1:1"), "Where.";
            keys_file: PathBuf = None, "Which keys.";
            items_max: usize = Some("1000"), "How many.";
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
        let faults = Example::load(args("--items-max many --listen here --nonsense 1"), []).unwrap_err();
        let text = faults.to_string();
        for name in ["items_max", "listen", "keys_file", "--nonsense"] {
            assert!(text.contains(name), "{name} in {text}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret("hunter2".into())), "[redacted]");
    }
}
