"""Whether torch has MKL's products of sparse matrices on this processor; without them, other ways are taken."""

import warnings

import torch

HAS_MKL: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]

with warnings.catch_warnings():
    # Torch says once in a process that the CSR layout is in beta. It says so here, and not to the user.
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 0], [], [], size=(1, 1), check_invariants=False)
