"""What the models are made of: windows, nets, distributions of counts."""
