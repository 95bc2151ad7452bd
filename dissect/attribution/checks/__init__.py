"""Checks on the explanations themselves: which methods say something true of this model.

`check.check_methods` puts each through the parameter randomisation of Adebayo et al. (2018), the deletion and
insertion curves of Petsiuk et al. (2018) and, where labels exist, the pointing game of Zhang et al. (2016).
"""
