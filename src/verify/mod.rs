//! TODO-verify
