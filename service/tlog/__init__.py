"""Transparency logs as pure functions: RFC 6962 trees and C2SP notes, checkpoints, tiles and proofs."""
