//! Reads and writes ONNX Runtime's training checkpoints: flatbuffers with parameters and, on request, AdamW's moments.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::ops::Deref;

use flatbuffers::{
    FLATBUFFERS_MAX_BUFFER_SIZE, FlatBufferBuilder, Follow, ForwardsUOffset, InvalidFlatbuffer,
    Table, VOffsetT, Vector, Verifiable, Verifier, VerifierOptions, WIPOffset,
};

use crate::engine::{NamedArray, OptimizerState};

const IDENTIFIER: &str = "ODTC";
/// What ONNX Runtime 1.19 writes.
const VERSION: i32 = 2;
/// 1.17 wrote version 1, with the same tables.
const READABLE: std::ops::RangeInclusive<i32> = 1..=2;
/// ONNX Runtime keeps all parameters in one group of this name.
const GROUP: &str = "group0";
const FIRST_MOMENT: &str = "momentum0";
const SECOND_MOMENT: &str = "momentum1";
/// Number of 32-bit floats in the schema's list of element types.
const FLOAT: i32 = 1;
/// The file's default for a tensor whose bytes lie in the file itself.
const NO_EXTERNAL_DATA: i64 = -1;

/// An error of this module.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointFileError {
    /// The format's offsets end at 2 GiB.
    #[error(
        "a checkpoint of {bytes} bytes cannot be written: ONNX Runtime's format ends at 2 GiB; leave the optimizer state out or take a smaller model"
    )]
    TooLarge {
        /// Bytes of the tensors alone.
        bytes: usize,
    },
    /// An array to write has another length than its shape says.
    #[error("'{name}' has the shape {shape:?} but {length} values")]
    Length {
        /// The parameter.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its number of values.
        length: usize,
    },
    /// A moment to write belongs to no parameter, or a parameter lacks one.
    #[error(
        "the optimizer state does not have exactly one first and one second moment for '{name}'"
    )]
    Moments {
        /// The parameter.
        name: String,
    },
    /// The bytes are no checkpoint.
    #[error("these bytes are no checkpoint of ONNX Runtime's training API: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// A part of a sound checkpoint that this program has no use for.
    #[error("the checkpoint has {what}, which is not read here")]
    Unsupported {
        /// The part.
        what: String,
    },
}

/// `Result` of this module.
pub type Result<T, E = CheckpointFileError> = std::result::Result<T, E>;

/// What a checkpoint holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Contents {
    /// The trainable parameters, in the file's order.
    pub parameters: Vec<NamedArray>,
    /// AdamW's state, if it was saved.
    pub optimizer: Option<OptimizerState>,
}

/// The bytes of a checkpoint with these trainable parameters and, if given, this optimizer state.
///
/// # Errors
/// A shape does not fit its values, moments and parameters don't match, or the file would pass 2 GiB.
pub fn write<P: Borrow<NamedArray>>(
    parameters: &[P],
    optimizer: Option<&OptimizerState>,
) -> Result<Encoded> {
    let parameters: Vec<&NamedArray> = parameters.iter().map(Borrow::borrow).collect();
    let parameters = parameters.as_slice();
    let moments = optimizer
        .map(|state| pair_moments(parameters, state))
        .transpose()?;
    let arrays = optimizer
        .iter()
        .flat_map(|state| state.first_moments.iter().chain(&state.second_moments));
    let mut bytes = 0usize;
    for array in parameters.iter().copied().chain(arrays) {
        let expected = array
            .shape
            .iter()
            .try_fold(1usize, |product, &size| product.checked_mul(size));
        if expected != Some(array.values.len()) {
            return Err(CheckpointFileError::Length {
                name: array.name.clone(),
                shape: array.shape.clone(),
                length: array.values.len(),
            });
        }
        bytes = bytes.saturating_add(4 * array.values.len());
    }
    // Room for names, shapes and tables: generous, since the builder would double the buffer to grow it.
    let room = parameters
        .iter()
        .map(|array| 3 * (array.name.len() + 8 * array.shape.len() + 128))
        .sum::<usize>();
    let capacity = bytes.saturating_add(room).saturating_add(1024);
    if capacity > FLATBUFFERS_MAX_BUFFER_SIZE {
        return Err(CheckpointFileError::TooLarge { bytes });
    }

    let mut builder = FlatBufferBuilder::with_capacity(capacity);
    let tensors: Vec<_> = parameters
        .iter()
        .map(|array| put_tensor(&mut builder, &array.name, array))
        .collect();
    let tensors = builder.create_vector(&tensors);
    // ONNX Runtime insists on the list, empty or not.
    let frozen = builder.create_vector::<Offset>(&[]);
    let start = builder.start_table();
    builder.push_slot_always(ModuleTable::REQUIRES_GRAD, tensors);
    builder.push_slot_always(ModuleTable::FROZEN, frozen);
    let module = builder.end_table(start);
    let groups = optimizer
        .zip(moments)
        .map(|(state, moments)| put_group(&mut builder, parameters, state, &moments));
    let start = builder.start_table();
    builder.push_slot_always(CheckpointTable::MODULE, module);
    if let Some(groups) = groups {
        builder.push_slot_always(CheckpointTable::GROUPS, groups);
    }
    builder.push_slot_always(CheckpointTable::VERSION, VERSION);
    let root = builder.end_table(start);
    builder.finish(root, Some(IDENTIFIER));
    let (buffer, head) = builder.collapse();
    Ok(Encoded { buffer, head })
}

