"""Optimisation of events by ask and tell: candidates beyond the data, their scores, and a prior that follows them."""
