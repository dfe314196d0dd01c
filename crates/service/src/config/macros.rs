//! The `settings!` macro, and what it needs at compile time.

use super::{Faults, Setting, Source};

/// Settings that are declared once and stand in several services' tables.
pub trait Part: Sized {
    /// The rows: name, default, meaning.
    const TABLE: &'static [Setting];

    /// Takes the values out; the faults stay in the source.
    fn take(source: &mut Source) -> Option<Self>;
}

/// Reads settings from file, environment and flags.
///
/// # Errors
/// Every fault there is.
pub fn load<P: Part>(
    args: impl IntoIterator<Item = String>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<P, Faults> {
    let mut source = Source::collect(P::TABLE, args, env);
    let settings = P::take(&mut source);
    source.finish()?;
    settings.ok_or_else(|| Faults(vec!["a setting is missing".into()]))
}

/// How many rows there are in all tables.
#[doc(hidden)]
#[must_use]
pub const fn total(tables: &[&[Setting]]) -> usize {
    let (mut sum, mut at) = (0, 0);
    while at < tables.len() {
        sum += tables[at].len();
        at += 1;
    }
    sum
}

/// All tables as one.
#[doc(hidden)]
#[must_use]
pub const fn concat<const N: usize>(tables: &[&[Setting]]) -> [Setting; N] {
    let mut all = [Setting { name: "", default: None, meaning: "", secret: false }; N];
    let (mut out, mut table) = (0, 0);
    while table < tables.len() {
        let mut at = 0;
        while at < tables[table].len() {
            all[out] = tables[table][at];
            out += 1;
            at += 1;
        }
        table += 1;
    }
    all
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

        // A part is read through those who include it.
        #[allow(dead_code)]
        impl $name {
            const OWN: &'static [$crate::config::Setting] = &[
                $($crate::config::Setting {
                    name: stringify!($field),
                    default: $default,
                    meaning: $meaning,
                    secret: <$type as $crate::config::Value>::SECRET,
                },)*
            ];
            const TABLES: &'static [&'static [$crate::config::Setting]] =
                &[$name::OWN, $(<$part_type as $crate::config::Part>::TABLE,)*];

            /// The table of settings: name, default, meaning.
            pub const TABLE: &'static [$crate::config::Setting] =
                &$crate::config::concat::<{ $crate::config::total($name::TABLES) }>($name::TABLES);

            /// Reads the settings from file, environment and flags.
            ///
            /// # Errors
            /// Every fault there is.
            pub fn load(
                args: impl IntoIterator<Item = String>,
                env: impl IntoIterator<Item = (String, String)>,
            ) -> Result<Self, $crate::config::Faults> {
                $crate::config::load(args, env)
            }
        }

        impl $crate::config::Part for $name {
            const TABLE: &'static [$crate::config::Setting] = $name::TABLE;

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
