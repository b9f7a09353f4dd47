//! Which builds and providers of ONNX Runtime run a node.

use mpnet_plan::KernelId;

/// What runs a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kernel {
    /// The ONNX standard: everywhere.
    Standard,
    /// A part of the ONNX standard that some providers lack.
    Feature(Feature),
    /// `com.microsoft`'s operator of this type, in ordinary builds.
    Contrib(&'static str),
    /// `com.microsoft`'s operator of this type, in training builds only.
    Training(&'static str),
    /// A kernel of this project, registered with whichever build runs the model.
    Own(KernelId),
}

/// Parts of the ONNX standard that some providers lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// ScatterElements that adds.
    ScatterElementsAdds,
    /// ScatterND that adds, with no addition lost where two go to the same place.
    ScatterNdAdds,
    /// LayerNormalization that also gives mean and deviation, which the derivative reads.
    LayerNormStatistics,
}
