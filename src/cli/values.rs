//! What flags accept: numbers in a range, and names.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Arg, Command};
use mpnet_plan::{Plugin, Precision, Provider};
use std::ffi::OsStr;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A value, or none where the flag says `auto`.
pub type OrAuto<T> = Option<T>;

fn number<T>(text: &str, accepted: impl Fn(f64) -> bool, what: &str) -> Result<T, String>
where
    T: FromStr<Err: Display> + Copy + Into<f64>,
{
    let number: T = text.parse().map_err(|e: T::Err| e.to_string())?;
    if accepted(number.into()) {
        Ok(number)
    } else {
        Err(format!("it is not {what}"))
    }
}

/// A whole number that is not 0.
///
/// # Errors
/// Where `text` is none.
pub fn count<T>(text: &str) -> Result<T, String>
where
    T: FromStr<Err: Display> + PartialOrd + From<u8>,
{
    let number: T = text.parse().map_err(|e: T::Err| e.to_string())?;
    if number >= T::from(1) {
        Ok(number)
    } else {
        Err("it must be at least 1".into())
    }
}

/// A finite number above 0.
///
/// # Errors
/// Where `text` is none.
pub fn positive(text: &str) -> Result<f64, String> {
    number(text, |x| x.is_finite() && x > 0.0, "a positive number")
}

/// A finite number that is not negative.
///
/// # Errors
/// Where `text` is none.
pub fn not_negative<T>(text: &str) -> Result<T, String>
where
    T: FromStr<Err: Display> + Copy + Into<f64>,
{
    number(
        text,
        |x| x.is_finite() && x >= 0.0,
        "zero or a positive number",
    )
}

/// A number from 0 on and below 1.
///
/// # Errors
/// Where `text` is none.
pub fn below_one(text: &str) -> Result<f32, String> {
    number(text, |x| (0.0..1.0).contains(&x), "at least 0 and below 1")
}

/// A number from 0 to 1.
///
/// # Errors
/// Where `text` is none.
pub fn share(text: &str) -> Result<f64, String> {
    number(
        text,
        |x| (0.0..=1.0).contains(&x),
        "at least 0 and at most 1",
    )
}

/// Accepts these names, with their other spellings, as the value beside each.
pub fn one_of<T>(values: Vec<(PossibleValue, T)>) -> impl TypedValueParser<Value = T>
where
    T: Clone + Send + Sync + 'static,
{
    let names: Vec<PossibleValue> = values.iter().map(|(name, _)| name.clone()).collect();
    PossibleValuesParser::new(names).try_map(move |text| {
        let found = values.iter().find(|(name, _)| name.matches(&text, false));
        found
            .map(|(_, value)| value.clone())
            .ok_or_else(|| format!("there is no '{text}'"))
    })
}

/// Accepts the names of `all`.
pub fn named<T>(all: &[T], name: impl Fn(T) -> &'static str) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    let values = all.iter().map(|&value| (name(value).into(), value));
    one_of(values.collect())
}

/// Accepts a provider's name.
pub fn provider() -> impl TypedValueParser<Value = Provider> {
    one_of(providers(|provider| provider))
}

/// Which provider a flag asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderChoice {
    /// The provider.
    pub provider: OrAuto<Provider>,
    /// The library that it is in, where it was named by that.
    pub plugin: Option<PathBuf>,
}

/// Accepts a provider's name, `auto`, or `plugin:` and the path of a library.
#[derive(Debug, Clone, Copy)]
pub struct ProviderParser;

impl ProviderParser {
    fn named() -> Vec<(PossibleValue, OrAuto<Provider>)> {
        let auto = PossibleValue::new("auto")
            .help("CUDA where there is an NVIDIA GPU that its builds support, else the processor");
        let mut values = vec![(auto, None)];
        let providers = providers(Some).into_iter();
        // That of a path has no name.
        values.extend(providers.filter(|(_, provider)| *provider != Some(Provider::Plugin)));
        values
    }
}

