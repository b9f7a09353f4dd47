//! The allow-list: every name that a PyTorch file may mention, and what it means here.

use crate::convert::tensors::Element;

/// What a name in a pickle stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A dictionary.
    Dict,
    /// `argparse.Namespace`
    Namespace,
    /// The type of a storage.
    Storage(Element),
    /// `torch._utils._rebuild_tensor` and `_v2`: storage, offset, shape, strides, …
    Tensor,
    /// `torch._utils._rebuild_parameter`: tensor, …
    Parameter,
    /// `torch.Size`: a tuple.
    Size,
    /// Objects, functions and constants whose content is not needed, and which are not made.
    Opaque,
}

const OPAQUE: &[(&str, &[&str])] = &[
    (
        "torch",
        &[
            "device",
            "float32",
            "float64",
            "float16",
            "bfloat16",
            "int64",
            "int32",
            "int16",
            "int8",
            "uint8",
            "bool",
            "strided",
            "contiguous_format",
            "preserve_format",
        ],
    ),
    ("numpy", &["dtype", "ndarray"]),
    ("numpy.core.multiarray", &["_reconstruct", "scalar"]),
    ("numpy._core.multiarray", &["_reconstruct", "scalar"]),
    ("_codecs", &["encode"]),
    ("builtins", &["set", "frozenset", "bytearray", "complex"]),
    ("__builtin__", &["set", "frozenset", "bytearray", "complex"]),
    (
        "pathlib",
        &["Path", "PosixPath", "PurePosixPath", "WindowsPath"],
    ),
    ("pathlib._local", &["Path", "PosixPath"]),
    (
        "fairseq.meters",
        &["AverageMeter", "TimeMeter", "StopwatchMeter"],
    ),
    (
        "fairseq.logging.meters",
        &[
            "AverageMeter",
            "TimeMeter",
            "StopwatchMeter",
            "MetersDict",
            "SumMeter",
        ],
    ),
];

impl Class {
    /// The meaning of `module.name`; none where it is not on the list.
    pub fn find(module: &str, name: &str) -> Option<Class> {
        let class = match (module, name) {
            ("collections", "OrderedDict" | "defaultdict" | "Counter") => Class::Dict,
            ("argparse", "Namespace") => Class::Namespace,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Class::Tensor,
            ("torch._utils", "_rebuild_parameter") => Class::Parameter,
            ("torch", "Size") => Class::Size,
            ("torch", "FloatStorage") => Class::Storage(Element::F32),
            ("torch", "DoubleStorage") => Class::Storage(Element::F64),
            ("torch", "HalfStorage") => Class::Storage(Element::F16),
            ("torch", "BFloat16Storage") => Class::Storage(Element::BF16),
            ("torch", "LongStorage") => Class::Storage(Element::Other(8)),
            ("torch", "IntStorage") => Class::Storage(Element::Other(4)),
            ("torch", "ShortStorage") => Class::Storage(Element::Other(2)),
            ("torch", "CharStorage" | "ByteStorage" | "BoolStorage") => {
                Class::Storage(Element::Other(1))
            }
            _ => {
                let (_, names) = OPAQUE.iter().find(|(m, _)| *m == module)?;
                return names.contains(&name).then_some(Class::Opaque);
            }
        };
        Some(class)
    }
}
