//! What numbers flags accept.

use crate::cli::exit::UsageError;

/// # Errors
/// Where `value` is zero.
pub fn positive_count(flag: &str, value: u64) -> Result<u64, UsageError> {
    match value {
        0 => Err(UsageError(format!("{flag} must be at least 1"))),
        value => Ok(value),
    }
}

/// # Errors
/// Where `value` is not above zero, or not finite.
pub fn positive(flag: &str, value: f64) -> Result<f64, UsageError> {
    match value.is_finite() && value > 0.0 {
        true => Ok(value),
        false => Err(UsageError(format!(
            "{flag} {value} is not a positive number"
        ))),
    }
}

/// # Errors
/// Where `value` is negative or not finite.
pub fn not_negative<T>(flag: &str, value: T) -> Result<T, UsageError>
where
    T: Copy + Into<f64> + std::fmt::Display,
{
    let number: f64 = value.into();
    match number.is_finite() && number >= 0.0 {
        true => Ok(value),
        false => Err(UsageError(format!(
            "{flag} {value} is not zero or a positive number"
        ))),
    }
}

/// # Errors
/// Where `value` is not at least 0 and below 1.
pub fn below_one(flag: &str, value: f32) -> Result<f32, UsageError> {
    match (0.0..1.0).contains(&value) {
        true => Ok(value),
        false => Err(UsageError(format!(
            "{flag} {value} is not at least 0 and below 1"
        ))),
    }
}
