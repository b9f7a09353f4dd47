//! What a format says of itself, beside its reader: its line of the table, from whose list `Format` is made.

use std::path::Path;

use super::fields::Fields;
use super::sniff::TextHead;
use super::{Compression, Format, Position, Rows};
use crate::data::error::Result;

/// Lists the formats that are read, each with where its reader has its line of the table.
macro_rules! formats {
    ($($(#[$attribute:meta])* $variant:ident = $entry:path),+ $(,)?) => {
        /// How rows are laid out.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
        pub enum Format {
            $(
                #[doc = concat!("See `", stringify!($entry), "`.")]
                $(#[$attribute])*
                $variant,
            )+
        }

        impl Format {
            /// All of them.
            pub const ALL: &[Format] = &[$(Format::$variant),+];

            /// Its line of the table.
            pub fn entry(self) -> &'static FormatEntry {
                match self {
                    $(Format::$variant => &$entry,)+
                }
            }
        }
    };
}
pub(super) use formats;

/// One line of the table of formats.
#[derive(Debug)]
pub struct FormatEntry {
    pub name: &'static str,
    /// Without the dot, lower case; the usual one first.
    pub endings: &'static [&'static str],
    /// What files of it begin with, where they are no text.
    pub magic: Option<&'static [u8]>,
    pub holds: &'static str,
    pub reader: &'static str,
    /// What a file of text is that is named so.
    pub of_text: fn(&TextHead) -> Format,
    /// Opens a file at a position that was handed out before, or at its start.
    pub open: fn(&Opening) -> Result<Box<dyn Rows>>,
}

/// A file that is to be read.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    pub path: &'a Path,
    pub compression: Compression,
    pub fields: &'a Fields,
    pub at: Position,
}
