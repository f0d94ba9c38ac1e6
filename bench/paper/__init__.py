"""The low-dimensional study of Zhang & Levin (arXiv 2509.17990) again: one script for each table and figure.

    python -m bench.paper.table1_lorenz        similarity of flows; fidelity to Lorenz and to five other systems
    python -m bench.paper.figure2_planar       streamlines on planar sets
    python -m bench.paper.figure4_uniqueness   100 learned flows beside 100 of each null
    python -m bench.paper.figure6_score        score, flow, and paths with noise
    python -m bench.paper.figure7_mmd          drift of the distribution over 100 steps
    python -m bench.paper.lyapunov_lorenz      are the learned flows chaotic?
    python -m bench.paper.equations            the equation behind still pictures, which the paper does not ask for

Each prints the paper's number, ours by the paper's protocol and ours at its best, and leaves NAME.md, NAME.json and
NAME.png. Trained models are kept in a cache that the scripts share: the same command goes on after an interruption.
"""
