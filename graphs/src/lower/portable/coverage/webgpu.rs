//! WebGPU's kernels: what its registrations take, asked of the build 1.27.0 operator by operator. 64-bit
//! integers are off unless a session asks for them; LogSoftmax in halves is taken apart by the runtime.

use super::Kernels;

pub const SOURCE: &str = "onnxruntime/core/providers/webgpu of ONNX Runtime 1.27.0 (at 8f0278c77b)";

pub const KERNELS: Kernels = &[
    ("Add", "fhu"),
    ("And", "o"),
    ("ArgMax", "fhu"),
    ("Cast", "fhou"),
    ("Concat", "fhu"),
    ("DequantizeLinear", "c"),
    ("Div", "fhu"),
    ("Equal", "fhu"),
    ("Erf", "fh"),
    ("Exp", "fh"),
    ("Expand", "fhou"),
    ("*FastGelu", "fh"),
    ("Gather", "fhou"),
    ("GatherElements", "fh"),
    ("*Gelu", "fh"),
    ("Identity", "fhu"),
    ("LayerNormalization", "fh"),
    ("Less", "fhu"),
    ("LogSoftmax", "h"),
    ("MatMul", "fh"),
    ("Mul", "fhu"),
    ("Neg", "fh"),
    ("Pad", "fhu"),
    ("Range", "f"),
    ("ReduceSum", "fhu"),
    ("ReduceSumSquare", "fhu"),
    ("Relu", "fh"),
    ("Reshape", "fhu"),
    ("ScatterElements", "fhu"),
    ("ScatterND", "fhu"),
    ("Sigmoid", "fh"),
    ("Slice", "fh"),
    ("Softmax", "fh"),
    ("Split", "fhu"),
    ("Sqrt", "fh"),
    ("Sub", "fhu"),
    ("Tanh", "fh"),
    ("Transpose", "fhu"),
    ("Unsqueeze", "fhou"),
    ("Where", "fhou"),
];
