//! Dropout masks computed where they are used, instead of being inputs.
//!
//! Element (i, j, …) of a site is kept where `site · row_i · column_j · …`, a product of odd random
//! numbers modulo 2³², is not below `ratio · 2³²`. The factors are small inputs that the caller
//! draws for every micro-batch from its counters, so a run is reproducible and can be resumed. Two
//! elements agree no more often than chance unless the quotient of their factors is one of small
//! numbers, which that of random 32-bit numbers practically never is. A mask costs one product and
//! one comparison, operators that every provider has.

use crate::ir::{DType, Dim, GraphError, Type, ValueId};
use crate::ops::Graph;
use crate::ops::Op;
use crate::ops::concat::Split;
use crate::ops::dropout::FactorDropout;
use crate::ops::dropping::Dropping;
use mpnet_plan::{DropoutSite, Factor};
use std::collections::HashMap;

/// Replaces the mask inputs of `sites` by their computation, and every Dropout by a choice between
/// its input and 0 with the scaling behind it; [`factors`] are the inputs that take the masks' place.
///
/// # Errors
/// Where a site's mask is neither `[rows, B, width]` nor `[B, H, rows, keys]`.
pub fn device_dropout(graph: &mut Graph, sites: &[DropoutSite]) -> Result<(), GraphError> {
    if sites.is_empty() {
        return Ok(());
    }
    let nodes = std::mem::take(&mut graph.nodes);
    let factors = Factors::new(graph, sites)?;
    let mut masks = HashMap::new();
    for (index, site) in sites.iter().enumerate() {
        let input = graph.inputs.iter().copied();
        let Some(input) = input.clone().find(|v| graph.label(*v) == site.name) else {
            return Err(invalid(format!("there is no input '{}'", site.name)));
        };
        graph.inputs.retain(|v| *v != input);
        masks.insert(input, factors.replacement(graph, index, site)?);
    }
    let mut map = graph.identity_map();
    for mut node in nodes {
        for input in &mut node.inputs {
            *input = map[input.0];
        }
        let inner = node.op.operator_mut().dropping();
        if let Some((dropping, mask)) = inner.filter(|(how, _)| **how == Dropping::Mask) {
            let input = node.inputs[mask];
            let site = sites
                .iter()
                .position(|site| site.name == graph.label(input));
            if let Some(site) = site {
                *dropping = Dropping::Factors;
                let factors = factors.apart(graph, site, &sites[site])?;
                node.inputs.splice(mask..=mask, factors);
            }
            graph.nodes.push(node);
            continue;
        }
        let dropout = match &node.op {
            Op::Dropout(op) => masks.get(&node.inputs[1]).map(|mask| (op.ratio, *mask)),
            _ => None,
        };
        let Some((ratio, replacement)) = dropout else {
            graph.nodes.push(node);
            continue;
        };
        let mask = match replacement {
            Replacement::Mask(mask) => mask,
            Replacement::Factors(rows, columns) => {
                let op = FactorDropout { ratio };
                map[node.outputs[0].0] = graph.apply1(op, &[node.inputs[0], rows, columns])?;
                continue;
            }
        };
        let zero = graph.scalar_like(node.inputs[0], 0.0)?;
        let kept = graph.where_select(mask, node.inputs[0], zero)?;
        map[node.outputs[0].0] = graph.scale(kept, 1.0 / (1.0 - f64::from(ratio)))?;
    }
    map.extend((map.len()..graph.values.len()).map(ValueId));
    graph.replace_uses(&map);
    Ok(())
}

/// The factors that a graph takes, in the order of its inputs.
pub fn factors(graph: &Graph) -> Vec<Factor> {
    let inputs = graph.inputs().iter();
    inputs
        .filter(|input| graph.ty(**input).dtype == DType::U32)
        .map(|input| Factor {
            name: graph.label(*input),
            shape: graph.ty(*input).shape.clone(),
        })
        .collect()
}

/// What takes a mask's place.
#[derive(Debug, Clone, Copy)]
enum Replacement {
    /// The mask, computed.
    Mask(ValueId),
    /// The factors of rows and columns.
    Factors(ValueId, ValueId),
}

fn invalid(reason: String) -> GraphError {
    GraphError::Invalid {
        stage: "dropout on the device".to_owned(),
        reason,
    }
}

/// The inputs of factors.
struct Factors {
    inputs: HashMap<&'static str, ValueId>,
    /// u32 `[1]` each.
    sites: Vec<ValueId>,
}

