//! A model in any format that can be read, its parameters under native names and read one at a time.

mod annotated;
mod huggingface;
mod kind;

pub use huggingface::weights;
pub use kind::OtherKind;

use super::ConvertError;
use super::options::OutputHead;
use super::plan::{Plan, Stored, plan};
use super::safetensors_file;
use super::sentence_transformers::SentenceModel;
use super::tensors::Tensor;
use super::weight_map::Layout;
use crate::checkpoint::{self, Pointer};
use crate::data::Tokenizer;
use crate::data::hub::{Hub, HubSettings, model_folder};
use crate::data::tokenizer::{TOKENIZER_FILE, same_tokenizer};
use kind::Kind;
use mpnet_graphs::model::config::ModelConfig;
use mpnet_runtime::engine::{NamedArray, OptimizerState};
use mpnet_runtime::lfs::refuse_pointer;
use std::path::{Path, PathBuf};

/// Endings of files, which no name of the Hub is taken for.
const FILE_KINDS: [&str; 6] = ["pt", "pth", "ckpt", "bin", "safetensors", "onnx"];

/// An opened model.
#[derive(Debug)]
pub struct Source {
    /// The file or folder that was read.
    pub path: PathBuf,
    pub layout: Layout,
    pub model: ModelConfig,
    /// In the order of the model's parameters.
    pub parameters: Vec<Stored>,
    /// Weight and bias of a HuggingFace model's pooler.
    pub pooler: Option<[Stored; 2]>,
    /// What a task has trained beside the model, in a checkpoint of it.
    pub head: Vec<Stored>,
    /// Whether it has no LM head; that of `parameters` is then fresh.
    pub fresh_head: bool,
    /// What its LM head has of its own instead of the word embeddings.
    untied: Option<Untied>,
    /// What stands on the encoder in a folder of sentence-transformers, or why that cannot be kept.
    sentence: Option<Result<SentenceModel, String>>,
    /// The definition (`tokenizer.json`) of its tokenizer.
    pub tokenizer: Option<PathBuf>,
    /// Updates made, where that is known.
    pub step: u64,
    /// Lowest validation loss so far, in bits per predicted token.
    pub best_loss: Option<f64>,
    /// The run's settings, where it was one of this program.
    pub run: serde_json::Value,
    /// What the user should know of the reading, whatever is made of the model; see also
    /// [`notes_of_checkpoint`](Self::notes_of_checkpoint) and [`notes_of`](Self::notes_of).
    pub notes: Vec<String>,
    /// Adam's moments, in the order of the parameters.
    pub moments: Option<[Vec<Tensor>; 2]>,
}

/// Tensors of an LM head that is not tied to the embeddings.
#[derive(Debug)]
struct Untied {
    names: Vec<String>,
    /// Whether its configuration says that it is tied all the same.
    said_to_be_tied: bool,
}

/// How to read.
#[derive(Debug, Clone, Default)]
pub struct SourceOptions {
    /// The tokenizer's folder or definition, where the model's own is not to be used.
    pub tokenizer: Option<PathBuf>,
    /// Refuse a tokenizer that makes other tokens than the model's own; else that is noted.
    pub only_own_tokenizer: bool,
    /// Read no moments.
    pub no_optimizer: bool,
}

impl Source {
    /// Opens what is at `path`: a native checkpoint or a folder of some, a HuggingFace folder, one of
    /// sentence-transformers, or a PyTorch file of annotated-mpnet or fairseq; where nothing is there, the
    /// model of that name on the HuggingFace Hub. A `best_checkpoint.pt` that does not exist stands for
    /// the best native checkpoint of its folder.
    ///
    /// # Errors
    /// Where nothing is there, or it is damaged, refused or of another model or kind, which is named.
    pub fn open(path: &Path, options: &SourceOptions) -> Result<Source, ConvertError> {
        match kind::of(path)? {
            Kind::Native => native(path, options),
            Kind::HuggingFace => huggingface::open(path, path, options),
            Kind::SentenceTransformers { encoder } => huggingface::open(path, &encoder, options),
            Kind::PyTorch => annotated::open(path, options),
            Kind::Nothing => {
                let folder = from_hub(path)?;
                match kind::of(&folder)? {
                    Kind::SentenceTransformers { encoder } => {
                        huggingface::open(&folder, &encoder, options)
                    }
                    Kind::Native | Kind::HuggingFace | Kind::PyTorch | Kind::Nothing => {
                        huggingface::open(&folder, &folder, options)
                    }
                }
            }
        }
    }

