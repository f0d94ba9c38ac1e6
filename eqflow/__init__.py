"""eqflow: which dynamics keep a distribution?"""
