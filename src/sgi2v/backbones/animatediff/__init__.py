"""AnimateDiff behind the contract: Stable Diffusion 1.5 inflated by motion modules."""