/// A file's bytes, where the encoder left them: for a large model, moving them would cost more than encoding.
#[derive(Debug)]
pub struct Encoded {
    buffer: Vec<u8>,
    head: usize,
}

impl Deref for Encoded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.head..]
    }
}

impl AsRef<[u8]> for Encoded {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

type Moments<'a> = Vec<(&'a NamedArray, &'a NamedArray)>;

/// First and second moment of each parameter, in the order of the parameters.
fn pair_moments<'a>(parameters: &[&NamedArray], state: &'a OptimizerState) -> Result<Moments<'a>> {
    let index = |arrays: &'a [NamedArray]| -> HashMap<&str, &'a NamedArray> {
        arrays
            .iter()
            .map(|array| (array.name.as_str(), array))
            .collect()
    };
    let (first, second) = (index(&state.first_moments), index(&state.second_moments));
    let unpaired = |name: &str| CheckpointFileError::Moments {
        name: name.to_owned(),
    };
    let known: HashSet<&str> = parameters
        .iter()
        .map(|parameter| parameter.name.as_str())
        .collect();
    for moments in [&state.first_moments, &state.second_moments] {
        let mut seen = HashSet::new();
        for moment in moments {
            if !known.contains(moment.name.as_str()) || !seen.insert(moment.name.as_str()) {
                return Err(unpaired(&moment.name));
            }
        }
    }
    parameters
        .iter()
        .map(|parameter| {
            let name = parameter.name.as_str();
            let pair = first
                .get(name)
                .copied()
                .zip(second.get(name).copied())
                .ok_or_else(|| unpaired(name))?;
            if pair.0.shape == parameter.shape && pair.1.shape == parameter.shape {
                Ok(pair)
            } else {
                Err(unpaired(name))
            }
        })
        .collect()
}

type Offset = WIPOffset<flatbuffers::TableFinishedWIPOffset>;

fn put_tensor(builder: &mut FlatBufferBuilder<'_>, name: &str, array: &NamedArray) -> Offset {
    let bytes: Vec<u8> = array
        .values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let data = builder.create_vector(&bytes);
    let dims = builder.create_vector_from_iter(array.shape.iter().map(|&size| size as i64));
    let name = builder.create_string(name);
    let start = builder.start_table();
    builder.push_slot_always(TensorTable::NAME, name);
    builder.push_slot_always(TensorTable::DIMS, dims);
    builder.push_slot_always(TensorTable::RAW_DATA, data);
    builder.push_slot_always(TensorTable::DATA_TYPE, FLOAT);
    builder.end_table(start)
}

