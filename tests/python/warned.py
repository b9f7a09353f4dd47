"""What libraries warn of while they load a model."""
import logging
import warnings


class _Handler(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.found = []

    def emit(self, record):
        self.found.append(record.getMessage())


def warned(function, *arguments, **options):
    """What `function` returns, and what transformers, Optimum, sentence-transformers and Python warned of."""
    handler = _Handler()
    loggers = [logging.getLogger(name) for name in ("transformers", "optimum", "sentence_transformers")]
    for logger in loggers:
        logger.addHandler(handler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(*arguments, **options)
    for logger in loggers:
        logger.removeHandler(handler)
    return result, handler.found + [str(w.message) for w in caught if not issubclass(w.category, DeprecationWarning)]
