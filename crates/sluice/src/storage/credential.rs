//! `--credential NAME=VALUE`: a part of a storage config's credentials, given as
//! it is, in a file, on standard input or in the environment.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read},
};

use sluice_service::config::{Secret, Value as _};

use crate::failure::Failure;

/// Takes what was given as it is: what clap says about a wrong value would show
/// it.
pub(super) fn verbatim(text: &str) -> Result<Secret, String> {
    Secret::parse(text)
}

/// The credentials that were given, read from where they are.
///
/// # Errors
/// If one is malformed, can't be read or is given twice. The error shows no value.
pub(super) fn read(given: &[Secret]) -> Result<HashMap<String, String>, Failure> {
    read_with(given, io::stdin())
}

fn read_with(given: &[Secret], stdin: impl Read) -> Result<HashMap<String, String>, Failure> {
    let mut stdin = Some(stdin);
    let mut credentials = HashMap::new();
    for one in given {
        let (name, value) =
            one.expose().split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
                Failure::unusable("--credential: expected NAME=VALUE, NAME=@FILE or NAME=env:VARIABLE")
            })?;
        if credentials.insert(name.to_owned(), value_of(value, &mut stdin)?).is_some() {
            return Err(Failure::unusable(format!("--credential {name} is given twice")));
        }
    }
    Ok(credentials)
}

/// One value. `stdin` is there until it was read.
fn value_of(given: &str, stdin: &mut Option<impl Read>) -> Result<String, Failure> {
    if let Some(path) = given.strip_prefix('@') {
        let text = match path {
            "-" => {
                let twice = || Failure::unusable("--credential: standard input can hold one value only");
                io::read_to_string(stdin.take().ok_or_else(twice)?)
            }
            path => fs::read_to_string(path),
        };
        let text = text.map_err(|fault| Failure::unusable(format!("{path}: {fault}")))?;
        // Editors and `echo` end a file with a new line that is no part of it.
        let line = text.strip_suffix('\n').unwrap_or(&text);
        return Ok(line.strip_suffix('\r').unwrap_or(line).to_owned());
    }
    let Some(name) = given.strip_prefix("env:") else { return Ok(given.to_owned()) };
    let missing = || Failure::unusable(format!("{name}: no such environment variable, or it is no text"));
    std::env::var(name).map_err(|_| missing())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Result<HashMap<String, String>, Failure> {
        let given: Result<Vec<Secret>, String> = texts.iter().map(|text| verbatim(text)).collect();
        read_with(&given.unwrap(), &b"typed\r\n"[..])
    }

    #[test]
    fn values_come_as_they_are_from_files_and_from_the_environment() {
        let path = std::env::temp_dir().join(format!("sluice-credential-{}", std::process::id()));
        fs::write(&path, "se=cret\n").unwrap();
        let file = format!("b=@{}", path.display());
        let read = of(&["a=x=y", &file, "c=env:CARGO_PKG_NAME", "d=", "e=@-"]).unwrap();
        fs::remove_file(&path).unwrap();
        let expected = [("a", "x=y"), ("b", "se=cret"), ("c", "sluice"), ("d", ""), ("e", "typed")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn what_can_not_be_read_is_named_and_no_secret_is_shown() {
        for (texts, says) in [
            (&["a=@/nonexistent"][..], "/nonexistent"),
            (&["a=env:SLUICE_NO_SUCH_VARIABLE"], "SLUICE_NO_SUCH_VARIABLE"),
            (&["a=secret", "a=secret"], "twice"),
            (&["a=@-", "b=@-"], "standard input"),
            (&["secret"], "NAME=VALUE"),
            (&["=secret"], "NAME=VALUE"),
        ] {
            let failure = of(texts).unwrap_err();
            assert!(failure.exit() == 2 && failure.to_string().contains(says), "{failure}");
            assert!(!failure.to_string().contains("secret"));
        }
    }
}
