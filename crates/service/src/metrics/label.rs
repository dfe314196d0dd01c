//! Labels with few known values: the words of one label stand in one place, and all of
//! them are exposed from the start.

/// The values of a label; made by [`label!`](crate::label).
pub trait Label: Copy + 'static {
    /// Each of them.
    const ALL: &'static [Self];

    /// What is exposed.
    fn word(self) -> &'static str;
}

/// Declares an enum whose values are those of a label, each with its word.
#[macro_export]
macro_rules! label {
    (
        $(#[$outer:meta])* $vis:vis enum $name:ident {
            $($(#[$inner:meta])* $value:ident = $word:literal,)+
        }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {
            $($(#[$inner])* $value,)+
        }

        impl $crate::metrics::Label for $name {
            const ALL: &'static [Self] = &[$(Self::$value,)+];

            fn word(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }
    };
}
