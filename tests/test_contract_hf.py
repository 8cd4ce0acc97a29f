"""The contract of the back ends, kept by the Hugging Face one."""

from contract import BackendContract


class TestHuggingFace(BackendContract):
    backend = "hf"