    /// A source of what `plan` found, without what its format may have beside that.
    fn new(path: &Path, layout: Layout, model: ModelConfig, plan: Plan) -> Source {
        Source {
            path: path.to_owned(),
            layout,
            model,
            parameters: plan.parameters,
            pooler: plan.pooler,
            head: Vec::new(),
            fresh_head: plan.fresh_head,
            untied: (!plan.untied.is_empty()).then_some(Untied {
                names: plan.untied,
                said_to_be_tied: true,
            }),
            sentence: None,
            tokenizer: None,
            step: 0,
            best_loss: None,
            run: serde_json::Value::Null,
            notes: plan.notes,
            moments: None,
        }
    }

    /// What stands on its encoder to make embeddings of texts: what its folder says or, where it is no
    /// folder of sentence-transformers, the mean over the tokens.
    ///
    /// # Errors
    /// Where its folder has a module that cannot be kept.
    pub fn sentence_model(&self) -> Result<SentenceModel, ConvertError> {
        match &self.sentence {
            None => Ok(SentenceModel::mean(&self.model)),
            Some(Ok(sentence)) => Ok(sentence.clone()),
            Some(Err(refusal)) => Err(ConvertError::Modules(refusal.clone())),
        }
    }

    /// Refuses a head that would not be the source's.
    ///
    /// # Errors
    /// Where `head` has the LM head, and the source's is not tied to the embeddings and not said to be; or it is a task's,
    /// and the source was not trained for it.
    pub fn check_head(&self, head: &OutputHead) -> Result<(), ConvertError> {
        match (head, &self.untied) {
            (OutputHead::MaskedLm, Some(untied)) if !untied.said_to_be_tied => {
                Err(ConvertError::model(
                    &self.path,
                    format!(
                        "its LM head has a {} of its own, and a head that is not tied to the word embeddings \
                         cannot be kept; --head none takes the encoder alone",
                        untied.names.join(" and a ")
                    ),
                ))
            }
            (OutputHead::Task(head), _) => {
                let has = |name: &&String| self.head.iter().any(|stored| stored.name == **name);
                match head.parameters.iter().find(|name| !has(name)) {
                    None => Ok(()),
                    Some(name) => Err(ConvertError::model(
                        &self.path,
                        format!("it has no {name}: it was not trained for {}", head.pipeline),
                    )),
                }
            }
            (OutputHead::MaskedLm | OutputHead::None | OutputHead::Sentence(_), _) => Ok(()),
        }
    }

    /// What the user should know when a checkpoint, with its LM head, is made of it or read as one.
    pub fn notes_of_checkpoint(&self) -> Vec<String> {
        let mut notes = self.notes_of_lm_head();
        notes.extend(self.note_of_head());
        if self.pooler.is_some() {
            notes.push("its pooler is left out: a checkpoint has none".to_owned());
        }
        notes.extend(self.notes_of_modules());
        notes
    }