fn put_group<'fbb>(
    builder: &mut FlatBufferBuilder<'fbb>,
    parameters: &[&NamedArray],
    state: &OptimizerState,
    moments: &Moments<'_>,
) -> WIPOffset<Vector<'fbb, ForwardsUOffset<flatbuffers::TableFinishedWIPOffset>>> {
    let states: Vec<_> = parameters
        .iter()
        .zip(moments)
        .map(|(parameter, (first, second))| {
            let moments = [
                put_tensor(builder, FIRST_MOMENT, first),
                put_tensor(builder, SECOND_MOMENT, second),
            ];
            let moments = builder.create_vector(&moments);
            let name = builder.create_string(&parameter.name);
            let start = builder.start_table();
            builder.push_slot_always(MomentsTable::NAME, name);
            builder.push_slot_always(MomentsTable::MOMENTS, moments);
            builder.end_table(start)
        })
        .collect();
    let states = builder.create_vector(&states);
    let name = builder.create_string(GROUP);
    let start = builder.start_table();
    builder.push_slot_always(GroupTable::STEP, state.step);
    builder.push_slot_always(GroupTable::NAME, name);
    builder.push_slot_always(GroupTable::STATES, states);
    let group = builder.end_table(start);
    builder.create_vector(&[group])
}

/// The names of the trainable parameters in a checkpoint, in its order; nothing in `bytes` is trusted.
///
/// # Errors
/// The bytes are no sound checkpoint.
pub fn parameter_names(bytes: &[u8]) -> Result<Vec<String>> {
    module(&verify(bytes)?)?
        .requires_grad()
        .iter()
        .flatten()
        .map(|tensor| Ok(named(&tensor)?.to_owned()))
        .collect()
}

/// Checks every offset and length in the file, so that its tables can be read.
fn verify(bytes: &[u8]) -> Result<CheckpointTable<'_>> {
    if bytes.len() < 8 || !flatbuffers::buffer_has_identifier(bytes, IDENTIFIER, false) {
        return Err(malformed("the file identifier is missing"));
    }
    // Tables and bytes are bounded by the file itself; the depth is the schema's.
    let options = VerifierOptions {
        max_apparent_size: usize::MAX,
        ..VerifierOptions::default()
    };
    let file = flatbuffers::root_with_opts::<CheckpointTable<'_>>(&options, bytes)
        .map_err(|error| malformed(&error.to_string()))?;
    let version = file.version().unwrap_or_default();
    if !READABLE.contains(&version) {
        return Err(unsupported(&format!(
            "the format version {version} (known are {} to {})",
            READABLE.start(),
            READABLE.end()
        )));
    }
    Ok(file)
}

fn module<'a>(file: &CheckpointTable<'a>) -> Result<ModuleTable<'a>> {
    let module = file
        .module()
        .ok_or_else(|| malformed("it has no parameters"))?;
    if module.has_external_data().unwrap_or_default() {
        return Err(unsupported("its data in another file"));
    }
    if module.frozen().is_some_and(|frozen| !frozen.is_empty()) {
        return Err(unsupported("parameters that are not trained"));
    }
    Ok(module)
}

fn named<'a>(tensor: &TensorTable<'a>) -> Result<&'a str> {
    tensor
        .name()
        .ok_or_else(|| malformed("a parameter has no name"))
}

/// Reads a checkpoint; nothing in `bytes` is trusted.
///
/// # Errors
/// The bytes are no sound checkpoint, or one with tensors other than f32 or with data in another file.
pub fn read(bytes: &[u8]) -> Result<Contents> {
    let file = verify(bytes)?;
    let module = module(&file)?;
    let parameters = module
        .requires_grad()
        .iter()
        .flatten()
        .map(|tensor| array(named(&tensor)?, &tensor))
        .collect::<Result<Vec<_>>>()?;
    let mut groups = file.groups().into_iter().flatten();
    let optimizer = groups
        .next()
        .map(|group| optimizer_state(&group))
        .transpose()?;
    if groups.next().is_some() {
        return Err(unsupported("several optimizer groups"));
    }
    Ok(Contents {
        parameters,
        optimizer,
    })
}

fn optimizer_state(group: &GroupTable<'_>) -> Result<OptimizerState> {
    let mut state = OptimizerState {
        step: group.step().unwrap_or_default(),
        ..OptimizerState::default()
    };
    for entry in group.states().iter().flatten() {
        let name = entry
            .name()
            .ok_or_else(|| malformed("an optimizer state has no name"))?;
        let find = |wanted: &str| {
            let mut moments = entry.moments().into_iter().flatten();
            let moment = moments.find(|moment| moment.name() == Some(wanted));
            array(
                name,
                &moment.ok_or_else(|| malformed(&format!("'{name}' has no {wanted}")))?,
            )
        };
        state.first_moments.push(find(FIRST_MOMENT)?);
        state.second_moments.push(find(SECOND_MOMENT)?);
    }
    Ok(state)
}

