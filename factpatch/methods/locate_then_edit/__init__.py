"""What MEMIT and AlphaEdit share: subjects located, target values optimised, residuals spread over the layers."""
