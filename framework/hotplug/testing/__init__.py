"""Tools for authors of backends and ops: oracle, reference device, conformance suite, fakes."""
