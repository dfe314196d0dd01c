//! Collecting what is wrong with a request, so that its caller is told of all of it.

use super::{Error, Violation};

/// What is wrong, each with its field.
#[derive(Debug, Default)]
pub struct Faults(Vec<Violation>);

impl Faults {
    /// One more.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(Violation { field: field.into(), description: description.into() });
    }

    /// The value, or a stand-in for what was wrong: then the request fails anyway.
    pub fn or<T>(&mut self, read: Result<T, Error>, stand_in: T) -> T {
        read.unwrap_or_else(|error| {
            self.0.extend(error.violations);
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
    /// INVALID_ARGUMENT, naming every field that is wrong.
    pub fn none_or<T>(self, value: T) -> Result<T, Error> {
        if self.0.is_empty() { Ok(value) } else { Err(Error::invalid_all(self.0)) }
    }
}
