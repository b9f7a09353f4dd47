//! The flags that name a dataset on the HuggingFace Hub.

use crate::data::hub::DatasetName;
use crate::train::flags::Effect;
use clap::Args;

/// A dataset on the HuggingFace Hub.
#[derive(Debug, Args)]
pub struct DatasetArgs {
    /// Take the text from this dataset on the HuggingFace Hub, instead of files
    #[arg(long, value_name = "NAME[:CONFIG]", value_parser = name_or_none,
        add = Effect::Updates(&["text.dataset.name"]))]
    pub dataset_name: Option<Name>,
    /// Take this split of the dataset
    #[arg(long, default_value = "train", value_name = "SPLIT",
        add = Effect::Updates(&["text.dataset.split"]))]
    pub dataset_split: String,
    /// Take the dataset at this branch, tag or commit
    #[arg(long, default_value = "main", value_name = "REVISION",
        add = Effect::Updates(&["text.dataset.revision"]))]
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
