//! A reader that takes ONNX's format at its word, for tests: in proto2 a field that is absent is not zero.
//! It reads the bytes themselves, with none of the code that writes them.

use std::collections::BTreeMap;

/// What a message has to hold, by numbers of `onnx.proto`.
struct Rule {
    message: &'static str,
    /// Fields that have to be there, once.
    present: &'static [u64],
    /// Of these at most one is there.
    either: &'static [u64],
    /// Fields that are messages themselves.
    inner: &'static [(u64, &'static str)],
}

const RULES: &[Rule] = &[
    Rule {
        message: "ModelProto",
        present: &[1, 2, 3, 7],
        either: &[],
        inner: &[
            (7, "GraphProto"),
            (8, "OperatorSetIdProto"),
            (14, "StringStringEntryProto"),
        ],
    },
    Rule {
        message: "OperatorSetIdProto",
        present: &[1, 2],
        either: &[],
        inner: &[],
    },
    Rule {
        message: "StringStringEntryProto",
        present: &[1, 2],
        either: &[],
        inner: &[],
    },
    Rule {
        message: "GraphProto",
        present: &[2],
        either: &[],
        inner: &[
            (1, "NodeProto"),
            (5, "TensorProto"),
            (11, "ValueInfoProto"),
            (12, "ValueInfoProto"),
            (13, "ValueInfoProto"),
        ],
    },
    Rule {
        message: "NodeProto",
        present: &[3, 4, 7],
        either: &[],
        inner: &[(5, "AttributeProto")],
    },
    Rule {
        message: "AttributeProto",
        present: &[1, 20],
        either: &[2, 3, 4, 8],
        inner: &[],
    },
    Rule {
        message: "TensorProto",
        present: &[2, 8, 14],
        either: &[9, 13],
        inner: &[(13, "StringStringEntryProto")],
    },
    Rule {
        message: "ValueInfoProto",
        present: &[1, 2],
        either: &[],
        inner: &[(2, "TypeProto")],
    },
    Rule {
        message: "TypeProto",
        present: &[],
        either: &[1, 4],
        inner: &[(1, "TypeProto.Tensor"), (4, "TypeProto.Sequence")],
    },
    Rule {
        message: "TypeProto.Tensor",
        present: &[1],
        either: &[],
        inner: &[(2, "TensorShapeProto")],
    },
    Rule {
        message: "TypeProto.Sequence",
        present: &[1],
        either: &[],
        inner: &[(1, "TypeProto")],
    },
    Rule {
        message: "TensorShapeProto",
        present: &[],
        either: &[],
        inner: &[(1, "TensorShapeProto.Dimension")],
    },
    Rule {
        message: "TensorShapeProto.Dimension",
        present: &[],
        either: &[1, 2],
        inner: &[],
    },
];

/// The field of `AttributeProto` that holds the value of each type: FLOAT, INT, STRING, INTS.
const VALUE_OF_TYPE: &[(u64, u64)] = &[(1, 2), (2, 3), (3, 4), (7, 8)];
/// Fields of which there may be many.
const REPEATED: &[(&str, u64)] = &[
    ("ModelProto", 8),
    ("ModelProto", 14),
    ("GraphProto", 1),
    ("GraphProto", 5),
    ("GraphProto", 11),
    ("GraphProto", 12),
    ("GraphProto", 13),
    ("NodeProto", 1),
    ("NodeProto", 2),
    ("NodeProto", 5),
    ("AttributeProto", 8),
    ("TensorProto", 1),
    ("TensorProto", 13),
    ("TensorShapeProto", 1),
];

/// A field as it stands in the file.
enum Field<'a> {
    Number(u64),
    Fixed,
    Bytes(&'a [u8]),
}

/// Checks that every field that a reader may ask for is there, however small its value.
pub(crate) fn check(model: &[u8]) {
    message(model, "ModelProto");
}

