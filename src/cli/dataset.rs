//! The flags that name a dataset on the HuggingFace Hub.

use crate::data::hub::DatasetName;
use clap::Args;

/// A dataset on the HuggingFace Hub.
#[derive(Debug, Args)]
pub struct DatasetArgs {
    /// Dataset on the HuggingFace Hub, instead of files
    #[arg(long, value_name = "NAME[:CONFIG]")]
    pub dataset_name: Option<DatasetName>,
    /// Split of the dataset
    #[arg(long, default_value = "train", value_name = "SPLIT")]
    pub dataset_split: String,
    /// Branch, tag or commit of the dataset
    #[arg(long, default_value = "main", value_name = "REVISION")]
    pub dataset_revision: String,
}
