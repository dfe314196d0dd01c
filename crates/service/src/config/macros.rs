//! The `settings!` macro, and what it makes of a struct.

use super::{Faults, Setting, Source};

/// Settings that are declared together: all of a service, or some that stand in several
/// services' tables.
pub trait Part: Sized {
    /// The table: name, default, meaning.
    fn table() -> Vec<Setting>;

    /// Takes the values out; the faults stay in the source.
    fn take(source: &mut Source) -> Option<Self>;

    /// Reads the settings from file, environment and flags.
    ///
    /// # Errors
    /// Every fault there is.
    fn load(
        args: impl IntoIterator<Item = String>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Faults> {
        let mut source = Source::collect(&Self::table(), args, env);
        let settings = Self::take(&mut source);
        source.finish()?;
        settings.ok_or_else(|| Faults(vec!["a setting is missing".into()]))
    }
}

/// Declares a settings struct together with its table. A row is
/// `name: Type = default, "meaning";`. `..name: Type;` includes a [`Part`]: its
/// rows stand in the table as if they had been written here.
///
/// `checks { a, b => faults; }` names what several values make wrong together:
/// an expression that yields texts, evaluated when all the values it names could
/// be read, whatever is wrong with the others. The names are references.
#[macro_export]
macro_rules! settings {
    (
        $(#[$outer:meta])* $vis:vis struct $name:ident {
            $($field:ident: $type:ty = $default:expr, $meaning:literal;)*
            $(..$part:ident: $part_type:ty;)*
        }
        $(checks { $($($checked:ident),+ => $faults:expr;)* })?
    ) => {
        $(#[$outer])*
        #[derive(Clone, Debug)]
        $vis struct $name {
            $(#[doc = $meaning] pub $field: $type,)*
            $(#[doc = concat!("See [`", stringify!($part_type), "`].")] pub $part: $part_type,)*
        }

        impl $name {
            const OWN: &'static [$crate::config::Setting] = &[
                $($crate::config::Setting {
                    name: stringify!($field),
                    default: $default,
                    meaning: $meaning,
                    secret: <$type as $crate::config::Value>::SECRET,
                },)*
            ];
        }

        impl $crate::config::Part for $name {
            fn table() -> Vec<$crate::config::Setting> {
                [$name::OWN.to_vec(), $(<$part_type as $crate::config::Part>::table(),)*].concat()
            }

            fn take(source: &mut $crate::config::Source) -> Option<Self> {
                let mut rows = $name::OWN.iter();
                $(let $field: Option<$type> = rows.next().and_then(|row| source.take(row));)*
                $(let $part: Option<$part_type> = $crate::config::Part::take(source);)*
                $($(if let ($(Some($checked),)+) = ($(&$checked,)+) {
                    source.faults($faults);
                })*)?
                Some(Self { $($field: $field?,)* $($part: $part?,)* })
            }
        }
    };
}
