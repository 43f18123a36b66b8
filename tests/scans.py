"""Scans of phantoms in the layout of fastMRI: an oversampled readout, several coils, correlated noise."""

import torch

from oneprior.core import Rows
from oneprior.data.fastmri import write_kspace
from oneprior.data.phantoms import phantoms
from oneprior.operators.coils import birdcage
from oneprior.operators.fourier import centred_fft, middle


def scan(path, *, n=2, coils=4, recon=(32, 32), grid=(64, 40), noise=0.0, lines=None, mixed=True, mask=False, seed=0):
    """Writes a file; returns the complex pictures (n, *recon), the RSS targets, and the noise factor (coils, coils).

    Args:
        n, coils: slices and coils; 0 coils for a file without an axis of them.
        recon: the picture's pixels; it lies in the middle of `grid`, which is empty elsewhere.
        noise: deviation of each part of the noise.
        lines: bool (columns,), which are measured.
        mixed: whether the coils' noise is correlated.
        mask: whether the file says which lines were measured.
    """
    rows = Rows(n, seed=seed)
    magnitude = 3.0 * (phantoms(n, recon, rows)[:, 0].double() + 1) / 2
    across = torch.linspace(-1, 1, recon[1], dtype=torch.float64)
    picture = magnitude * torch.polar(torch.ones_like(across), 0.7 * across + 0.3)
    whole = torch.zeros(n, *grid, dtype=torch.complex128)
    whole[:, middle(grid[0], recon[0]), middle(grid[1], recon[1])] = picture
    maps = birdcage(grid, coils) if coils else torch.ones(1, *grid, dtype=torch.complex128)
    kspace = centred_fft(whole[:, None] * maps, (-2, -1))
    white = rows.stream("noise").normal(*kspace.shape[1:], 2, dtype=torch.float64)
    c = kspace.shape[1]
    factor = torch.eye(c, dtype=torch.complex128)
    if mixed and c > 1:
        factor = factor + 0.5 * torch.diag(torch.full((c - 1,), 0.6 + 0.8j, dtype=torch.complex128), -1)
        factor = factor * torch.linspace(0.8, 1.3, c)[:, None]
    kspace = kspace + noise * torch.einsum("dc,nc...->nd...", factor, torch.view_as_complex(white))
    if lines is not None:
        kspace = kspace * lines
    values = (kspace if coils else kspace[:, 0]).numpy()
    target = magnitude.numpy()
    write_kspace(
        path, values, mask=lines.numpy() if mask and lines is not None else None, target=target,
        attributes={"max": float(target.max()), "acquisition": "phantom"},
    )  # fmt: skip
    return picture, magnitude, factor
