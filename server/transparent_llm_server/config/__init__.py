"""Everything about a server that can be set."""

from transparent_llm_server.config.model import ModelConfig as ModelConfig
from transparent_llm_server.config.server import ServerConfig as ServerConfig