    /// What the user should know when it is written with `head`, as a HuggingFace folder, or as an ONNX
    /// model, which has no pooler.
    pub fn notes_of(&self, head: &OutputHead, onnx: bool) -> Vec<String> {
        match head {
            OutputHead::MaskedLm => self.notes_of_checkpoint(),
            OutputHead::Task(_) => self.notes.clone(),
            OutputHead::None => {
                let mut notes = self.notes.clone();
                notes.extend(self.note_of_head());
                match (&self.pooler, onnx) {
                    (Some(_), true) => {
                        notes.push(
                            "its pooler is left out: hidden states are the output".to_owned(),
                        );
                    }
                    (None, false) => notes.push(
                        "it has no pooler: transformers' pooler_output is of a random one"
                            .to_owned(),
                    ),
                    (Some(_), false) | (None, true) => {}
                }
                notes.extend(self.notes_of_modules());
                notes
            }
            OutputHead::Sentence(sentence) => {
                let mut notes = self.notes.clone();
                let left = sentence.left_out.iter();
                notes.extend(left.map(|what| format!("left out: {what}")));
                if onnx && self.pooler.is_some() {
                    notes.push("its pooler is left out: embeddings do not use it".to_owned());
                }
                if onnx && !sentence.include_prompt {
                    notes.push(
                        "sentence_embedding of the ONNX model is pooled over all tokens, those of a prompt \
                         too; sentence-transformers, which pools last_hidden_state, leaves them out"
                            .to_owned(),
                    );
                }
                notes
            }
        }
    }

    /// Says that a task's head is left out.
    fn note_of_head(&self) -> Option<String> {
        let first = self.head.first()?;
        Some(format!(
            "what a task has trained beside it, {} and more, is left out",
            first.name
        ))
    }

    fn notes_of_lm_head(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        if self.fresh_head {
            notes.push(
                "WARNING: it has no LM head: what is written has a random one, whose predictions mean \
                 nothing before it is trained"
                    .to_owned(),
            );
        }
        if let Some(untied) = &self.untied {
            notes.push(format!(
                "WARNING: its {} is not what it is tied to here, and is left out: the LM head reads the word \
                 embeddings instead, and logits differ from those of a program that keeps both; hidden states \
                 do not",
                untied.names.join(" and its ")
            ));
        }
        notes
    }

    /// What of sentence-transformers is left out where its encoder alone is taken.
    fn notes_of_modules(&self) -> Option<String> {
        let modules = match self.sentence.as_ref()? {
            Ok(sentence) => sentence.describe(),
            Err(refusal) => refusal.clone(),
        };
        Some(format!(
            "it is a model of sentence-transformers, of which the encoder alone is taken; left out: {modules}"
        ))
    }

    /// One parameter, whole.
    ///
    /// # Errors
    /// Where its file cannot be read.
    pub fn read(&self, stored: &Stored) -> Result<NamedArray, ConvertError> {
        Ok(NamedArray {
            name: stored.name.clone(),
            shape: stored.shape.clone(),
            values: stored.read(0..stored.shape.first().copied().unwrap_or(1))?,
        })
    }

    /// All parameters.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn read_all(&self) -> Result<Vec<NamedArray>, ConvertError> {
        self.parameters.iter().map(|p| self.read(p)).collect()
    }

    /// Adam's state, where there is one.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn optimizer(&self) -> Result<Option<OptimizerState>, ConvertError> {
        let Some([first, second]) = &self.moments else {
            return Ok(None);
        };
        let arrays = |tensors: &[Tensor]| -> Result<Vec<NamedArray>, ConvertError> {
            self.parameters
                .iter()
                .zip(tensors)
                .map(|(parameter, tensor)| {
                    Ok(NamedArray {
                        name: parameter.name.clone(),
                        shape: parameter.shape.clone(),
                        values: tensor.read(0..tensor.rows())?,
                    })
                })
                .collect()
        };
        Ok(Some(OptimizerState {
            step: i64::try_from(self.step).unwrap_or(i64::MAX),
            first_moments: arrays(first)?,
            second_moments: arrays(second)?,
            loss_scaling: None,
        }))
    }
}