fn array(name: &str, tensor: &TensorTable<'_>) -> Result<NamedArray> {
    let data_type = tensor.data_type().unwrap_or_default();
    if data_type != FLOAT {
        return Err(unsupported(&format!(
            "'{name}' of element type {data_type}"
        )));
    }
    if tensor.external_data_offset().unwrap_or(NO_EXTERNAL_DATA) != NO_EXTERNAL_DATA {
        return Err(unsupported(&format!("'{name}' in another file")));
    }
    let shape = tensor
        .dims()
        .iter()
        .flatten()
        .map(|size| {
            usize::try_from(size)
                .map_err(|_| malformed(&format!("'{name}' has the dimension {size}")))
        })
        .collect::<Result<Vec<_>>>()?;
    let bytes = tensor.raw_data().map_or(&[][..], |data| data.bytes());
    let expected = shape
        .iter()
        .try_fold(4usize, |product, &size| product.checked_mul(size));
    if expected != Some(bytes.len()) {
        return Err(malformed(&format!(
            "'{name}' of shape {shape:?} has {} bytes",
            bytes.len()
        )));
    }
    let (chunks, _) = bytes.as_chunks::<4>();
    let values = chunks
        .iter()
        .map(|&chunk| f32::from_le_bytes(chunk))
        .collect();
    Ok(NamedArray {
        name: name.to_owned(),
        shape,
        values,
    })
}

fn malformed(reason: &str) -> CheckpointFileError {
    CheckpointFileError::Malformed {
        reason: reason.to_owned(),
    }
}

fn unsupported(what: &str) -> CheckpointFileError {
    CheckpointFileError::Unsupported {
        what: what.to_owned(),
    }
}

type Tables<'a, T> = ForwardsUOffset<Vector<'a, ForwardsUOffset<T>>>;

/// A table of the schema: its fields by number, checked before any is read.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident { $($slot:ident $field:ident: $number:literal => $type:ty),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        struct $name<'a>(Table<'a>);

        #[allow(dead_code, reason = "some fields are only written, others only read")]
        impl<'a> $name<'a> {
            $(const $slot: VOffsetT = 4 + 2 * $number;

            fn $field(&self) -> Option<<$type as Follow<'a>>::Inner> {
                // SAFETY: a table is reached only through `verify`, which has checked this field's type.
                unsafe { self.0.get::<$type>(Self::$slot, None) }
            })+
        }

        impl<'a> Follow<'a> for $name<'a> {
            type Inner = Self;

            unsafe fn follow(bytes: &'a [u8], location: usize) -> Self {
                // SAFETY: the caller promises a table at this place.
                Self(unsafe { Table::new(bytes, location) })
            }
        }

        impl<'a> Verifiable for $name<'a> {
            fn run_verifier(verifier: &mut Verifier<'_, '_>, position: usize) -> Result<(), InvalidFlatbuffer> {
                verifier
                    .visit_table(position)?
                    $(.visit_field::<$type>(stringify!($field), Self::$slot, false)?)+
                    .finish();
                Ok(())
            }
        }
    };
}

table! {
    /// The root.
    CheckpointTable {
        VERSION version: 0 => i32,
        MODULE module: 1 => ForwardsUOffset<ModuleTable<'a>>,
        GROUPS groups: 2 => Tables<'a, GroupTable<'a>>,
    }
}

table! {
    /// The parameters.
    ModuleTable {
        REQUIRES_GRAD requires_grad: 0 => Tables<'a, TensorTable<'a>>,
        FROZEN frozen: 1 => Tables<'a, TensorTable<'a>>,
        HAS_EXTERNAL_DATA has_external_data: 3 => bool,
    }
}

table! {
    /// An optimizer's step and moments.
    GroupTable {
        NAME name: 0 => ForwardsUOffset<&'a str>,
        STEP step: 1 => i64,
        STATES states: 3 => Tables<'a, MomentsTable<'a>>,
    }
}

table! {
    /// The moments of one parameter.
    MomentsTable {
        NAME name: 0 => ForwardsUOffset<&'a str>,
        MOMENTS moments: 1 => Tables<'a, TensorTable<'a>>,
    }
}

