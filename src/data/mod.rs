//! TODO-data
