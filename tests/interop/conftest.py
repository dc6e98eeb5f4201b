from tests.mumotts_kernels import _compiled_once  # noqa: F401