table! {
    /// A named tensor.
    TensorTable {
        NAME name: 0 => ForwardsUOffset<&'a str>,
        DIMS dims: 2 => ForwardsUOffset<Vector<'a, i64>>,
        DATA_TYPE data_type: 3 => i32,
        RAW_DATA raw_data: 4 => ForwardsUOffset<Vector<'a, u8>>,
        EXTERNAL_DATA_OFFSET external_data_offset: 6 => i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by ONNX Runtime's own tool: tests/data/make_toy.py.
    const TOY: &[u8] = include_bytes!("../tests/data/toy/checkpoint");

    fn array(name: &str, shape: &[usize], first: f32) -> NamedArray {
        let length = shape.iter().product();
        let values = (0..length)
            .map(|index| first + index as f32 / 3.0)
            .collect();
        NamedArray {
            name: name.to_owned(),
            shape: shape.to_vec(),
            values,
        }
    }

    fn sample() -> (Vec<NamedArray>, OptimizerState) {
        let arrays = |first| {
            vec![
                array("b", &[2, 3], first),
                array("a", &[4], first + 1.0),
                array("c", &[], 0.5),
            ]
        };
        let state = OptimizerState {
            step: 7,
            first_moments: arrays(-2.0),
            second_moments: arrays(9.0),
            loss_scaling: None,
        };
        (arrays(0.25), state)
    }

    #[test]
    fn returns_what_was_written() {
        let (parameters, state) = sample();
        let read_back = read(&write(&parameters, Some(&state)).unwrap()).unwrap();
        assert_eq!(
            read_back,
            Contents {
                parameters: parameters.clone(),
                optimizer: Some(state)
            }
        );
        let read_back = read(&write(&parameters, None).unwrap()).unwrap();
        assert_eq!(
            read_back,
            Contents {
                parameters,
                optimizer: None
            }
        );
    }

    #[test]
    fn reads_what_the_original_tool_wrote() {
        let contents = read(TOY).unwrap();
        let mut shapes: Vec<_> = contents
            .parameters
            .iter()
            .map(|array| (array.name.as_str(), array.shape.as_slice()))
            .collect();
        shapes.sort_unstable();
        let expected: [(&str, &[usize]); 4] = [
            ("first.bias", &[8]),
            ("first.weight", &[4, 8]),
            ("second.bias", &[3]),
            ("second.weight", &[8, 3]),
        ];
        assert_eq!(shapes, expected);
        assert_eq!(contents.optimizer, None);
    }

    #[test]
    fn damaged_files_are_errors_and_never_panic() {
        let (parameters, state) = sample();
        let ours = write(&parameters, Some(&state)).unwrap();
        for whole in [TOY, &ours] {
            for length in 0..whole.len() - 1 {
                // A file may end in padding that nothing points at.
                let cut = read(&whole[..length]);
                assert!(
                    cut.is_err() || length + 8 >= whole.len(),
                    "{length} of {} bytes",
                    whole.len()
                );
            }
            let mut damaged = whole.to_vec();
            let mut refused = 0;
            for position in 0..whole.len() {
                for mask in [0x01, 0x80, 0xff] {
                    damaged[position] ^= mask;
                    refused += usize::from(read(&damaged).is_err());
                    damaged[position] ^= mask;
                }
            }
            assert!(
                refused > whole.len() / 4,
                "{refused} of {}",
                3 * whole.len()
            );
        }
    }

    #[test]
    fn refuses_to_write_what_does_not_fit() {
        let (parameters, state) = sample();
        let mut wrong = parameters.clone();
        wrong[0].values.pop();
        assert!(
            matches!(write(&wrong, None), Err(CheckpointFileError::Length { name, .. }) if name == "b")
        );

        let mut missing = state.clone();
        missing.second_moments.remove(1);
        let error = write(&parameters, Some(&missing));
        assert!(matches!(error, Err(CheckpointFileError::Moments { name }) if name == "a"));

        let mut foreign = state.clone();
        foreign.first_moments.push(array("d", &[1], 0.0));
        let error = write(&parameters, Some(&foreign));
        assert!(matches!(error, Err(CheckpointFileError::Moments { name }) if name == "d"));

        let mut misshapen = state;
        misshapen.first_moments[0].shape = vec![3, 2];
        let error = write(&parameters, Some(&misshapen));
        assert!(matches!(error, Err(CheckpointFileError::Moments { name }) if name == "b"));
    }
}
