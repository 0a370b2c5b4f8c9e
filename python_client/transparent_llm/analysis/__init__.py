"""Answers made of a model's values: functions over the contract and torch, for any `TransparentLlm`."""
