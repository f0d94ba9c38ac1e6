import pytest
import torch

from eqflow.ops._backend import native_module


@pytest.fixture(params=native_module().cpu_isas())
def isa(request):
    """Forces every instruction set of this machine in turn."""
    module = native_module()
    before = module.cpu_isa()
    module.set_cpu_isa(request.param)
    yield request.param
    module.set_cpu_isa(before)


@pytest.fixture
def threads():
    """Sets the number of threads, and puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
