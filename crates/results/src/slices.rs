//! Parts of one array that lie one after the other, as parameters of a statement.

/// The first and the last of each part, from 1, as PostgreSQL counts.
#[derive(Debug, Default)]
pub struct Slices {
    /// The first of each.
    pub firsts: Vec<i32>,
    /// The last of each.
    pub lasts: Vec<i32>,
}

impl Slices {
    /// A part of so many, after the others. (Statements take some thousands.)
    pub fn push(&mut self, len: usize) {
        let end = self.lasts.last().copied().unwrap_or_default();
        self.firsts.push(end + 1);
        self.lasts.push(end + len as i32);
    }
}
