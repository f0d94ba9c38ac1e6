"""Systems with a known truth: parameters, starts and closed forms; the time steps are `eqflow.ops`."""
