from __future__ import annotations

import pytest
import torch

from benchmarks.profile import part_of, profile_steps, table


@pytest.mark.parametrize(
    ("name", "shapes", "part"),
    [
        ("aten::mkldnn_convolution", [[1, 512, 900], [512, 512, 3]], "front end"),
        ("aten::mkldnn_convolution", [[1, 768, 249], [768, 48, 128]], "positional convolution"),
        ("aten::_fft_r2c", [[1, 768, 2, 256]], "positional convolution"),
        ("aten::bmm", [[2064, 2, 48], [2064, 48, 48]], "positional convolution"),
        ("aten::bmm", [[8, 249, 768], [8, 768, 256]], "adapters"),
        ("aten::addmm", [[768], [249, 768], [768, 3072]], "linears of the layers"),
        ("mkldnn::_linear_pointwise", [[1, 249, 768], [3072, 768], [3072]], "linears of the layers"),
        ("aten::addmm", [[256], [249, 768], [768, 256]], "adapters"),
        ("aten::addmm", [[768], [249, 256], [256, 768]], "adapters"),
        ("aten::baddbmm", [[8, 1, 256], [8, 249, 768], [8, 768, 256]], "adapters"),
        ("aten::index_select", [[64, 256, 768], [], [8]], "gather of adapters"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", [], "attention"),
        ("aten::_cudnn_attention_forward", [], "attention"),
        ("aten::_efficient_attention_forward", [], "attention"),
        ("aten::native_layer_norm", [], "norms"),
        ("aten::gelu", [], "activations"),
        ("aten::max", [], "best tokens"),
        ("aten::add", [], "copies, sums and the rest"),
    ],
)
def test_operations_are_named_for_their_part(name, shapes, part):
    assert part_of(name, shapes, {256}) == part


def test_a_step_is_profiled(bench_model):
    threads = torch.get_num_threads()
    try:
        alone, mixed = profile_steps("small", bench_model, "cpu", (1, 3), 1.0)
    finally:
        torch.set_num_threads(threads)
    for step in (alone, mixed):
        assert sum(step.shares.values()) == pytest.approx(1.0)
        assert step.wall_s > 0
        assert {"front end", "positional convolution", "linears of the layers", "adapters"} <= step.shares.keys()
    assert "gather of adapters" in mixed.shares
    assert "| small, 1 x 1 s | small, 3 x 1 s |" in table([alone, mixed])
