"""The models of a server: by name, loaded, used, unloaded."""
