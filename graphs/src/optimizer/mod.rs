//! The update of the parameters, as graphs.

pub mod adamw;
