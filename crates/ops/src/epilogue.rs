//! Elementwise operators as epilogues: how an operator describes what it would do to the product whose result it reads.

use esvit_simd::gemm::Epilogue;

use crate::Layout;

/// An [`Epilogue`] before it has operands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum EpilogueKind {
    /// GELU of each element.
    Gelu,
    /// Multiplication by the derivative of GELU at the elements of an operand `h`.
    GeluDerivative,
    /// Addition of an operand `r`; with a layout, after multiplication by an operand `s`, one factor for each image of these tokens.
    Residual(Option<Layout>),
}

impl EpilogueKind {
    /// Number of operands it reads.
    pub fn operands(&self) -> usize {
        match self {
            EpilogueKind::Gelu => 0,
            EpilogueKind::GeluDerivative | EpilogueKind::Residual(None) => 1,
            EpilogueKind::Residual(Some(_)) => 2,
        }
    }

    /// Layout of the tokens whose images have a factor each.
    pub fn scaled_tokens(&self) -> Option<&Layout> {
        match self {
            EpilogueKind::Residual(layout) => layout.as_ref(),
            _ => None,
        }
    }

    /// Floats of scratch memory that [`bind`](EpilogueKind::bind) fills.
    pub fn scratch_floats(&self) -> usize {
        self.scaled_tokens().map_or(0, Layout::tokens)
    }

    /// The epilogue with its operands. `factors` is scratch memory for the factor of each row.
    pub fn bind<'a>(&self, operands: &[&'a [f32]], factors: &'a mut [f32]) -> Epilogue<'a> {
        match self {
            EpilogueKind::Gelu => Epilogue::Gelu,
            EpilogueKind::GeluDerivative => Epilogue::GeluDerivative(operands[0]),
            EpilogueKind::Residual(None) => Epilogue::Add(operands[0]),
            EpilogueKind::Residual(Some(layout)) => {
                layout.spread(operands[1], factors);
                Epilogue::Residual { x: operands[0], scale: factors }
            }
        }
    }
}
