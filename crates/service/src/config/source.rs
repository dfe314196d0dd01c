//! Where values come from: a TOML file, then the environment, then flags.

use std::collections::BTreeMap;

use super::{Faults, REDACTED, Setting, Value};

/// Raw values on their way to a settings struct, with the faults met so far.
#[derive(Debug, Default)]
pub struct Source {
    values: BTreeMap<String, Given>,
    faults: Vec<String>,
}

/// A value and where it came from.
#[derive(Clone, Debug)]
struct Given {
    text: String,
    origin: Origin,
}

#[derive(Clone, Copy, Debug)]
enum Origin {
    Default,
    File,
    Environment,
    Flag,
}

impl Origin {
    fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
        }
    }
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
                source.give(setting.name.into(), value.clone(), Origin::Environment);
            }
        }
        for (name, text) in flags.into_iter().filter(|(name, _)| name != "config") {
            source.give(name, text, Origin::Flag);
        }
        source
    }

    fn give(&mut self, name: String, text: String, origin: Origin) {
        self.values.insert(name, Given { text, origin });
    }

    /// The value of a setting, if there is any.
    fn given(&self, setting: &Setting) -> Option<Given> {
        let default = || setting.default.map(|text| Given { text: text.to_owned(), origin: Origin::Default });
        self.values.get(setting.name).cloned().or_else(default)
    }

    /// Every setting of `table` with its value and where that came from, as a TOML
    /// file that can be read again, but for the secrets in it.
    #[must_use]
    pub fn describe(&self, table: &[Setting]) -> String {
        let mut text = String::new();
        for setting in table {
            let Some(Given { text: value, origin }) = self.given(setting) else { continue };
            let value = if setting.secret && !value.is_empty() { REDACTED.to_owned() } else { value };
            let value = match (value.parse::<i64>(), value.parse::<bool>()) {
                (Ok(number), _) if number.to_string() == value => value,
                (_, Ok(_)) => value,
                _ => toml::Value::String(value).to_string(),
            };
            text.push_str(&format!("{} = {value} # {}\n", setting.name, origin.name()));
        }
        text
    }

    /// Takes one value out; remembers the fault if it is missing or malformed.
    pub fn take<T: Value>(&mut self, setting: &Setting) -> Option<T> {
        let Some(Given { text, .. }) = self.given(setting) else {
            self.faults.push(format!("{}: must be given ({})", setting.name, setting.meaning));
            return None;
        };
        T::parse(&text).map_err(|fault| self.faults.push(format!("{}: {fault}", setting.name))).ok()
    }

    /// Remembers faults that several values make together.
    pub fn faults(&mut self, faults: impl IntoIterator<Item = String>) {
        self.faults.extend(faults);
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
        let mut args = args.into_iter().peekable();
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
                // What follows was meant as its value.
                args.next_if(|next| inline.is_none() && !next.starts_with("--"));
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
                toml::Value::Float(number) => number.to_string(),
                toml::Value::Boolean(flag) => flag.to_string(),
                _ => {
                    self.faults.push(format!("{path}: {name}: expected a single value"));
                    continue;
                }
            };
            self.give(name, text, Origin::File);
        }
    }
}
