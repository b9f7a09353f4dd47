//! TODO-train
