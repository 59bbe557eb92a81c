"""Launch topologies for `accelerate launch --config_file`."""