fn message(mut bytes: &[u8], name: &'static str) {
    let rule = RULES
        .iter()
        .find(|rule| rule.message == name)
        .unwrap_or_else(|| panic!("no rule for {name}"));
    let mut found: BTreeMap<u64, Vec<Field>> = BTreeMap::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes)),
            2 => {
                let length = varint(&mut bytes) as usize;
                Field::Bytes(take(&mut bytes, length))
            }
            5 => {
                take(&mut bytes, 4);
                Field::Fixed
            }
            other => panic!("{name}: wire type {other}"),
        };
        found.entry(key >> 3).or_default().push(field);
    }
    for number in rule.present {
        assert!(found.contains_key(number), "{name} has no field {number}");
    }
    for (number, fields) in &found {
        let repeated = REPEATED.contains(&(name, *number));
        assert!(
            repeated || fields.len() == 1,
            "{name} has field {number} {} times",
            fields.len()
        );
        let inner = rule.inner.iter().find(|(field, _)| field == number);
        for field in fields {
            if let (Some((_, inner)), Field::Bytes(bytes)) = (inner, field) {
                message(bytes, inner);
            }
        }
    }
    let values: Vec<u64> = rule
        .either
        .iter()
        .copied()
        .filter(|number| found.contains_key(number))
        .collect();
    assert!(
        rule.either.is_empty() || values.len() == 1,
        "{name} has the values {values:?}"
    );
    if let Some([Field::Number(kind)]) = found.get(&20).map(Vec::as_slice)
        && name == "AttributeProto"
    {
        assert!(
            VALUE_OF_TYPE.contains(&(*kind, values[0])),
            "an attribute of type {kind} has field {}",
            values[0]
        );
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = take(bytes, 1) else {
            unreachable!("one byte was taken")
        };
        value |= u64::from(byte & 127) << shift;
        if byte & 128 == 0 {
            return value;
        }
    }
    panic!("a number of more than 64 bits")
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = bytes
        .split_at_checked(length)
        .expect("the bytes that the length says");
    *bytes = rest;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Dim, GraphError, Type};
    use crate::lower::export::{self, Weights};
    use crate::lower::{ort_training, portable};
    use crate::model::config::{Activation, ModelConfig};
    use crate::model::encoder::{Head, TextSizes, encoder};
    use crate::model::pooling::{Pooling, PoolingStep, SentenceHead};
    use crate::model::testing::smallest;
    use crate::model::{AttentionForm, Objective};
    use crate::onnx::export::ExportOptions;
    use crate::onnx::model::to_onnx;
    use crate::ops::Graph;
    use mpnet_plan::{AdamW, Precision, Provider};
    use proptest::prelude::*;
    use proptest::sample::select;

    const OPTIMIZER: AdamW = AdamW {
        beta1: 0.9,
        beta2: 0.98,
        epsilon: 1e-6,
        weight_decay: 0.0,
        clip_grad_norm: 1.0,
    };

    fn models() -> impl Strategy<Value = ModelConfig> {
        (
            select(&Objective::ALL[..]),
            select(&Activation::ALL[..]),
            any::<bool>(),
            select(&[0.0f32, 0.1][..]),
        )
            .prop_map(|(objective, activation_fn, normalize_before, dropout)| {
                ModelConfig {
                    objective,
                    activation_fn,
                    normalize_before,
                    dropout,
                    attention_dropout: dropout,
                    ..smallest()
                }
            })
    }

    fn heads() -> impl Strategy<Value = Head> {
        let pooling = select(
            &[
                Pooling::Cls,
                Pooling::Max,
                Pooling::Mean,
                Pooling::MeanSqrtLen,
                Pooling::WeightedMean,
                Pooling::LastToken,
            ][..],
        );
        let sentence = proptest::collection::vec(pooling, 1..4).prop_map(|pooling| {
            Head::Sentence(SentenceHead {
                pooling,
                steps: vec![PoolingStep::Normalize],
            })
        });
        prop_oneof![Just(Head::None), Just(Head::MaskedLm), sentence]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn models_of_the_session_engine_have_every_field(
            config in models(),
            provider in select(Provider::ALL),
            precision in select(&[Precision::F32, Precision::BF16, Precision::F16][..]),
            [fused_attention, own_kernels, gradient_checkpointing, expose] in any::<[bool; 4]>(),
            ranks in 1..=2_usize,
        ) {
            let options = portable::Options {
                optimizer: OPTIMIZER,
                provider,
                precision,
                fused_attention,
                own_kernels,
                gradient_checkpointing,
                ranks,
                shards: 1,
                expose,
            };
            let models = portable::compile(&config, &options).unwrap().plan.models;
            for model in [&models.step, &models.evaluation, &models.optimizer, &models.clear, &models.copy] {
                check(model);
            }
        }

        #[test]
        fn models_of_the_training_api_have_every_field(
            config in models(),
            [gradient_checkpointing, expose] in any::<[bool; 2]>(),
        ) {
            let options = ort_training::Options { optimizer: OPTIMIZER, gradient_checkpointing, expose };
            let form = AttentionForm::Expanded;
            let made = ort_training::compile(&config, &options, Provider::Cpu, form).unwrap();
            for model in [&made.training, &made.eval, &made.optimizer] {
                check(model);
            }
        }

        #[test]
        fn exports_have_every_field(
            config in models(),
            head in heads(),
            weights in select(&[Weights::F32, Weights::F16, Weights::Int8, Weights::Int8Dynamic][..]),
            outside in any::<bool>(),
            opset in select(&[17, 20][..]),
        ) {
            let options = ExportOptions {
                opset,
                dims: ["batch", "sequence"],
                metadata: vec![("empty".to_owned(), String::new())],
                outside: outside.then(|| "data".to_owned()),
                int32_inputs: outside,
            };
            let graph = encoder(&config, &head, &TextSizes::default()).unwrap();
            let sizes: Vec<(String, usize)> = crate::model::parameters::parameters(&config)
                .into_iter()
                .map(|p| (p.name.clone(), p.len()))
                .collect();
            let mut values = |name: &str| {
                let found = sizes.iter().find(|(known, _)| known == name);
                Ok(vec![0.5; found.map_or(0, |(_, len)| *len)])
            };
            let mut model = Vec::new();
            export::lower(graph, "g", weights, &options, &mut values, &mut model, &mut Vec::new())
                .unwrap();
            check(&model);
        }
    }

    #[test]
    fn a_field_that_is_left_out_is_seen() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        let x = graph.input("x", Type::f32([Dim::from(2), Dim::from(3)]));
        let parts = graph.concat(0, &[x, x])?;
        graph.output("y", parts);
        let model = to_onnx(&graph, "g", graph.inputs(), &|_| Ok(()), Vec::new())?;
        check(&model);
        // `axis` of type INT with i = 0, and the same without `i`.
        let whole = b"\x0a\x04axis\x18\x00\xa0\x01\x02";
        assert!(model.windows(whole.len()).any(|part| part == whole));
        message(whole, "AttributeProto");
        let without = b"\x0a\x04axis\xa0\x01\x02";
        assert!(std::panic::catch_unwind(|| message(without, "AttributeProto")).is_err());
        Ok(())
    }
}
