"""The low-dimensional study of Zhang & Levin (arXiv 2509.17990) again: one script for each table and figure.

    python -m bench.paper.table1_lorenz        similarity of flows; fidelity to Lorenz and to five other systems
    python -m bench.paper.figure2_planar       streamlines on planar sets
    python -m bench.paper.figure4_uniqueness   100 learned flows beside 100 of each null
    python -m bench.paper.figure6_score        score, flow, and paths with noise
    python -m bench.paper.figure7_mmd          drift of the distribution over 100 steps
    python -m bench.paper.lyapunov_lorenz      are the learned flows chaotic?
    python -m bench.paper.equations            the equation behind still pictures, which the paper does not ask for

And that of Lu, Kusmierz and Mihalas, "A Fokker-Planck-based loss function":

    python -m bench.paper.lorenz_parameters    Figure 2: parameters from unordered points
    python -m bench.paper.gene_network         Figures 3, 9: 21 influences between genes
    python -m bench.paper.limit_cycle_density  Figure 5: a density from an equation
    python -m bench.paper.density_from_data    Figure 6: a density from points
    python -m bench.paper.cccp                 Figures 7, 8: denoising and clusters

Each prints the paper's number, ours by the paper's protocol and ours at its best, and leaves NAME.md, NAME.json and
NAME.png. Trained models are kept in a cache that the scripts share: the same command goes on after an interruption.
"""
