use std::sync::atomic::{AtomicUsize, Ordering};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::*;
#[cfg(target_arch = "x86_64")]
use crate::processor::Bf16Instructions;

/// What this processor can multiply in, by all instructions that it has; says what it lacks.
fn arithmetics() -> Vec<Arithmetic> {
    let mut found = vec![Arithmetic::F32(F32Instructions::Plain)];
    #[cfg(target_arch = "x86_64")]
    {
        let here = Capability::here();
        let without_amx = Capability {
            amx_bf16: false,
            ..here
        };
        let mut bf16: Vec<_> = [here, without_amx]
            .into_iter()
            .filter_map(|capability| capability.bf16().ok())
            .collect();
        bf16.dedup();
        if !bf16.contains(&Bf16Instructions::Amx) {
            eprintln!("SKIPPED: this processor has no amx_bf16 that is permitted");
        }
        if bf16.is_empty() {
            eprintln!("SKIPPED: this processor has no avx512_bf16");
        }
        found.extend(bf16.into_iter().map(Arithmetic::Bf16));
        for (there, name, instructions) in [
            (
                is_x86_feature_detected!("avx512f"),
                "avx512f",
                F32Instructions::Avx512,
            ),
            (
                is_x86_feature_detected!("fma"),
                "fma",
                F32Instructions::Avx2,
            ),
        ] {
            match there {
                true => found.push(Arithmetic::F32(instructions)),
                false => eprintln!("SKIPPED: this processor has no {name}"),
            }
        }
    }
    found
}

/// As an operand is read: in bf16 rounded by the definition, to nearest and ties to even.
fn read(arithmetic: Arithmetic, x: f32) -> f64 {
    f64::from(match arithmetic {
        Arithmetic::F32(_) => x,
        Arithmetic::Bf16(_) => half::bf16::from_f32(x).to_f32(),
    })
}

struct Case {
    node: Node,
    shapes: [Vec<usize>; 2],
    operands: [Vec<f32>; 2],
    /// What is added, of the result's shape.
    added: Option<Vec<f32>>,
}

impl Case {
    fn new(arithmetic: Arithmetic, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let batch: Vec<usize> = (0..rng.random_range(0..3))
            .map(|_| rng.random_range(1..4))
            .collect();
        let [m, k, n] = [0; 3].map(|_| match rng.random_range(0..4) {
            0 => rng.random_range(1..5),
            1 => 32 * rng.random_range(1..4),
            2 if seed.is_multiple_of(25) => rng.random_range(300..700),
            _ => rng.random_range(1..150),
        });
        let mut operand = || Operand {
            transposed: rng.random_bool(0.5),
            batch_inside: !batch.is_empty() && rng.random_bool(0.3),
        };
        let (a, mut b) = (operand(), operand());
        let shared = rng.random_bool(0.4);
        if shared {
            b.batch_inside = false;
        }
        let shape = |operand: Operand, batch: &[usize], rows, columns| {
            let (height, width) = match operand.transposed {
                true => (columns, rows),
                false => (rows, columns),
            };
            match operand.batch_inside {
                true => [&[height], batch, &[width]].concat(),
                false => [batch, &[height, width]].concat(),
            }
        };
        let shapes = [
            shape(a, &batch, m, k),
            shape(b, if shared { &[] } else { &batch }, k, n),
        ];
        let operands = shapes.each_ref().map(|shape| {
            let count = shape.iter().product();
            (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
        });
        let node = Node {
            arithmetic,
            a,
            b,
            alpha: [1.0, 0.125][rng.random_range(0..2)],
        };
        let mut case = Self {
            node,
            shapes,
            operands,
            added: None,
        };
        if rng.random_bool(0.5) {
            let count = case.products().shape.iter().product();
            let added = (0..count).map(|_| rng.random_range(-1.0..1.0));
            case.added = Some(added.collect());
        }
        case
    }

    fn products(&self) -> Products {
        self.node
            .products(&self.shapes[0], &self.shapes[1])
            .unwrap()
    }

    /// The result by that many threads; what is added lies where the result comes.
    fn found(&self, threads: usize) -> Vec<f32> {
        let products = self.products();
        let count = products.shape.iter().product();
        let before = self.added.clone();
        let mut result = before.unwrap_or_else(|| vec![f32::NAN; count]);
        let operands = self.operands.each_ref().map(Vec::as_slice);
        let share = |count: usize, work: &(dyn Fn(usize) + Sync + Send)| {
            let next = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        loop {
                            match next.fetch_add(1, Ordering::Relaxed) {
                                index if index < count => work(index),
                                _ => return,
                            }
                        }
                    });
                }
            });
            Ok::<_, Infallible>(())
        };
        let c = Shared(result.as_mut_ptr());
        let added = self.added.as_ref().map(|_| c);
        // SAFETY: the vectors have the sizes of the shapes.
        let Ok(()) = unsafe { self.node.run(&products, operands, added, c, share) };
        result
    }

    /// The same in f64, by the definition, with the sums of the terms' magnitudes.
    fn expected(&self) -> Vec<(f64, f64)> {
        let products = self.products();
        let [rows, depth, columns] = products.sizes;
        let mut result = Vec::new();
        let operands = self.operands.each_ref().map(|operand| {
            let read = |&x| read(self.node.arithmetic, x);
            operand.iter().map(read).collect::<Vec<f64>>()
        });
        for index in 0..products.count {
            let element = |operand: usize, of: &Matrices, row, column| {
                operands[operand][index * of.next + row * of.row + column * of.column]
            };
            for row in 0..rows {
                for column in 0..columns {
                    let terms = (0..depth).map(|i| {
                        element(0, &products.a, row, i) * element(1, &products.b, i, column)
                    });
                    let alpha = f64::from(self.node.alpha);
                    let (sum, size) =
                        terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
                    let added = self
                        .added
                        .as_ref()
                        .map_or(0.0, |added| added[result.len()].into());
                    result.push((alpha * sum + added, alpha * size + added.abs()));
                }
            }
        }
        result
    }
}