/// The tokenizer that is asked for, else the one in the first folder of `own` that has one, if any. One
/// that is not the model's own is refused or noted, as `options` say.
fn tokenizer(
    options: &SourceOptions,
    own: &[PathBuf],
    notes: &mut Vec<String>,
) -> Result<Option<Tokenizer>, ConvertError> {
    let own = own.iter().map(|folder| folder.join(TOKENIZER_FILE));
    let own = own.into_iter().find(|definition| definition.is_file());
    let load = |path: &Path| Tokenizer::load(&path.to_string_lossy());
    let Some(given) = &options.tokenizer else {
        return Ok(own.map(|own| load(&own)).transpose()?);
    };
    let given = load(given)?;
    if let Some(own) = own {
        match same_tokenizer(&own, given.path()) {
            Ok(true) => {}
            Ok(false) if options.only_own_tokenizer => {
                return Err(ConvertError::OtherTokenizer {
                    given: given.path().to_owned(),
                    own,
                });
            }
            Ok(false) => notes.push(format!(
                "the tokenizer {} is another than the model's own, {}: its ids stand for other words",
                given.path().display(),
                own.display()
            )),
            Err(error) => notes.push(format!("the model's own tokenizer cannot be read: {error}")),
        }
    }
    Ok(Some(given))
}

/// Puts a tokenizer's ids and size into `model`.
fn apply_tokenizer(
    path: &Path,
    model: &mut ModelConfig,
    tokenizer: &Tokenizer,
) -> Result<(), ConvertError> {
    if tokenizer.vocab_size() > model.padded_vocab_size {
        return Err(ConvertError::model(
            path,
            format!(
                "its embeddings have {} rows, fewer than the {} entries of the tokenizer {}",
                model.padded_vocab_size,
                tokenizer.vocab_size(),
                tokenizer.path().display()
            ),
        ));
    }
    let vocabulary = tokenizer.vocabulary();
    model.vocab_size = vocabulary.size;
    model.pad_token_id = vocabulary.pad;
    model.bos_token_id = vocabulary.bos;
    model.eos_token_id = vocabulary.eos;
    model.unk_token_id = vocabulary.unk;
    model.mask_token_id = vocabulary.mask;
    Ok(())
}

fn native(path: &Path, options: &SourceOptions) -> Result<Source, ConvertError> {
    let folder = checkpoint::resolve(path, Pointer::Best)?;
    let file = folder.join(checkpoint::MODEL_FILE);
    for name in [checkpoint::STATE_FILE, checkpoint::MODEL_FILE] {
        refuse_pointer(&folder.join(name))?;
    }
    let state = checkpoint::read_checked_state(&folder)?;
    let mut tensors = safetensors_file::tensors(&file)?;
    let head = state.head.iter().filter_map(|part| {
        let tensor = tensors.remove(&part.name)?;
        Some(Stored::whole(part.name.clone(), tensor))
    });
    let head = head.collect();
    let mut plan = plan(&file, Layout::Native, &state.model, tensors)?;
    let own = folder.join(checkpoint::TOKENIZER_FOLDER);
    let tokenizer = tokenizer(options, &[own], &mut plan.notes)?;
    let mut model = state.model;
    if let (Some(_), Some(given)) = (&options.tokenizer, &tokenizer) {
        apply_tokenizer(&folder, &mut model, given)?;
    }
    Ok(Source {
        tokenizer: tokenizer.map(|t| t.path().to_owned()),
        step: state.step,
        best_loss: state.best_loss,
        run: state.config,
        head,
        ..Source::new(&folder, Layout::Native, model, plan)
    })
}

/// The folder, in the Hub's cache, of the model whose name `path` is.
fn from_hub(path: &Path) -> Result<PathBuf, ConvertError> {
    let not_found = |hub| ConvertError::NotFound {
        path: path.to_owned(),
        hub,
    };
    // A file that is not there is no name, and so is what has no owner.
    let name = path.to_str().filter(|name| {
        let file = path.extension().is_some_and(|kind| {
            FILE_KINDS.contains(&kind.to_string_lossy().to_ascii_lowercase().as_str())
        });
        name.matches('/').count() == 1 && !file
    });
    let hub = || Hub::new(HubSettings::from_env());
    match name.map(|name| model_folder(&hub(), name, "main")) {
        Some(Ok(Some(folder))) => Ok(folder),
        Some(Ok(None)) | None => Err(not_found(None)),
        Some(Err(error)) => Err(not_found(Some(error))),
    }
}
