//! AdamW with clipping by the global norm, as the training API's optimizer model.
//!
//! ONNX Runtime's clip operator adds up norms in the order of a hash map, another one in every
//! process. The training graph gives one further parameter a gradient that outweighs all others,
//! so that the sum no longer depends on their order.

use crate::ir::{DType, Dim, GraphError, Type};
use crate::onnx::emitter::{Attribute, Emitter, onnx_type};
use crate::onnx::model::{serialize, value_info};
use crate::onnx::proto::{
    GraphProto, SequenceType, TensorType, TypeProto, TypeValue, ValueInfoProto,
};

pub use mpnet_plan::AdamW;

/// A parameter of one element that no model reads. Its gradient is the norm of all others times
/// [`NORM_WEIGHT`], which makes clipping reproducible.
///
/// `InplaceClipGradNorm` adds up the squares of the gradients in the order of ONNX Runtime's hash map of
/// parameters, another one in every process, and so rounds the norm differently from run to run. A square
/// 2^28 times the sum of all others absorbs them whatever their order: the norm that the kernel finds is
/// this gradient, and with `max_norm` scaled alike it clips by the norm that the training graph computed.
pub const NORM_CARRIER: &str = "optimizer.gradient_norm";
/// How much the carrier's gradient outweighs the norm; a power of two, so that nothing is rounded.
pub const NORM_WEIGHT: f32 = 16384.0;
/// Added to the norm that clipping divides by, as PyTorch's `clip_grad_norm_` has it.
pub const NORM_EPSILON: f32 = 1e-6;

/// `AdamWOptimizer`'s mode that follows PyTorch: decay first, bias correction as in the paper.
const PYTORCH_MODE: i64 = 0;

/// The optimizer model: inputs `learning_rate` f32\[1\], `step` i64\[1\], and sequences of tensors
/// `params`, `gradients`, `first_order_moments`, `second_order_moments`, all updated in place.
///
/// # Errors
/// Where protobuf cannot encode it.
pub fn optimizer_model(adamw: &AdamW) -> Result<Vec<u8>, GraphError> {
    let mut emitter = Emitter::default();
    let sequences = [
        "params",
        "gradients",
        "first_order_moments",
        "second_order_moments",
    ];
    let mut gradients = "gradients".to_owned();
    if adamw.clip_grad_norm > 0.0 {
        let clipped = "clipped_gradients".to_owned();
        emitter.contrib(
            "InplaceClipGradNorm",
            &[gradients],
            std::slice::from_ref(&clipped),
            [(
                "max_norm",
                Attribute::Float(adamw.clip_grad_norm * NORM_WEIGHT),
            )],
        );
        gradients = clipped;
    }
    let inputs = [
        "learning_rate".to_owned(),
        "step".to_owned(),
        sequences[0].to_owned(),
        gradients,
        sequences[2].to_owned(),
        sequences[3].to_owned(),
    ];
    let updated = "updated_flag".to_owned();
    emitter.contrib(
        "AdamWOptimizer",
        &inputs,
        std::slice::from_ref(&updated),
        [
            ("alpha", Attribute::Float(adamw.beta1)),
            ("beta", Attribute::Float(adamw.beta2)),
            ("epsilon", Attribute::Float(adamw.epsilon)),
            ("weight_decay", Attribute::Float(adamw.weight_decay)),
            ("correct_bias", Attribute::Int(1)),
            ("adam_mode", Attribute::Int(PYTORCH_MODE)),
        ],
    );
    let one = |dtype| Type::new(dtype, [Dim::from(1)]);
    let mut declared = vec![
        value_info("learning_rate", &one(DType::F32)),
        value_info("step", &one(DType::I64)),
    ];
    declared.extend(sequences.map(tensor_sequence));
    serialize(GraphProto {
        name: "mpnet_optimizer".to_owned(),
        node: emitter.nodes,
        initializer: emitter.initializers,
        input: declared,
        output: vec![value_info(&updated, &one(DType::Bool))],
    })
}

/// A `seq(tensor(float))`.
fn tensor_sequence(name: &str) -> ValueInfoProto {
    let element = TypeValue::Tensor(TensorType {
        elem_type: onnx_type(DType::F32),
        shape: None,
    });
    let elements = SequenceType {
        elem_type: TypeProto {
            value: Some(element),
        },
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: TypeProto {
            value: Some(TypeValue::Sequence(Box::new(elements))),
        },
    }
}