impl TypedValueParser for ProviderParser {
    type Value = ProviderChoice;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<ProviderChoice, clap::Error> {
        let text = value.to_string_lossy();
        let path = text.strip_prefix("plugin:").filter(|rest| {
            let named = format!("plugin:{rest}").parse::<Provider>().is_ok();
            !named && !rest.is_empty()
        });
        if let Some(path) = path {
            let file = Path::new(path);
            // Without a separator it is a name with a fault in it, unless there is such a file.
            if file.components().count() > 1 || file.exists() {
                return Ok(ProviderChoice {
                    provider: Some(Provider::Plugin),
                    plugin: Some(file.to_owned()),
                });
            }
        }
        let provider = one_of(Self::named()).parse_ref(command, arg, value)?;
        Ok(ProviderChoice {
            provider,
            plugin: None,
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Self::named().into_iter().map(|(name, _)| name)))
    }
}

fn providers<T>(value: impl Fn(Provider) -> T) -> Vec<(PossibleValue, T)> {
    let all = Provider::ALL.iter();
    all.map(|&provider| {
        let info = provider.info();
        let name = PossibleValue::new(info.name);
        let name = match info.plugin {
            Some(Plugin::Package(package)) => name.help(format!("The plug-in {package}")),
            Some(Plugin::Path) => name.help("A plug-in of which nothing is known"),
            None => name,
        };
        (name, value(provider))
    })
    .collect()
}

/// Accepts the name of one of these precisions, as ONNX Runtime's users write it or as PyTorch's do.
pub fn precision(among: &[Precision]) -> impl TypedValueParser<Value = Precision> {
    let values = among.iter().map(|&p| (precision_names(p), p));
    one_of(values.collect())
}

/// Accepts the name of a precision, or `auto`.
pub fn precision_or_auto() -> impl TypedValueParser<Value = OrAuto<Precision>> {
    let auto = PossibleValue::new("auto").help("What suits the provider");
    let mut values = vec![(auto, None)];
    let all = Precision::ALL.iter();
    values.extend(all.map(|&p| (precision_names(p), Some(p))));
    one_of(values)
}

fn precision_names(precision: Precision) -> PossibleValue {
    let value = PossibleValue::new(precision.name());
    match precision {
        Precision::F32 => value.alias("float32").help("f32 throughout"),
        Precision::BF16 => value
            .alias("bfloat16")
            .help("Matrix products and activations in bf16; on a processor with AMX or AVX512-BF16 products alone"),
        Precision::F16 => value.alias("float16").help(
            "Matrix products and activations in fp16, with loss scaling where it is trained in",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plug_in_is_taken_by_name_or_by_path() {
        let parse = |text: &str| {
            let arg = Arg::new("provider")
                .long("provider")
                .value_parser(ProviderParser);
            let command = Command::new("test").arg(arg);
            let found = command.try_get_matches_from(["test", "--provider", text]);
            found.map(|found| {
                found
                    .get_one::<ProviderChoice>("provider")
                    .cloned()
                    .unwrap()
            })
        };
        let choice = parse("plugin:openvino").unwrap();
        assert_eq!(choice.provider, Some(Provider::OpenVinoPlugin));
        assert_eq!(choice.plugin, None);
        let choice = parse("plugin:./libsome.so").unwrap();
        assert_eq!(choice.provider, Some(Provider::Plugin));
        assert_eq!(choice.plugin, Some("./libsome.so".into()));
        assert_eq!(parse("auto").unwrap().provider, None);
        for wrong in ["plugin:openvin", "plugin:", "plugin"] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains("plugin:openvino"), "{error}");
        }
    }

    #[test]
    fn ranges_refuse_what_is_outside_and_what_is_no_number() {
        assert_eq!(count::<usize>("1"), Ok(1));
        assert!(count::<u64>("0").unwrap_err().contains("at least 1"));
        assert!(count::<u64>("-1").unwrap_err().contains("invalid digit"));
        assert_eq!(positive("1e-3"), Ok(1e-3));
        for wrong in ["0", "-1", "nan", "inf"] {
            assert!(positive(wrong).unwrap_err().contains("a positive number"));
        }
        assert_eq!(not_negative::<f32>("0"), Ok(0.0));
        assert!(not_negative::<f32>("-0.5").unwrap_err().contains("zero or"));
        assert!(below_one("1").unwrap_err().contains("below 1"));
        assert!(below_one("x").unwrap_err().contains("invalid float"));
        assert_eq!(share("1"), Ok(1.0));
        assert!(share("1.01").unwrap_err().contains("at most 1"));
    }
}
