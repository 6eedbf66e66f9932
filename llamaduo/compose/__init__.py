"""How `conf/` and a command's overrides become one configuration."""
