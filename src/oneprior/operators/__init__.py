"""Instruments, y = A(x), with exact adjoints; and the words that name them."""

from oneprior.operators.affine import Affine, Matrix
from oneprior.operators.base import LinearOperator, Operator
from oneprior.operators.bias_field import UncertainBiasField
from oneprior.operators.blur import Blur, gaussian_blur, motion_blur
from oneprior.operators.colour import Grey
from oneprior.operators.compose import compose
from oneprior.operators.ct import CT
from oneprior.operators.downsample import Downsample
from oneprior.operators.foreign import Foreign, Function, LinearFunction
from oneprior.operators.grammar import grammar, parse_operator
from oneprior.operators.identity import Identity
from oneprior.operators.jpeg import JPEG
from oneprior.operators.mask import Erase, Mask
from oneprior.operators.mri import MRI
from oneprior.operators.page import UncertainPage
from oneprior.operators.phase import PhaseRetrieval
from oneprior.operators.resize import bicubic
from oneprior.operators.saturation import Saturation
from oneprior.operators.separable import Separable
from oneprior.operators.stack import Stack, stack
from oneprior.operators.uncertain import UncertainOperator
from oneprior.operators.uncertain_blur import (
    UncertainEllipseBlur,
    UncertainGaussianBlur,
    UncertainKernel,
    UncertainMotionBlur,
)
from oneprior.operators.uncertain_coils import UncertainCoils
from oneprior.operators.words import Grammar

__all__ = [
    "CT",
    "JPEG",
    "MRI",
    "Affine",
    "Blur",
    "Downsample",
    "Erase",
    "Foreign",
    "Function",
    "Grammar",
    "Grey",
    "Identity",
    "LinearFunction",
    "LinearOperator",
    "Mask",
    "Matrix",
    "Operator",
    "PhaseRetrieval",
    "Saturation",
    "Separable",
    "Stack",
    "UncertainBiasField",
    "UncertainCoils",
    "UncertainEllipseBlur",
    "UncertainGaussianBlur",
    "UncertainKernel",
    "UncertainMotionBlur",
    "UncertainOperator",
    "UncertainPage",
    "bicubic",
    "compose",
    "gaussian_blur",
    "grammar",
    "motion_blur",
    "parse_operator",
    "stack",
]