/// One factor for each row of a batch, `[longest rows, B, 1]`.
const ROWS: &str = "dropout.rows";
/// One for each column, as many as the widest site has.
const COLUMNS: &str = "dropout.columns";
/// One for each head of each row of the batch, `[B, H, 1, 1]`.
const HEADS: &str = "dropout.heads";
/// One for each query, `[longest queries, 1]`.
const QUERIES: &str = "dropout.queries";
/// One for each key.
const KEYS: &str = "dropout.keys";
/// One for each site.
const SITES: &str = "dropout.sites";

impl Factors {
    fn new(graph: &mut Graph, sites: &[DropoutSite]) -> Result<Factors, GraphError> {
        let mut factors = Factors {
            inputs: HashMap::new(),
            sites: Vec::new(),
        };
        let one = || Dim::from(1);
        // The first site of each kind has the most rows: only the last layer has fewer.
        let hidden = sites.iter().find(|site| site.shape.len() == 3);
        if let Some([rows, batch, _]) = hidden.map(|site| &site.shape[..]) {
            let widest = sites
                .iter()
                .filter(|site| site.shape.len() == 3)
                .filter_map(|site| site.shape[2].as_const())
                .max()
                .unwrap_or(0);
            factors.declare(graph, ROWS, vec![rows.clone(), batch.clone(), one()]);
            factors.declare(graph, COLUMNS, vec![widest.into()]);
        }
        let attention = sites.iter().find(|site| site.shape.len() == 4);
        if let Some([batch, heads, queries, keys]) = attention.map(|site| &site.shape[..]) {
            factors.declare(
                graph,
                HEADS,
                vec![batch.clone(), heads.clone(), one(), one()],
            );
            factors.declare(graph, QUERIES, vec![queries.clone(), one()]);
            factors.declare(graph, KEYS, vec![keys.clone()]);
        }
        let all = factors.declare(graph, SITES, vec![sites.len().into()]);
        let each = Split {
            axis: 0,
            sizes: vec![1; sites.len()],
        };
        factors.sites = graph.apply(each, &[all])?;
        Ok(factors)
    }

    fn declare(&mut self, graph: &mut Graph, name: &'static str, shape: Vec<Dim>) -> ValueId {
        let input = graph.input(name, Type::new(DType::U32, shape));
        self.inputs.insert(name, input);
        input
    }

    /// The first `len` of a factor's elements along its first dimension.
    fn first(&self, graph: &mut Graph, name: &str, len: &Dim) -> Result<ValueId, GraphError> {
        let input = self
            .inputs
            .get(name)
            .ok_or_else(|| invalid(format!("no site needs '{name}'")))?;
        graph.slice(*input, 0, Dim::from(0), len.clone())
    }

    /// The factors of `site`: of rows and columns, or of an attention's heads, queries and keys.
    fn apart(
        &self,
        graph: &mut Graph,
        index: usize,
        site: &DropoutSite,
    ) -> Result<Vec<ValueId>, GraphError> {
        let own = self.sites[index];
        match &site.shape[..] {
            [rows, _, width] => {
                let rows = self.first(graph, ROWS, rows)?;
                Ok(vec![
                    graph.wrapping_mul(own, rows)?,
                    self.first(graph, COLUMNS, width)?,
                ])
            }
            [batch, _, queries, keys] => {
                let heads = self.first(graph, HEADS, batch)?;
                Ok(vec![
                    graph.wrapping_mul(own, heads)?,
                    self.first(graph, QUERIES, queries)?,
                    self.first(graph, KEYS, keys)?,
                ])
            }
            other => Err(invalid(format!(
                "'{}' has {} dimensions",
                site.name,
                other.len()
            ))),
        }
    }

    /// What takes the place of the mask of `site`: bool of its shape, true where an element is kept, or the
    /// factors of its rows and columns.
    fn replacement(
        &self,
        graph: &mut Graph,
        index: usize,
        site: &DropoutSite,
    ) -> Result<Replacement, GraphError> {
        let parts = self.apart(graph, index, site)?;
        if let &[rows, columns] = &parts[..] {
            return Ok(Replacement::Factors(rows, columns));
        }
        let hash = graph.wrapping_mul(parts[0], parts[1])?;
        let hash = graph.wrapping_mul(hash, parts[2])?;
        // Kept where the hash is at least the limit, so above the number before it.
        let limit = (f64::from(site.ratio) * 2f64.powi(32)).round();
        let below = graph.constant(DType::U32, &[], [(limit - 1.0).max(0.0)])?;
        Ok(Replacement::Mask(graph.less(below, hash)?))
    }
}