#[test]
fn products_are_those_of_the_definition_at_any_shape() {
    for arithmetic in arithmetics() {
        for seed in 0..100 {
            let case = Case::new(arithmetic, seed);
            let (found, expected) = (case.found(1), case.expected());
            assert_eq!(found.len(), expected.len());
            for (found, (expected, size)) in found.iter().zip(&expected) {
                let off = (f64::from(*found) - expected).abs();
                assert!(
                    off <= 1e-6 * size + 1e-12,
                    "case {seed} in {arithmetic:?}, {:?}: {found}, not {expected}",
                    case.shapes
                );
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let bits = |x: Vec<f32>| x.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    for arithmetic in arithmetics() {
        for seed in 0..3 {
            let mut case = Case::new(arithmetic, seed);
            case.node.a = Operand::default();
            case.node.b = Operand::default();
            case.added = None;
            // Several blocks of both operands.
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            case.shapes = [vec![700, 1100], vec![1100, 600]];
            case.operands = case.shapes.each_ref().map(|shape| {
                let count = shape.iter().product();
                (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
            });
            let alone = bits(case.found(1));
            for threads in [1, 2, 4] {
                assert!(bits(case.found(threads)) == alone, "{threads} threads");
            }
        }
    }
}

#[test]
fn sums_keep_what_is_not_finite() {
    for arithmetic in arithmetics() {
        for wrong in [f32::NAN, f32::INFINITY] {
            let mut case = Case::new(arithmetic, 3);
            case.operands[0][0] = wrong;
            assert!(case.found(1).iter().any(|x| !x.is_finite()), "{wrong}");
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let node = Node {
        arithmetic: Arithmetic::F32(F32Instructions::Plain),
        a: Operand::default(),
        b: Operand::default(),
        alpha: 1.0,
    };
    for (a, b) in [
        (&[2, 3][..], &[4, 5][..]),
        (&[2, 4, 3], &[3, 3, 5]),
        (&[3], &[3, 2]),
        (&[], &[3, 2]),
    ] {
        assert!(node.products(a, b).is_err(), "{a:?}, {b:?}");
    }
}
