//! The flags that name a dataset on the HuggingFace Hub.

use crate::data::hub::DatasetName;
use clap::Args;

/// A dataset on the HuggingFace Hub.
#[derive(Debug, Args)]
pub struct DatasetArgs {
    /// Dataset on the HuggingFace Hub, instead of files
    #[arg(long, value_name = "NAME[:CONFIG]", value_parser = name_or_none)]
    pub dataset_name: Option<Name>,
    /// Split of the dataset
    #[arg(long, default_value = "train", value_name = "SPLIT")]
    pub dataset_split: String,
    /// Branch, tag or commit of the dataset
    #[arg(long, default_value = "main", value_name = "REVISION")]
    pub dataset_revision: String,
}

/// A dataset, or none where the name is empty, as annotated-mpnet takes it.
type Name = Option<DatasetName>;

fn name_or_none(text: &str) -> Result<Name, String> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some),
    }
}

impl DatasetArgs {
    /// The dataset asked for.
    pub fn name(&self) -> Option<&DatasetName> {
        self.dataset_name.as_ref()?.as_ref()
    }
}
