"""For those who write a provider: the conformance kit, a fake provider, a clock for tests."""
