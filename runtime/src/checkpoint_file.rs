//! Reads and writes ONNX Runtime's training checkpoints.

/// An error of this module.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointFileError {
    /// Too large.
    #[error("too large")]
    TooLarge,
}
