"""Answers for auditors: exports that carry their own proof, and the verifiers of them."""
