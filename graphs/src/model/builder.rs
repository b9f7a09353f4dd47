//! The graph under construction, with its configuration, parameters and dropout masks.

use super::config::ModelConfig;
use super::parameters::{Parameter, parameters};
use crate::ir::{DType, Dim, GraphError, Type, ValueId};
use crate::ops::Graph;
use mpnet_plan::DropoutSite;
use std::collections::HashMap;

/// How attention is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionForm {
    /// In ordinary operators, with scores in memory.
    #[default]
    Expanded,
    /// As one operator.
    Fused,
}

/// What the model functions build into.
pub struct Builder<'a> {
    pub graph: Graph,
    pub config: &'a ModelConfig,
    parameters: HashMap<String, ValueId>,
    /// Whether dropout is applied.
    training: bool,
    pub sites: Vec<DropoutSite>,
}

impl<'a> Builder<'a> {
    /// A graph that has the parameters of `config`'s model and nothing else.
    ///
    /// # Errors
    /// Where the configuration is not valid.
    pub fn new(config: &'a ModelConfig, training: bool) -> Result<Builder<'a>, GraphError> {
        Builder::of(config, parameters(config), training)
    }

    /// The same with the parameters of `list`.
    ///
    /// # Errors
    /// Where the configuration is not valid.
    pub fn of(
        config: &'a ModelConfig,
        list: Vec<Parameter>,
        training: bool,
    ) -> Result<Builder<'a>, GraphError> {
        config.validate()?;
        let mut graph = Graph::new();
        let parameters = list
            .into_iter()
            .map(|p| {
                let ty = Type::f32(p.shape.iter().map(|&d| Dim::from(d)));
                let id = graph.parameter(p.name.clone(), ty);
                (p.name, id)
            })
            .collect();
        Ok(Builder {
            graph,
            config,
            parameters,
            training,
            sites: Vec::new(),
        })
    }

    /// The parameter of that native name.
    ///
    /// # Errors
    /// Where the model has none.
    pub fn parameter(&self, name: &str) -> Result<ValueId, GraphError> {
        self.parameters
            .get(name)
            .copied()
            .ok_or_else(|| GraphError::Invalid {
                stage: "the model's definition".to_owned(),
                reason: format!("there is no parameter '{name}'"),
            })
    }

    /// `x · weightᵀ + bias` with the parameters `<name>.weight` and `<name>.bias`.
    ///
    /// # Errors
    /// Where there are no such parameters.
    pub fn linear(&mut self, x: ValueId, name: &str) -> Result<ValueId, GraphError> {
        let weight = self.parameter(&format!("{name}.weight"))?;
        let bias = self.parameter(&format!("{name}.bias"))?;
        let y = self.graph.linear(x, weight)?;
        self.graph.add(y, bias)
    }

    /// Layer normalization with the parameters `<name>.weight` and `<name>.bias`.
    ///
    /// # Errors
    /// Where there are no such parameters.
    pub fn layer_norm(&mut self, x: ValueId, name: &str) -> Result<ValueId, GraphError> {
        let scale = self.parameter(&format!("{name}.weight"))?;
        let bias = self.parameter(&format!("{name}.bias"))?;
        self.graph
            .layer_norm(x, scale, bias, super::config::LAYER_NORM_EPSILON)
    }

    /// The mask of dropout at a site of that shape, in a training graph with a positive ratio.
    pub fn dropout_mask(&mut self, shape: &[Dim], ratio: f32, site: &str) -> Option<ValueId> {
        if !self.training || ratio == 0.0 {
            return None;
        }
        let name = format!("dropout.{site}");
        let shape = shape.to_vec();
        let ty = Type::new(DType::U8, shape.clone());
        let keep = self.graph.input(name.clone(), ty);
        self.sites.push(DropoutSite { name, shape, ratio });
        Some(keep)
    }

    /// Dropout of `x` in a training graph with a positive ratio, else `x`.
    ///
    /// # Errors
    /// Never in practice.
    pub fn dropout(&mut self, x: ValueId, ratio: f32, site: &str) -> Result<ValueId, GraphError> {
        let shape = self.graph.ty(x).shape.clone();
        match self.dropout_mask(&shape, ratio, site) {
            Some(keep) => self.graph.dropout(x, keep, ratio),
            None => Ok(x),
        }
    }
}
