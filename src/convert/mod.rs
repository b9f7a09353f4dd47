//! TODO-convert
