//! Collecting what is wrong with a request, so that its caller is told of all of it.

use super::{Error, Violation};

/// What is wrong, each with its field.
#[derive(Debug, Default)]
pub struct Violations {
    of_fields: Vec<Violation>,
    /// The first error that names no field.
    other: Option<Error>,
}

impl Violations {
    /// One more.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.of_fields.push(Violation { field: field.into(), description: description.into() });
    }

    /// The value, or a stand-in for what was wrong: then the request fails anyway.
    pub fn or<T>(&mut self, read: Result<T, Error>, stand_in: T) -> T {
        read.unwrap_or_else(|error| {
            if error.violations.is_empty() {
                self.other.get_or_insert(error);
            } else {
                self.of_fields.extend(error.violations);
            }
            stand_in
        })
    }

    /// The same with the type's own stand-in.
    pub fn or_default<T: Default>(&mut self, read: Result<T, Error>) -> T {
        self.or(read, T::default())
    }

    /// The value if nothing was wrong.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, naming every field that is wrong; before that, what is wrong beside
    /// fields.
    pub fn none_or<T>(self, value: T) -> Result<T, Error> {
        match self.other {
            Some(error) => Err(error),
            None if self.of_fields.is_empty() => Ok(value),
            None => Err(Error::invalid_all(self.of_fields)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_wrong_gets_lost() {
        let (field, away) = (|| Error::invalid("a", "b"), || Error::unavailable("away"));
        let read = |bad: Vec<Error>| {
            let mut faults = Violations::default();
            bad.into_iter().for_each(|bad| faults.or_default::<()>(Err(bad)));
            faults.none_or(()).map_err(|error| error.reason())
        };
        assert_eq!(read(vec![]), Ok(()));
        assert_eq!(read(vec![field(), field()]), Err(field().reason()));
        assert_eq!(read(vec![field(), away()]), Err(away().reason()));
    }
}
